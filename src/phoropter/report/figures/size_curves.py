"""A metric against the size of the training part, with the power law through it up to twice as much data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from phoropter.report.figures.comparison import FULL_WIDTH, PANEL_WIDTH
from phoropter.report.render.metric_format import MetricFormat, series_color, shorten_name
from phoropter.report.render.svg import RenderedFigure, draw_wide_figure
from phoropter.report.render.table import one_line
from phoropter.report.summary.data_size.size_curves import CandidateCurve
from phoropter.results.data_size.gain import interpolate_law, to_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SIZE_CURVES = 6


def draw_size_curves(curves: Sequence[CandidateCurve], unit: str, scale: MetricFormat) -> RenderedFigure:
    """The first candidates, best first. unit: what sizes count, in the plural."""
    shown = curves[:MAX_SIZE_CURVES]
    f = scale.display_factor

    def paint_figure(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, each in enumerate(shown):
            x, y = each.curve.sizes, each.curve.values
            bounds = np.array([(interval.low, interval.high) for interval in each.intervals]).T
            style: dict[str, Any] = {"color": series_color(i), "marker": "o", "ms": 4.5, "elinewidth": 1.2, "ls": "none"}
            axes.errorbar(x * 1.02**i, y * f, yerr=np.abs(bounds - y) * f, label=shorten_name(each.name), **style)
            if each.gain.law is not None:
                along = np.geomspace(x[0], 2 * x[-1], 120)
                values = to_values(each.curve.metric, interpolate_law(each.gain.law, along)) * f
                seen = along <= x[-1]
                axes.plot(along[seen], values[seen], color=series_color(i), lw=1.4)
                axes.plot(along[~seen], values[~seen], color=series_color(i), lw=1.4, ls=(0, (4, 2)))
        sizes = shown[0].curve.sizes
        ticks = [*sizes, 2 * sizes[-1]]
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.grid(axis="y")
        axes.set_xlabel(f"{unit} trained on (log scale)")
        axes.set_ylabel(scale.axis_label)
        if len(shown) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=1, handlelength=2.6)

    left_out = len(curves) - len(shown)
    caption = (
        f"{scale.title} against the {unit} trained on, with 95 % intervals, and the power law through them; dashed: up to twice "
        "as many, extrapolated." + (f" {left_out} more in the table." if left_out else "")
    )
    values = "; ".join(
        f"{one_line(each.name)} from {scale.format_value(float(each.curve.values[0]))} to "
        f"{scale.format_value(float(each.curve.values[-1]))}"
        for each in shown
    )
    small = ((PANEL_WIDTH, 3.6), paint_figure)
    return draw_wide_figure("data-size", caption, f"{values}.", (FULL_WIDTH, 3.4), paint_figure, small)
