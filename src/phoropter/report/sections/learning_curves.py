"""Learning curves, the trends fitted to them, and where one candidate would overtake another if the trends went on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phoropter.report.figures import comparison
from phoropter.report.figures.comparison import FULL_WIDTH, MAX_CURVES, PANEL_WIDTH, Curve
from phoropter.report.render.metric_format import MetricFormat, series_color, shorten_name
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.svg import MUTED, RULE, RenderedFigure, draw_wide_figure
from phoropter.report.render.table import Column, IntervalBounds, Table, TableRow, one_line
from phoropter.report.summary.findings import ReportInput
from phoropter.report.summary.model import CandidateResults, StudySummary
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
_HISTORY_COLUMNS: tuple[tuple[str, MetricFormat], ...] = (
    ("train_loss", MetricFormat("Training loss", False, False)),
    ("validation_loss", MetricFormat("Validation loss", False, False)),
    ("train_accuracy", MetricFormat("Training accuracy", True)),
    ("validation_accuracy", MetricFormat("Validation accuracy", True)),
)
_TREND_COLUMNS = (
    ("validation_accuracy", "accuracy on the inner validation rows"),
    ("train_accuracy", "accuracy on the training rows"),
)


def learning_curve_section(findings: ReportInput) -> Section | None:
    """None where no candidate was trained for more than an epoch."""
    evidence = findings.summary
    drawings: list[ContentBlock] = []
    for column, scale in _HISTORY_COLUMNS:
        with_it = [e for e in evidence.candidates if column in e.history]
        curves = [curve for e in with_it[:MAX_CURVES] if (curve := _mean_curve(e, column)) is not None]
        if any(len(c.x) > 1 for c in curves):
            drawings.append(comparison.learning_curve_figure(curves, column.replace("_", "-"), scale, len(with_it) - len(curves)))
    if not drawings:
        return None
    text, blocks = _trend_blocks(evidence)
    return Section("learning", "Learning curves", text, (*drawings, *blocks))


def _mean_curve(entrant: CandidateResults, column: str) -> Curve | None:
    """Over the epochs that every run has."""
    rows = entrant.history[column]
    epochs = min(len(r) for r in rows)
    if not epochs:
        return None
    values = np.array([r[:epochs] for r in rows])
    band = values.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(epochs)
    return Curve(entrant.name, np.arange(1.0, epochs + 1), values.mean(axis=0), band)


def collect_learning_curves(evidence: StudySummary, column: str) -> list[LearningCurve]:
    """The first candidates that have the column in every run, over the epochs that every run has, where these are enough."""
    found = []
    for e in evidence.candidates:
        rows = e.history.get(column, [])
        epochs = min((len(r) for r in rows), default=0)
        if len(rows) == len(e.runs) and epochs >= MIN_EPOCHS:
            splits = tuple((line.test_rows_digest, line.split[0]) for line in e.runs)
            found.append(LearningCurve(e.name, np.array([r[:epochs] for r in rows]), splits))
    return found[:MAX_CURVES]


def _trend_blocks(evidence: StudySummary) -> tuple[tuple[str, ...], list[ContentBlock]]:
    each = [(what, collect_learning_curves(evidence, column)) for column, what in _TREND_COLUMNS]
    what, curves = next(((w, c) for w, c in each if len(c) > 1), next(((w, c) for w, c in each if c), ("", [])))
    if not curves:
        return (), []
    fitted = [(c, [fit_trend(c.mean_curve, form) for form in TREND_FORMS]) for c in curves]
    found = find_crossings(curves)
    blocks: list[ContentBlock] = [_trend_figure(fitted[:MAX_TRENDS_DRAWN], found, what), _trend_table(fitted, what)]
    blocks += [_crossing_table(found, what)] if found else []
    return _describe_trends(curves, found, what), blocks


def _describe_trends(curves: list[LearningCurve], found: list[Crossing], what: str) -> tuple[str, ...]:
    said = f"Trends are fitted to the {what}, the mean over runs."
    if "training" in what:
        said += " They say how a network learns, not how it does on rows it has not seen."
    if len(curves) < 2:
        return (said,)
    if not found:
        return (
            said,
            f"By neither form does one that is behind overtake another within {MAX_EPOCH_RATIO:g} times the epochs there are.",
        )
    sure = [c for c in found if not c.warnings]
    said_of = [_describe_crossing(c) for c in sorted(sure, key=lambda c: c.epoch)[:3]]
    if not said_of:
        said_of = ["No crossing that the trends foretell is within what the epochs there are support."]
    return (said, " ".join(said_of))


def _describe_crossing(c: Crossing) -> str:
    return (
        f"By its {c.form} trend, {c.overtaking} would overtake {c.overtaken} near epoch {c.epoch:,.0f} (95 % interval {c.low:,.0f} to "
        f"{c.high:,.0f}); they were trained for {c.n_epochs}."
    )


def trend_formula(found: FittedTrend) -> str:
    """In words a reader can type: `-0.112 + 0.139 ln x`."""

    def format_coefficient(value: float, digits: int = 3) -> str:
        return f"{value:.{digits}f}".replace("-", "\u2212")

    sign = "+" if (found.b >= 0) == (found.form == "logarithmic") else "\u2212"
    if found.form == "logarithmic":
        return f"{format_coefficient(found.a)} {sign} {abs(found.b):.3f} ln x"
    return f"{format_coefficient(found.a)} {sign} {abs(found.b):.3f} exp(\u2212x/{found.c:.1f})"


def _trend_table(fitted: list[tuple[LearningCurve, list[FittedTrend]]], what: str) -> Table:
    columns = (
        Column("Candidate"),
        Column("Form"),
        Column("Trend", "text", "x is the epoch, accuracy a share of 1"),
        Column("a", "number", "level at epoch 1 of the logarithmic form, limit of the saturating one", 3),
        Column("b", "number", "", 3),
        Column("c", "number", "epochs in which a saturating curve covers 63 % of what is left", 1),
        Column("R²", "number", "share of the variance of the mean curve that the trend explains", 3),
        Column("Epochs", "count"),
        Column("Runs", "count"),
    )
    rows = tuple(
        TableRow((c.name, t.form, trend_formula(t), t.a, t.b, t.c, t.r2, c.n_epochs, len(c.values)))
        for c, each in fitted
        for t in each
    )
    note = "Logarithmic: a + b ln x. Saturating: a \u2212 b exp(\u2212x/c). Fitted by least squares to the mean over runs."
    return Table("trends", f"Trends of the {what}", columns, rows, note)


def _crossing_table(found: list[Crossing], what: str) -> Table:
    columns = (
        Column("Behind so far"),
        Column("Would overtake"),
        Column("Form"),
        Column("At epoch", "count", "where the two trends meet"),
        Column("95\u00a0%\u00a0interval", "count", "by drawing runs with replacement"),
        Column("Trained", "count", "epochs", unit="epochs"),
        Column("What to make of it", "words"),
    )
    rows = tuple(
        TableRow(
            (c.overtaking, c.overtaken, c.form, c.epoch, IntervalBounds(c.low, c.high), c.n_epochs, _crossing_caveat(c)),
            "warning" if c.warnings else "plain",
        )
        for c in found
    )
    note = (
        f"A dash: not within {MAX_EPOCH_RATIO:g} times the epochs there are. The interval draws runs with replacement and knows "
        "nothing of a form that is wrong; where the two forms disagree, believe neither."
    )
    return Table("crossings", f"Where trends of the {what} meet", columns, rows, note, sortable=False, max_html_rows=16)


def _crossing_caveat(c: Crossing) -> str:
    words = "; ".join(c.warnings) if c.warnings else f"within {RELIABLE_EPOCH_RATIO:g} times the epochs there are"
    return words[:1].upper() + words[1:] + "."


def _trend_figure(fitted: list[tuple[LearningCurve, list[FittedTrend]]], found: list[Crossing], what: str) -> RenderedFigure:
    last = max(c.n_epochs for c, _ in fitted)
    near = [c.epoch for c in found if c.n_epochs < c.epoch <= 4 * last]
    end = max(RELIABLE_EPOCH_RATIO * last, *(1.15 * e for e in near)) if near else RELIABLE_EPOCH_RATIO * last

    def paint_figure(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.axvspan(last, end, color=RULE, alpha=0.35, lw=0)
        for i, (curve, each) in enumerate(fitted):
            x = np.arange(1.0, curve.n_epochs + 1)
            axes.plot(x, curve.mean_curve * 100, color=series_color(i), lw=1.6, label=shorten_name(curve.name))
            beyond = np.geomspace(1, end if curve.n_epochs == last else min(end, RELIABLE_EPOCH_RATIO * curve.n_epochs), 200)
            for form, dashes in zip(each, ((0, (5, 2)), (0, (1, 1.6))), strict=True):
                axes.plot(beyond, form.evaluate_at(beyond) * 100, color=series_color(i), lw=1.0, ls=dashes, alpha=0.9)
        values = np.concatenate([c.mean_curve for c, _ in fitted]) * 100
        room = max(1.0, 0.25 * float(np.ptp(values)))
        axes.set_ylim(max(0.0, values.min() - room), min(104.0, values.max() + room))
        axes.set_xlim(1, end)
        ticks = [t for e in range(5) for m in (1, 2, 5) if (t := m * 10**e) <= end]
        axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
        axes.set_xticks([], minor=True)
        axes.axvline(last, color=MUTED, lw=0.8)
        axes.grid(axis="y")
        axes.set_xlabel(
            "epoch (log scale); shaded: not trained, foretold" if not narrow else "epoch (log scale); shaded: foretold"
        )
        axes.set_ylabel("accuracy, %")
        if len(fitted) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=1 if narrow else 2, handlelength=2.6)

    caption = (
        f"Trends of the {what}. Line: mean over runs. Dashes: a + b ln x, straight on this scale. Dots: a \u2212 b "
        "exp(\u2212x/c). Shaded: beyond the last epoch, where nothing was measured."
    )
    said = "; ".join(f"{one_line(c.name)}: {trend_formula(t[0])}, R² {t[0].r2:.2f}" for c, t in fitted)
    small = ((PANEL_WIDTH, 3.5), lambda f: paint_figure(f, True))
    return draw_wide_figure("trends", caption, f"{said}.", (FULL_WIDTH, 3.6), lambda f: paint_figure(f, False), small)
