"""A metric by the level of each corruption: a panel for each kind, a curve for each candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phoropter.report.figures.comparison import FULL_WIDTH, LINE_STYLES, MARKERS, MAX_CURVES, PANEL_WIDTH
from phoropter.report.render.metric_format import MetricFormat, series_color, shorten_name
from phoropter.report.render.svg import INK, RenderedFigure, draw_wide_figure
from phoropter.report.render.table import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
PANEL_HEIGHT = 2.3  # inches
DODGE = 0.09  # of a level, between candidates, so that their bars do not cover each other


@dataclass(frozen=True, eq=False)
class ShiftPanel:
    """One corruption. title: of the panel · unit: of its levels · ticks: L labels, from harmless to harmful
    curves: candidate → (L, 3) value and bounds, NaN where there is no answer or no interval
    """

    title: str
    unit: str
    ticks: Sequence[str]
    curves: Mapping[str, Floats]


def shift_figure(panels: Sequence[ShiftPanel], scale: MetricFormat, left_out: int) -> RenderedFigure:
    """A panel for each corruption, in two columns, in one on a phone. left_out: candidates that are not drawn"""
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))[:MAX_CURVES]

    def paint_figure(figure: Figure, columns: int) -> None:
        rows = -(-len(panels) // columns)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for place, axes in enumerate(grid.flat):
            if place < len(panels):
                _paint_panel(axes, panels[place], names, scale)
            else:
                axes.set_visible(False)
        for row in grid:
            row[0].set_ylabel(scale.axis_label)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=1, handlelength=2.6)

    def size_figure(columns: int) -> tuple[float, float]:
        width = FULL_WIDTH if columns == 2 else PANEL_WIDTH
        return width, PANEL_HEIGHT * -(-len(panels) // columns) + 0.2 + 0.2 * len(names)

    caption = f"{scale.title} on corrupted test rows, without training anew. Bars: 95 % intervals."
    if left_out:
        caption += f" {left_out} more candidate{'s are' if left_out != 1 else ' is'} in the tables."
    columns = min(2, len(panels))
    small = (size_figure(1), lambda figure: paint_figure(figure, 1))
    said = "; ".join(_describe_panel(panel, names[0], scale) for panel in panels)
    return draw_wide_figure("under-shift", caption, f"{said}.", size_figure(columns), lambda f: paint_figure(f, columns), small)


def _paint_panel(axes: Axes, panel: ShiftPanel, names: Sequence[str], scale: MetricFormat) -> None:
    places, factor = np.arange(len(panel.ticks)), scale.display_factor
    for i, name in enumerate(names):
        if name not in panel.curves:
            continue
        values = panel.curves[name] * factor
        x = places + (i - (len(names) - 1) / 2) * DODGE
        color = series_color(i)
        axes.vlines(x, values[:, 1], values[:, 2], color=color, lw=2.2, alpha=0.35)
        style = {"ls": LINE_STYLES[i % 6], "marker": MARKERS[i % 6], "ms": 4.0, "lw": 1.2}
        axes.plot(x, values[:, 0], color=color, label=shorten_name(name, 40), **style)
    axes.set_xticks(places, list(panel.ticks))
    axes.set_xlim(-0.5, len(panel.ticks) - 0.5)
    axes.set_title(panel.title, color=INK)
    axes.set_xlabel(panel.unit)
    axes.grid(axis="y")


def _describe_panel(panel: ShiftPanel, name: str, scale: MetricFormat) -> str:
    """The first candidate at each level, for readers who hear the figure."""
    curve = panel.curves.get(name)
    if curve is None:
        return f"{panel.title}: {one_line(name)} has no answers"
    values = ", ".join(f"{tick} {scale.format_value(float(v))}" for tick, v in zip(panel.ticks, curve[:, 0], strict=True))
    return f"{panel.title}, {one_line(name)}: {values}"
