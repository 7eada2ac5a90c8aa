"""Figures that compare candidates: leaderboard, differences, mean ranks, learning curves, sweeps.

Each function takes plain numbers and returns a RenderedFigure. Colour never carries information alone: shape or text repeats it.
At most MAX_CURVES candidates share a set of axes; a figure that leaves some out says so in its caption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phoropter.report.render.metric_format import MetricFormat, series_color, shorten_name
from phoropter.report.render.svg import ACCENT, INK, MUTED, PAPER, RenderedFigure, draw_figure, draw_wide_figure
from phoropter.report.render.table import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CURVES = 6
FULL_WIDTH, PANEL_WIDTH = 8.1, 3.6  # inches: the column of the page, and what fits a phone
LINE_STYLES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1, 1.4)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1.2)), (0, (8, 2)))
MARKERS = "osD^vP"

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LeaderboardEntry:
    """One candidate: its value, the interval (low, high), and the values of single splits (J,), none where they mean nothing."""

    name: str
    mean: float
    low: float
    high: float
    run_values: Floats


@dataclass(frozen=True, eq=False)
class Curve:
    """x (K,), the mean over runs (K,) and the half-width of a band (K,), NaN or zero where there is none."""

    name: str
    x: Floats
    mean: Floats
    band: Floats


def leaderboard_figure(
    lines: Sequence[LeaderboardEntry], scale: MetricFormat, baseline: float | None, limit: int = 30
) -> RenderedFigure:
    """A row for each candidate, best on top: interval as a bar, mean as a dot, runs as ticks; the baseline as a dashed line."""
    shown = list(lines)[:limit]
    f = scale.display_factor
    near = baseline is not None and _baseline_fits_axis([v for line in shown for v in (line.mean, *line.run_values)], baseline)

    def paint_figure(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for y, line in enumerate(shown):
            main = ACCENT if y == 0 else MUTED
            axes.plot(line.run_values * f, np.full(len(line.run_values), y), "|", color=main, alpha=0.4, ms=8, mew=0.8)
            if np.isfinite(line.low) and np.isfinite(line.high):
                axes.plot([line.low * f, line.high * f], [y, y], color=main, lw=3.2, alpha=0.5, solid_capstyle="butt")
            axes.plot([line.mean * f], [y], "o", color=main, ms=6)
        if baseline is not None and near:
            axes.axvline(baseline * f, color=MUTED, lw=0.9, ls=(0, (2, 2)))
        label_rows(axes, [line.name for line in shown], narrow)
        axes.set_xlabel(scale.axis_label + ("" if scale.higher_is_better else " (lower is better)"))

    caption = f"{scale.title} on held-out data. Dot: value. Bar: 95 % interval."
    caption += " Ticks: single splits." if any(len(line.run_values) for line in shown) else ""
    caption += f" The first {limit} of {len(lines)} are shown." if len(lines) > limit else ""
    caption += " Dashed line: majority-class baseline." if near else ""
    values = "; ".join(
        f"{one_line(line.name)} {scale.format_value(line.mean)}{_format_bounds(line, scale)}" for line in shown[:8]
    )
    return draw_row_figure("leaderboard", caption, f"{values}.", len(shown), paint_figure)


def _format_bounds(line: LeaderboardEntry, scale: MetricFormat) -> str:
    return (
        f" ({scale.format_value(line.low)} to {scale.format_value(line.high)})"
        if np.isfinite(line.low) and np.isfinite(line.high)
        else ""
    )


def label_rows(axes: Axes, names: Sequence[str], narrow: bool) -> None:
    """Names beside the rows, or above them in the narrow form; the first row on top."""
    axes.set_ylim(len(names) - 0.4, -0.8 if narrow else -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    if not narrow:
        axes.set_yticks(range(len(names)), [shorten_name(name, 42) for name in names])
        axes.tick_params(axis="y", labelcolor=INK)
        return
    axes.set_yticks([])
    for y, name in enumerate(names):
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 8}
        plate = {"boxstyle": "square,pad=0.15", "facecolor": PAPER, "edgecolor": "none"}  # so that no line crosses a name
        axes.annotate(shorten_name(name, 46), (0, y), (0, 7), bbox=plate, **place)


def draw_row_figure(
    name: str, caption: str, alt: str, rows: int, paint: Callable[[Figure, bool], None], legend: int = 0
) -> RenderedFigure:
    """A figure of rows in its wide and narrow forms. rows: their number · legend: number of lines of the legend below."""
    wide = (FULL_WIDTH, 0.75 + 0.26 * rows + 0.09 * legend)
    narrow = (PANEL_WIDTH, 0.85 + 0.38 * rows + 0.18 * legend)
    return draw_wide_figure(name, caption, alt, wide, lambda f: paint(f, False), (narrow, lambda f: paint(f, True)))


def _baseline_fits_axis(values: Sequence[float], baseline: float) -> bool:
    """Whether the values still span a third of the axis when it includes the baseline."""
    finite = [v for v in values if np.isfinite(v)]
    if not finite:
        return False
    low, high = min(finite), max(finite)
    return (high - low) * 3 >= max(high, baseline) - min(low, baseline)


@dataclass(frozen=True)
class LeaderDifference:
    """The leader minus another candidate, with the interval. is_ahead: the verdict of the corrected test."""

    name: str
    value: float
    low: float
    high: float
    is_ahead: bool


def difference_figure(lines: Sequence[LeaderDifference], leader: str, scale: MetricFormat, limit: int = 30) -> RenderedFigure:
    """A row for each other candidate, with a line at zero."""
    shown = list(lines)[:limit]
    f = scale.display_factor

    def paint_figure(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        axes.axvline(0, color=MUTED, lw=0.9)
        for y, d in enumerate(shown):
            main = ACCENT if d.is_ahead else MUTED
            axes.plot([d.low * f, d.high * f], [y, y], color=main, lw=2.0, alpha=0.7, solid_capstyle="butt")
            axes.plot([d.value * f], [y], "o", color=main, ms=6, mfc=main if d.is_ahead else "none", mew=1.3)
        label_rows(axes, [d.name for d in shown], narrow)
        axes.set_xlabel(f"difference in {scale.inline_title}" + (", points" if scale.percent else ""))

    caption = (
        f"{one_line(leader)} minus each other candidate. Bar: 95 % interval of one comparison, not corrected for their "
        "number. Filled dot: ahead after correction."
    )
    caption += f" The first {limit} of {len(lines)} are shown." if len(lines) > limit else ""
    values = "; ".join(f"{one_line(d.name)}: {d.value * f:z.2f} ({d.low * f:z.2f} to {d.high * f:z.2f})" for d in shown[:8])
    return draw_row_figure("differences", caption, f"{values}.", len(shown), paint_figure)


def mean_rank_figure(names: Sequence[str], ranks: Sequence[float], half: float, p: float, what: str) -> RenderedFigure:
    """Mean ranks over independent blocks, best first.

    half: half of Nemenyi's critical difference (Demšar 2006) · what: of the ranks, as in `by ROC-AUC over 15 births`
    """

    def paint_figure(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for y, rank in enumerate(ranks):
            main = ACCENT if rank - half <= ranks[0] + half else MUTED
            axes.plot([rank - half, rank + half], [y, y], color=main, lw=3.2, alpha=0.5, solid_capstyle="butt")
            axes.plot([rank], [y], "o", color=main, ms=6)
        label_rows(axes, names, narrow)
        axes.set_xlabel("mean rank (1 is best)")

    p_text = "less than 0.001" if p < 0.001 else f"{p:.3f}"
    caption = (
        f"Mean rank {what}; candidates whose bars do not overlap differ (Nemenyi test, 5 % over all "
        f"pairs). In colour: not distinguishable from the first. Friedman's p is {p_text}."
    )
    values = "; ".join(f"{one_line(n)} {r:.2f}" for n, r in zip(names[:8], ranks, strict=False))
    return draw_row_figure("ranks", caption, f"{values}. Critical difference {2 * half:.2f}.", len(names), paint_figure)


def learning_curve_figure(curves: Sequence[Curve], name: str, scale: MetricFormat, left_out: int) -> RenderedFigure:
    """A value by epoch: mean over runs, with a band of one standard deviation."""
    f = scale.display_factor

    def paint_figure(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.add_subplot()
        _plot_curves(axes, curves, f)
        axes.set_xlabel("epoch")
        axes.set_ylabel(scale.axis_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _add_legend(axes, len(curves))

    caption = f"{scale.title} by epoch: mean over runs, band of one standard deviation." + _left_out_note(left_out)
    values = "; ".join(f"{one_line(c.name)} ends at {scale.format_value(float(c.mean[-1]))}" for c in curves)
    return draw_figure(f"learning-{name}", caption, f"{values}.", (PANEL_WIDTH, 3.1), paint_figure)


def sweep_figure(
    curves: Sequence[Curve], name: str, what: str, scale: MetricFormat, labels: Sequence[str] | None, left_out: int
) -> RenderedFigure:
    """A metric against a swept setting. labels: of the values of a setting that is not a number."""
    f = scale.display_factor

    def paint_figure(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for i, c in enumerate(curves):
            shift = 0.0 if labels is None else (i - (len(curves) - 1) / 2) * 0.1
            style: dict[str, Any] = {"color": series_color(i), "marker": MARKERS[i % 6], "ms": 4.5, "lw": 1.2, "elinewidth": 1.2}
            axes.errorbar(
                c.x + shift,
                c.mean * f,
                yerr=c.band * f,
                ls="-" if labels is None else "none",
                label=shorten_name(c.name),
                **style,
            )
        if labels is not None:
            names = [shorten_name(text, 18) for text in labels]
            slanted = sum(map(len, names)) * 0.09 > (PANEL_WIDTH if narrow else FULL_WIDTH)
            axes.set_xticks(range(len(names)), names, rotation=30 if slanted else 0, ha="right" if slanted else "center")
        axes.grid(axis="y")
        axes.set_xlabel(what)
        axes.set_ylabel(scale.axis_label)
        _add_legend(axes, len(curves))

    caption = f"{scale.title} against {what}: mean and 95 % interval." + _left_out_note(left_out)
    values = "; ".join(
        f"{one_line(c.name)} from {scale.format_value(float(c.mean[0]))} to {scale.format_value(float(c.mean[-1]))}"
        for c in curves
    )
    small = ((PANEL_WIDTH, 3.6), lambda f: paint_figure(f, True))
    return draw_wide_figure(f"sweep-{name}", caption, f"{values}.", (FULL_WIDTH, 3.4), lambda f: paint_figure(f, False), small)


def _plot_curves(axes: Axes, curves: Sequence[Curve], factor: float) -> None:
    for i, c in enumerate(curves):
        dashes = LINE_STYLES[i % len(LINE_STYLES)]
        axes.plot(
            c.x,
            c.mean * factor,
            color=series_color(i),
            ls=dashes,
            label=shorten_name(c.name),
            marker="o" if len(c.x) == 1 else "",
        )
        if np.isfinite(c.band).any() and len(c.x) > 1:
            axes.fill_between(
                c.x, (c.mean - c.band) * factor, (c.mean + c.band) * factor, color=series_color(i), alpha=0.14, lw=0
            )
    axes.grid(axis="y")


def _add_legend(axes: Axes, count: int) -> None:
    """Below the axes, where it cannot cover a curve."""
    if count > 1:
        axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=1, handlelength=2.6)


def _left_out_note(count: int) -> str:
    return f" {count} more candidate{'s are' if count != 1 else ' is'} not shown." if count else ""
