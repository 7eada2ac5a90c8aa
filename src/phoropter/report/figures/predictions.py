"""Figures of predictions: confusion matrices, results by class and group, ROC curves, reliability diagram, feature embedding.

Colour never carries a value alone: a confusion matrix of few classes prints its values, one of many classes has a table of the
most frequent confusions beside it, and every number in a figure is in the files beside the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.language.unit_words import parse_unit_word
from phoropter.report.figures.comparison import LINE_STYLES, MARKERS, PANEL_WIDTH, Curve, draw_row_figure, label_rows
from phoropter.report.render.metric_format import MetricFormat, series_color, shorten_name
from phoropter.report.render.svg import ACCENT, INK, ON_ACCENT, PAPER, RULE, SERIES_COLORS, RenderedFigure, draw_figure
from phoropter.report.render.table import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLASSES_WITH_VALUES = 12  # up to so many classes, a confusion matrix prints its values
MAX_CLASSES_WITH_NAMES = 26  # up to so many, it labels its rows
WRONG_COLOR = SERIES_COLORS[1]

Floats = NDArray[np.float64]


def confusion_matrix_figure(counts: NDArray[np.int64], classes: Sequence[str], candidate: str, name: str) -> RenderedFigure:
    """counts: (C, C), row the true class. Drawn as shares of each row, with the diagonal in a colour of its own."""
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    size = len(classes)
    side = min(PANEL_WIDTH, 1.35 + 0.42 * size)

    def paint_figure(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.imshow(
            _shares_to_rgba(shares), interpolation="nearest", aspect="equal"
        ) if size > MAX_CLASSES_WITH_NAMES else _draw_cells(axes, shares)
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        if size <= MAX_CLASSES_WITH_VALUES:
            _draw_cell_values(axes, shares)
        if size <= MAX_CLASSES_WITH_NAMES:
            names = [shorten_name(c, 12) for c in classes]
            fits = max(map(len, names)) * 0.075 < (side - 0.9) / size
            axes.set_xticks(range(size), names, rotation=0 if fits else 90)
            axes.set_yticks(range(size), names)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.spines[:].set_visible(False)

    worst = divmod(int(np.argmax(np.where(np.eye(size, dtype=bool), -1, counts))), size)
    accuracy = np.trace(counts) / max(1, counts.sum())
    alt = f"{accuracy * 100:.1f} % of {counts.sum():,} predictions are correct."
    if size > 1 and counts[worst]:
        true, predicted = one_line(classes[worst[0]]), one_line(classes[worst[1]])
        alt += f" The most frequent confusion: {true} predicted as {predicted}, {shares[worst] * 100:.1f} % of {true}."
    unit = "Percentage of each true class (row)" if size <= MAX_CLASSES_WITH_VALUES else "Share of each true class (row)"
    return draw_figure(name, f"{one_line(candidate)}. {unit}, all runs pooled.", alt, (side, side), paint_figure)


def _shares_to_rgba(shares: Floats) -> Floats:
    """(C, C) shares → (C, C, 4): hue for correct or wrong, opacity for the share. Small shares are raised to be visible."""
    size = len(shares)
    image = np.empty((size, size, 4))
    image[..., :3] = _hex_to_rgb(WRONG_COLOR)
    image[np.arange(size), np.arange(size), :3] = _hex_to_rgb(ACCENT)
    image[..., 3] = np.where(shares > 0, np.maximum(0.05, shares**0.6), 0.0)
    return image


def _hex_to_rgb(hexadecimal: str) -> list[float]:
    return [int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _draw_cells(axes: Axes, shares: Floats) -> None:
    """As squares rather than an image, so that their colours follow the theme of the page."""
    from matplotlib.patches import Rectangle

    size = len(shares)
    alpha = _shares_to_rgba(shares)[..., 3]
    for i, j in np.argwhere(alpha > 0):
        face = ACCENT if i == j else WRONG_COLOR
        axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fc=face, alpha=float(alpha[i, j]), lw=0))
    for k in range(size):
        axes.add_patch(Rectangle((k - 0.47, k - 0.47), 0.94, 0.94, fc="none", ec=RULE, lw=0.6))


def _draw_cell_values(axes: Axes, shares: Floats) -> None:
    for i, j in np.argwhere(shares >= 0.005):
        light = shares[i, j] ** 0.6 > 0.62
        text = f"{shares[i, j] * 100:.0f}"
        axes.text(j, i, text, ha="center", va="center_baseline", fontsize=7, color=ON_ACCENT if light else INK)


def dot_plot(
    rows: Sequence[str], columns: Sequence[tuple[str, Floats]], name: str, caption: str, scale: MetricFormat, limit: int = 40
) -> RenderedFigure:
    """A line for each row (class, group or site) with a mark for each candidate: values (R,) of one metric, NaN for no mark."""
    shown, factor = list(rows)[:limit], scale.display_factor

    def paint_figure(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for y in range(len(shown)):
            values = np.array([v[y] for _, v in columns]) * factor
            if np.isfinite(values).any():
                axes.plot([np.nanmin(values), np.nanmax(values)], [y, y], color=RULE, lw=2.4, zorder=1)
        for i, (candidate, values) in enumerate(columns):
            style: dict[str, Any] = {
                "color": series_color(i),
                "mfc": series_color(i) if i == 0 else "none",
                "mew": 1.3,
                "ms": 5.2,
            }
            axes.plot(
                values[: len(shown)] * factor,
                range(len(shown)),
                MARKERS[i % 6],
                label=shorten_name(candidate),
                zorder=3 - i / 10,
                **style,
            )
        label_rows(axes, shown, narrow)
        axes.set_xlabel(scale.axis_label)
        if len(columns) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=1 if narrow else 2)

    first, values = columns[0]
    sign = 1 if scale.higher_is_better else -1
    worst = int(np.nanargmin(sign * values)) if np.isfinite(values).any() else 0
    alt = f"For {one_line(first)}, the worst is {one_line(rows[worst])} with {scale.format_value(values[worst])}."
    caption += f" The {limit} hardest of {len(rows)} are shown." if len(rows) > limit else ""
    return draw_row_figure(name, caption, alt, len(shown), paint_figure, legend=len(columns))


def roc_curve_figure(curves: Sequence[Curve], areas: Sequence[float], positive: str, how: str) -> RenderedFigure:
    """True positive rate against false positive rate.

    positive: of two classes, the positive one; empty for more · how: what the curves are means of, as a sentence.
    """

    def paint_figure(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=RULE, lw=0.9)
        for i, c in enumerate(curves):
            if i == 0:
                axes.fill_between(
                    c.x, np.clip(c.mean - c.band, 0, 1), np.clip(c.mean + c.band, 0, 1), color=series_color(0), alpha=0.14, lw=0
                )
            axes.plot(
                c.x, c.mean, color=series_color(i), ls=LINE_STYLES[i % 6], label=f"{shorten_name(c.name, 28)}  {areas[i]:.3f}"
            )
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        axes.set_aspect("equal")
        axes.grid()
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", handlelength=2.6)

    classes = f"class {one_line(positive)}" if positive else "one-vs-rest, averaged over classes"
    caption = f"ROC, {classes}, with the area of the table. {how}"
    values_text = "; ".join(f"{one_line(c.name)}, area {a:.3f}" for c, a in zip(curves, areas, strict=True))
    return draw_figure("roc", caption, f"{values_text}.", (PANEL_WIDTH, PANEL_WIDTH + 0.55), paint_figure)


def reliability_diagram(curves: Sequence[Curve], weights: Sequence[Floats], positive: str = "") -> RenderedFigure:
    """Confidence (x) against accuracy (mean) in bins of confidence; the size of a dot is the number of rows in its bin.

    positive: of two classes, the one whose probability is judged; then share of that class against its probability.
    """
    words = ("probability", f"share of {one_line(positive)}") if positive else ("confidence", "accuracy")

    def paint_figure(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=RULE, lw=0.9)
        for i, (c, weight) in enumerate(zip(curves, weights, strict=True)):
            enough = weight >= 5
            axes.plot(
                c.x[enough], c.mean[enough], color=series_color(i), ls=LINE_STYLES[i % 6], lw=1.2, label=shorten_name(c.name, 28)
            )
            size = 4 + 46 * weight[enough] / max(1.0, weight.max())
            axes.scatter(c.x[enough], c.mean[enough], s=size, color=series_color(i), alpha=0.8, lw=0)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel(words[0] + (f" of {one_line(positive)}" if positive else ""))
        axes.set_ylabel(words[1])
        axes.set_aspect("equal")
        axes.grid()
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", handlelength=2.6)

    caption = (
        f"Reliability diagram: {words[1]} by predicted {words[0]}, all held-out rows in the bins of the calibration error. On "
        f"the diagonal the two are equal; below it, the {words[0]} is too high. Larger dots hold more predictions; bins of fewer "
        "than five are not drawn."
    )
    gaps = [float(np.nansum(w * (c.x - c.mean)) / max(1.0, w.sum())) for c, w in zip(curves, weights, strict=True)]
    values_text = "; ".join(
        f"the mean {words[0]} of {one_line(c.name)} is {abs(g) * 100:.1f} points {'above' if g > 0 else 'below'} its {words[1]}"
        for c, g in zip(curves, gaps, strict=True)
    )
    name = "reliability-of-class" if positive else "reliability"
    return draw_figure(name, caption, f"{values_text}.", (PANEL_WIDTH, PANEL_WIDTH + 0.55), paint_figure)


def embedding_figure(
    xy: Floats, member: NDArray[np.int64], names: Sequence[str], by: str, candidate: str, ending: str = ""
) -> RenderedFigure:
    """xy: (n, 2) coordinates from t-SNE, coloured by class or group; beyond eight, colours repeat with other marks.

    ending: of the figure's name
    """

    legend = by != "class" and len(names) <= len(SERIES_COLORS)
    wide, high = np.maximum(np.ptp(xy, axis=0), 1e-9)
    height = PANEL_WIDTH * float(np.clip(high / wide, 0.4, 1.0)) + (0.17 * len(names) if legend else 0.0)

    def paint_figure(figure: Figure) -> None:
        axes = figure.add_subplot()
        for k in np.unique(member):
            at = xy[member == k]
            mark = MARKERS[(k // len(SERIES_COLORS)) % 6]
            axes.plot(
                at[:, 0], at[:, 1], mark, color=series_color(int(k)), ms=2.8, mew=0, alpha=0.75, label=shorten_name(names[k], 28)
            )
        if legend:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=1, markerscale=2)
        for k in np.unique(member) if by == "class" and len(names) <= MAX_CLASSES_WITH_VALUES else ():
            x, y = np.median(xy[member == k], axis=0)
            behind = {"fc": PAPER, "alpha": 0.7, "pad": 1.5, "lw": 0}
            axes.text(x, y, shorten_name(names[k], 14), ha="center", va="center", fontsize=8, color=INK, bbox=behind)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_aspect("equal", "datalim")

    caption = f"Penultimate features of {one_line(candidate)} on one held-out fold ({len(xy):,} rows), by {by}. " + (
        "Distances between clusters are not meaningful."
        if by == "class"
        else f"Clusters by {by} would mean that features encode the {by} rather than the class."
    )
    plural = parse_unit_word(by).plural
    return draw_figure(
        f"features-by-{'class' if by == 'class' else 'group'}{ending}",
        caption,
        f"Scatter plot, each of {len(names)} {plural} in a colour of its own.",
        (PANEL_WIDTH, height),
        paint_figure,
    )
