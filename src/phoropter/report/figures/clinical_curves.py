"""Precision by recall, net benefit by threshold probability, and a metric at sites that were left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from phoropter.report.figures.comparison import LINE_STYLES, PANEL_WIDTH, draw_row_figure, label_rows
from phoropter.report.render.metric_format import MetricFormat, series_color, shorten_name
from phoropter.report.render.svg import ACCENT, MUTED, RULE, RenderedFigure, draw_figure
from phoropter.report.render.table import one_line
from phoropter.results.clinical.alarm_statistics import Estimate
from phoropter.results.clinical.decision_curves import RECALLS, THRESHOLDS, DecisionCurve
from phoropter.results.clinical.site_spread import SiteSpread
from phoropter.results.metrics.sufficient_sums import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def precision_recall_figure(curves: Mapping[str, Floats], prevalence: float, of: str) -> RenderedFigure:
    """Precision by recall. curves: candidate → (100,) at RECALLS · prevalence: of the rows · of: whose answers, in words"""

    def paint_figure(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(prevalence, color=RULE, lw=0.9)
        for i, (name, values) in enumerate(curves.items()):
            axes.plot(RECALLS, values, color=series_color(i), ls=LINE_STYLES[i % 6], label=shorten_name(name, 28))
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("recall (sensitivity)")
        axes.set_ylabel("precision (PPV)")
        axes.set_aspect("equal")
        axes.grid()
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", handlelength=2.6)

    half = int(np.searchsorted(RECALLS, 0.5 - 1e-9))
    said = "; ".join(f"at a recall of 50 % the precision of {one_line(n)} is {v[half] * 100:.0f} %" for n, v in curves.items())
    caption = f"Precision by recall, {of}. The line is the share of the positive class: the precision of alarming all."
    return draw_figure("precision-recall", caption, f"{said}.", (PANEL_WIDTH, PANEL_WIDTH + 0.55), paint_figure)


def decision_curve_figure(curves: Mapping[str, DecisionCurve], of: str) -> RenderedFigure:
    """Net benefit by threshold probability, against alarming all and nobody. of: whose answers, in words"""
    first = next(iter(curves.values()))
    last = int(np.searchsorted(THRESHOLDS, min(0.99, max(0.3, 2.5 * first.prevalence)))) + 1
    x = THRESHOLDS[:last]

    def paint_figure(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(0, color=RULE, lw=0.9)
        axes.plot(x, first.alarm_all[:last], color=RULE, lw=1.4, label="alarm all")
        for i, (name, curve) in enumerate(curves.items()):
            axes.plot(x, curve.net_benefit[:last], color=series_color(i), ls=LINE_STYLES[i % 6], label=shorten_name(name, 28))
        top = max(first.prevalence, *(float(c.net_benefit[:last].max()) for c in curves.values()))
        axes.set_ylim(-0.25 * top, 1.08 * top)
        axes.set_xlabel("threshold probability")
        axes.set_ylabel("net benefit")
        axes.grid()
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", handlelength=2.6)

    caption = (
        f"Decision curve, {of}. Net benefit: right alarms less false ones, per answer, a false one weighted by the odds of the "
        "threshold probability at which an alarm is thought worth while. A classifier is of use where it lies above the grey "
        "curve (alarm all) and above 0 (alarm nobody)."
    )
    said = "; ".join(_describe_use(name, curve, last) for name, curve in curves.items())
    return draw_figure("decision-curve", caption, f"{said}.", (PANEL_WIDTH, PANEL_WIDTH + 0.55), paint_figure)


def site_figure(
    sites: Mapping[str, Estimate], spread: SiteSpread | None, scale: MetricFormat, caption: str, limit: int = 30
) -> RenderedFigure:
    """A row for each site, lowest first, and the mean with the prediction interval of a new one. limit: sites that are drawn"""
    known = {name: e for name, e in sites.items() if np.isfinite(e.value)}
    shown = dict(sorted(known.items(), key=lambda item: item[1].value)[:limit])
    names = [*shown, *([] if spread is None else ["a new one, to be expected"])]

    def paint_figure(figure: Figure, narrow: bool) -> None:
        axes, f = figure.add_subplot(), scale.display_factor
        for y, estimate in enumerate([*shown.values(), *([] if spread is None else [spread.new_site])]):
            main = ACCENT if y == len(shown) else MUTED
            if np.isfinite([estimate.low, estimate.high]).all():
                axes.plot([estimate.low * f, estimate.high * f], [y, y], color=main, lw=3.2, alpha=0.5, solid_capstyle="butt")
            axes.plot([estimate.value * f], [y], "o", color=main, ms=6)
        label_rows(axes, names, narrow)
        axes.set_xlabel(scale.axis_label)

    said = "; ".join(f"{one_line(name)} {scale.format_value(e.value)}" for name, e in list(shown.items())[:8])
    end = f" The {limit} lowest of {len(known)} are shown." if len(known) > limit else ""
    return draw_row_figure("unseen-sites", caption + end, f"{said}.", len(names), paint_figure)


def _describe_use(name: str, curve: DecisionCurve, last: int) -> str:
    """Where a candidate is above both, for readers who hear the figure."""
    better = np.flatnonzero(curve.net_benefit[:last] > np.maximum(curve.alarm_all[:last], 0))
    if not len(better):
        return f"{one_line(name)} is nowhere above alarming all and alarming nobody"
    low, high = THRESHOLDS[better[0]] * 100, THRESHOLDS[better[-1]] * 100
    between = "" if len(better) == better[-1] - better[0] + 1 else ", with gaps,"
    return f"{one_line(name)} is above both{between} from {low:.0f} to {high:.0f} %"
