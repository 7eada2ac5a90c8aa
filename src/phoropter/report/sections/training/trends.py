"""Trends of learning curves, and where one candidate would overtake another if the trends continued.

Extrapolation: nothing was measured beyond the last epoch, so a crossing is a reason to train for longer, not a result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phoropter.report.figures.comparison import FULL_WIDTH, MAX_CURVES, PANEL_WIDTH
from phoropter.report.render.metric_format import series_color, shorten_name
from phoropter.report.render.section import ContentBlock, FoldedBlocks
from phoropter.report.render.svg import MUTED, RULE, RenderedFigure, draw_wide_figure
from phoropter.report.render.table import INTERVAL_TITLE, Column, IntervalBounds, Table, TableRow, one_line
from phoropter.report.summary.model import StudySummary
from phoropter.results.stats.trends import (
    MAX_EPOCH_RATIO,
    MIN_EPOCHS,
    RELIABLE_EPOCH_RATIO,
    TREND_FORMS,
    Crossing,
    FittedTrend,
    LearningCurve,
    find_crossings,
    fit_trend,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_TRENDS_DRAWN = 4  # candidates whose trends are drawn
_TREND_COLUMNS = (
    ("validation_accuracy", "accuracy on the inner validation rows"),
    ("train_accuracy", "accuracy on the training rows"),
)
FittedCurves = list[tuple[LearningCurve, list[FittedTrend]]]


def build_trend_blocks(summary: StudySummary) -> tuple[tuple[str, ...], list[ContentBlock]]:
    """Paragraphs and blocks, for validation accuracy if at least two candidates recorded it, else for training accuracy."""
    available = [(quantity, collect_learning_curves(summary, column)) for column, quantity in _TREND_COLUMNS]
    with_pairs = [(quantity, curves) for quantity, curves in available if len(curves) > 1]
    quantity, curves = next(iter(with_pairs or [(q, c) for q, c in available if c]), ("", []))
    if not curves:
        return (), []
    fitted = [(c, [fit_trend(c.mean_curve, form) for form in TREND_FORMS]) for c in curves]
    crossings = find_crossings(curves)
    tables = [_trend_table(fitted, quantity), *([_crossing_table(crossings, quantity)] if crossings else [])]
    figure = _trend_figure(fitted[:MAX_TRENDS_DRAWN], crossings, quantity)
    return _describe_trends(curves, crossings, quantity), [figure, FoldedBlocks("Trends and where they cross", tuple(tables))]


def collect_learning_curves(summary: StudySummary, column: str) -> list[LearningCurve]:
    """The first candidates that recorded the column in every run, over the epochs that all their runs have."""
    curves = []
    for c in summary.candidates:
        rows = c.history.get(column, [])
        epochs = min((len(r) for r in rows), default=0)
        if len(rows) == len(c.runs) and epochs >= MIN_EPOCHS:
            splits = tuple((run.test_rows_digest, *run.split[:2]) for run in c.runs)
            curves.append(LearningCurve(c.name, np.array([r[:epochs] for r in rows]), splits))
    return curves[:MAX_CURVES]


def _describe_trends(curves: list[LearningCurve], crossings: list[Crossing], quantity: str) -> tuple[str, ...]:
    intro = f"Trends are fitted to the {quantity}, averaged over runs."
    if "training" in quantity:
        intro += " Training accuracy shows how fast a network learns, not how it performs on unseen rows."
    if len(curves) < 2:
        return (intro,)
    if not crossings:
        limit = f"{MAX_EPOCH_RATIO:g} times the number of epochs trained"
        return (intro, f"Under neither form does a lower curve overtake a higher one within {limit}.")
    reliable = sorted((c for c in crossings if not c.warnings), key=lambda c: c.epoch)[:3]
    sentences = [_describe_crossing(c) for c in reliable]
    return (intro, " ".join(sentences) or "No extrapolated crossing is supported by the number of epochs trained.")


def _describe_crossing(c: Crossing) -> str:
    return (
        f"By its {c.form} trend, {c.overtaking} would overtake {c.overtaken} near epoch {c.epoch:,.0f} (95 % interval "
        f"{c.low:,.0f} to {c.high:,.0f}); they were trained for {c.n_epochs} epochs."
    )


def trend_formula(trend: FittedTrend) -> str:
    """As text that can be typed: `-0.112 + 0.139 ln x`."""

    def format_coefficient(value: float, digits: int = 3) -> str:
        return f"{value:z.{digits}f}".replace("-", "\u2212")

    sign = "+" if (trend.b >= 0) == (trend.form == "logarithmic") else "\u2212"
    if trend.form == "logarithmic":
        return f"{format_coefficient(trend.a)} {sign} {abs(trend.b):.3f} ln x"
    return f"{format_coefficient(trend.a)} {sign} {abs(trend.b):.3f} exp(\u2212x/{trend.c:.1f})"


def _trend_table(fitted: FittedCurves, quantity: str) -> Table:
    columns = (
        Column("Candidate"),
        Column("Form"),
        Column("Trend", "text", "x is the epoch; accuracy from 0 to 1"),
        Column("a", "number", "level at epoch 1 of the logarithmic form, limit of the saturating one", 3),
        Column("b", "number", "", 3),
        Column("c", "number", "epochs in which a saturating curve covers 63 % of what is left", 1),
        Column("R²", "number", "share of the variance of the mean curve explained by the trend", 3),
        Column("Epochs", "count"),
        Column("Runs", "count"),
    )
    rows = tuple(
        TableRow((c.name, t.form, trend_formula(t), t.a, t.b, t.c, t.r2, c.n_epochs, len(c.values)))
        for c, trends in fitted
        for t in trends
    )
    note = "Logarithmic: a + b ln x. Saturating: a \u2212 b exp(\u2212x/c). Fitted by least squares to the mean over runs."
    return Table("trends", f"Trends of the {quantity}", columns, rows, note)


def _crossing_table(crossings: list[Crossing], quantity: str) -> Table:
    columns = (
        Column("Lower curve"),
        Column("Would overtake"),
        Column("Form"),
        Column("At epoch", "count", "where the two trends meet"),
        Column(INTERVAL_TITLE, "count", "by resampling runs"),
        Column("Trained", "count", "epochs", unit="epochs"),
        Column("Reliability", "words"),
    )
    rows = tuple(
        TableRow(
            (c.overtaking, c.overtaken, c.form, c.epoch, IntervalBounds(c.low, c.high), c.n_epochs, _crossing_caveat(c)),
            "warning" if c.warnings else "plain",
        )
        for c in crossings
    )
    note = (
        f"A dash: not within {MAX_EPOCH_RATIO:g} times the epochs trained. The interval resamples runs and does not cover the "
        "choice of the form; where the two forms disagree, neither is reliable."
    )
    return Table("crossings", f"Extrapolated crossings of the {quantity}", columns, rows, note, sortable=False, max_html_rows=16)


def _crossing_caveat(c: Crossing) -> str:
    words = "; ".join(c.warnings) if c.warnings else f"within {RELIABLE_EPOCH_RATIO:g} times the epochs trained"
    return words[:1].upper() + words[1:] + "."


def _trend_figure(fitted: FittedCurves, crossings: list[Crossing], quantity: str) -> RenderedFigure:
    last = max(c.n_epochs for c, _ in fitted)
    near = [c.epoch for c in crossings if c.n_epochs < c.epoch <= 4 * last]
    end = max(RELIABLE_EPOCH_RATIO * last, *(1.15 * e for e in near)) if near else RELIABLE_EPOCH_RATIO * last

    def paint_figure(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.axvspan(last, end, color=RULE, alpha=0.35, lw=0)
        for i, (curve, trends) in enumerate(fitted):
            x = np.arange(1.0, curve.n_epochs + 1)
            axes.plot(x, curve.mean_curve * 100, color=series_color(i), lw=1.6, label=shorten_name(curve.name))
            beyond = np.geomspace(1, end if curve.n_epochs == last else min(end, RELIABLE_EPOCH_RATIO * curve.n_epochs), 200)
            for trend, dashes in zip(trends, ((0, (5, 2)), (0, (1, 1.6))), strict=True):
                axes.plot(beyond, trend.evaluate_at(beyond) * 100, color=series_color(i), lw=1.0, ls=dashes, alpha=0.9)
        values = np.concatenate([c.mean_curve for c, _ in fitted]) * 100
        room = max(1.0, 0.25 * float(np.ptp(values)))
        axes.set_ylim(max(0.0, values.min() - room), min(104.0, values.max() + room))
        axes.set_xlim(1, end)
        ticks = [t for e in range(5) for m in (1, 2, 5) if (t := m * 10**e) <= end]
        axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
        axes.set_xticks([], minor=True)
        axes.axvline(last, color=MUTED, lw=0.8)
        axes.grid(axis="y")
        axes.set_xlabel("epoch (log scale); shaded: extrapolated")
        axes.set_ylabel("accuracy, %")
        if len(fitted) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=1 if narrow else 2, handlelength=2.6)

    caption = (
        f"Trends of the {quantity}. Solid: mean over runs. Dashed: a + b ln x. Dotted: a \u2212 b "
        "exp(\u2212x/c). Shaded: beyond the last epoch, extrapolated."
    )
    values = "; ".join(f"{one_line(c.name)}: {trend_formula(t[0])}, R² {t[0].r2:.2f}" for c, t in fitted)
    small = ((PANEL_WIDTH, 3.5), lambda f: paint_figure(f, True))
    return draw_wide_figure("trends", caption, f"{values}.", (FULL_WIDTH, 3.6), lambda f: paint_figure(f, False), small)
