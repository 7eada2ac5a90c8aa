"""A metric against cost, as a figure in which no label covers another label or a point."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phoropter.report.figures.comparison import FULL_WIDTH, PANEL_WIDTH
from phoropter.report.render.metric_format import MetricFormat, lower_first_letter, shorten_name
from phoropter.report.render.svg import ACCENT, INK, MUTED, RenderedFigure, draw_wide_figure
from phoropter.report.render.table import one_line, si_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CostPoint:
    """A candidate's mean with its interval, and its cost (multiply-adds per image, parameters or seconds)."""

    name: str
    mean: float
    low: float
    high: float
    cost: float


def metric_cost_figure(points: Sequence[CostPoint], scale: MetricFormat, cost: str) -> RenderedFigure:
    """Metric against cost on a log axis; the Pareto front is joined by a line and labelled first."""
    f = scale.display_factor
    front = pareto_front(points, scale.higher_is_better)

    def paint_figure(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.grid(axis="both")
        axes.plot([points[i].cost for i in front], [points[i].mean * f for i in front], color=ACCENT, lw=1.0, alpha=0.6)
        for i, p in enumerate(points):
            main = ACCENT if i in front else MUTED
            if np.isfinite(p.low) and np.isfinite(p.high):
                axes.plot([p.cost, p.cost], [p.low * f, p.high * f], color=main, lw=1.2, alpha=0.5)
            axes.plot([p.cost], [p.mean * f], "o" if i in front else "s", color=main, ms=6 if i in front else 4.5)
        axes.margins(y=0.12)
        axes.xaxis.set_major_formatter(lambda v, _: si_text(v))
        axes.xaxis.set_minor_formatter(lambda v, _: "")
        _set_log_ticks(axes, [p.cost for p in points])
        axes.set_xlabel(f"{cost} (log scale)")
        axes.set_ylabel(scale.axis_label)
        _label_points(figure, axes, points, front, f)

    names = ", ".join(one_line(points[i].name) for i in front)
    caption = (
        f"{scale.title} against {lower_first_letter(cost)}. Circles on the line: Pareto front (no other candidate is "
        "both better and cheaper)."
    )
    caption += " Bars: 95 % intervals. Candidates without a label are in the table."
    alt = f"Pareto front, from low to high cost: {names}."
    return draw_wide_figure("cost", caption, alt, (FULL_WIDTH, 3.6), paint_figure, ((PANEL_WIDTH, 3.4), paint_figure))


def _set_log_ticks(axes: Axes, costs: Sequence[float]) -> None:
    """Ticks in 1-2-5 steps, because a log axis over less than two decades contains hardly a power of ten."""
    from matplotlib.ticker import FixedLocator

    low, high = min(costs) * 0.6, max(costs) * 1.7
    steps = [m * 10.0**e for e in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1) for m in (1, 2, 5)]
    inside = [s for s in steps if low <= s <= high]
    axes.xaxis.set_major_locator(FixedLocator(inside if len(inside) <= 9 else [s for s in inside if f"{s:e}"[0] == "1"]))
    axes.set_xlim(low, high)


def pareto_front(points: Sequence[CostPoint], higher_is_better: bool) -> list[int]:
    """Indices of the points that no other point matches at the same or a lower cost, from low to high cost."""
    sign = 1 if higher_is_better else -1
    best, chosen = -np.inf, []
    for i in sorted(range(len(points)), key=lambda i: (points[i].cost, -sign * points[i].mean, i)):
        if sign * points[i].mean > best:
            best = sign * points[i].mean
            chosen.append(i)
    return chosen


BoundingBox = tuple[float, float, float, float]


def _label_points(figure: Figure, axes: Axes, points: Sequence[CostPoint], front: Sequence[int], factor: float) -> None:
    """Labels beside points, each where it covers no point, bar, line or other label; left out if there is no such place."""
    figure.draw_without_rendering()

    def to_pixels(p: CostPoint, value: float) -> tuple[float, float]:
        x, y = axes.transData.transform((p.cost, value * factor))
        return float(x), float(y)

    at = [to_pixels(p, p.mean) for p in points]
    own = [
        [(x - 5, y - 5, x + 5, y + 5), _error_bar_box(to_pixels(p, p.low), to_pixels(p, p.high))]
        for p, (x, y) in zip(points, at, strict=True)
    ]
    line = [box for a, b in itertools.pairwise(front) for box in _segment_boxes(at[a], at[b])]
    named: list[BoundingBox] = []
    frame = axes.get_window_extent()
    for i in [*front, *(i for i in range(len(points)) if i not in front)]:
        where = (points[i].cost, points[i].mean * factor)
        style: dict[str, Any] = {"fontsize": 8, "color": INK if i in front else MUTED}
        text = axes.annotate(shorten_name(points[i].name, 40), where, (0, 0), textcoords="offset points", **style)
        size = text.get_window_extent()
        others = [*named, *line, *(box for j, boxes in enumerate(own) if j != i for box in boxes)]
        for dx, dy in _label_offsets(size.width, size.height):
            x, y = at[i][0] + dx, at[i][1] + dy
            box = (x, y, x + size.width, y + size.height)
            inside = box[0] >= frame.x0 and box[2] <= frame.x1 + 8 and box[1] >= frame.y0 and box[3] <= frame.y1
            if inside and not any(_boxes_overlap(box, other) for other in others):
                text.xyann = (dx * 72 / figure.dpi, dy * 72 / figure.dpi)
                named.append(box)
                break
        else:
            text.remove()


def _error_bar_box(low: tuple[float, float], high: tuple[float, float]) -> BoundingBox:
    return (low[0] - 2, low[1], high[0] + 2, high[1])


def _segment_boxes(a: tuple[float, float], b: tuple[float, float], steps: int = 60) -> list[BoundingBox]:
    """A line as small boxes that labels must not overlap."""
    shares = np.linspace(0.06, 0.94, steps)
    return [
        (x - 1.5, y - 1.5, x + 1.5, y + 1.5) for x, y in ((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])) for t in shares)
    ]


def _label_offsets(width: float, height: float) -> list[tuple[float, float]]:
    gap = 9
    right, left, centre = gap, -width - gap, -width / 2
    up, down, level, near = gap, -height - gap, -height / 2.6, gap / 3
    beside = [(right, level), (left, level), (right, near), (left, near), (right, -height - near), (left, -height - near)]
    return [*beside, (right, down), (left, down), (right, up), (left, up), (centre, 2 * up), (centre, down)]


def _boxes_overlap(a: BoundingBox, b: BoundingBox) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
