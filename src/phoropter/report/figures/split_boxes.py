"""Box plots of a metric over the splits of each candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from phoropter.report.figures.comparison import LeaderboardEntry, draw_row_figure, label_rows
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.svg import ACCENT, MUTED, PAPER, RenderedFigure
from phoropter.report.render.table import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_SPLITS = 5  # of fewer, a box says no more than their ticks in the leaderboard's figure


def split_box_figure(lines: Sequence[LeaderboardEntry], scale: MetricFormat, limit: int = 30) -> RenderedFigure | None:
    """A box for each candidate, best on top: quartiles, median, and whiskers to the last value within 1.5 of the box's length.

    None where a candidate has fewer than MIN_SPLITS values, or single splits cannot carry the metric.
    """
    shown = list(lines)[:limit]
    if not shown or any(np.isfinite(line.run_values).sum() < MIN_SPLITS for line in shown):
        return None
    values = [line.run_values[np.isfinite(line.run_values)] * scale.display_factor for line in shown]

    def paint_figure(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for first, some, main in ((0, values[:1], ACCENT), (1, values[1:], MUTED)):  # the best, then all others in one call
            if not some:
                continue
            axes.boxplot(
                some,
                positions=range(first, first + len(some)),
                orientation="horizontal",
                widths=0.5,
                manage_ticks=False,
                patch_artist=True,
                boxprops={"facecolor": PAPER, "edgecolor": main, "linewidth": 1.0},
                medianprops={"color": main, "linewidth": 2.0},
                whiskerprops={"color": main, "linewidth": 0.9},
                capprops={"color": main, "linewidth": 0.9},
                flierprops={"marker": "o", "markersize": 3, "markeredgecolor": main, "markerfacecolor": "none"},
            )
        label_rows(axes, [line.name for line in shown], narrow)
        axes.set_xlabel(scale.axis_label + ("" if scale.higher_is_better else " (lower is better)"))

    quartiles = [np.percentile(one, (25, 50, 75)) / scale.display_factor for one in values]
    caption = (
        f"{scale.title} over splits. Box: quartiles and median. Whiskers: the last value within 1.5 of the box's length. Splits "
        "share training rows, so a box is no interval."
    )
    caption += f" The first {limit} of {len(lines)} are shown." if len(lines) > limit else ""
    texts = [
        f"{one_line(line.name)}: median {scale.format_value(float(q[1]))}, quartiles {scale.format_value(float(q[0]))} and "
        f"{scale.format_value(float(q[2]))}"
        for line, q in zip(shown, quartiles, strict=True)
    ]
    return draw_row_figure("splits", caption, f"{'; '.join(texts[:8])}.", len(shown), paint_figure)
