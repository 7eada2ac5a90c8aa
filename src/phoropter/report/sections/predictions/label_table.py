"""Results of each label, where rows may have several: prevalence, ranking with intervals, answers at a half, calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phoropter.report.figures.predictions import dot_plot
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.section import Section
from phoropter.report.render.table import INTERVAL_TITLE, CellValue, Column, IntervalBounds, Table, TableRow, one_line
from phoropter.report.summary.model import CandidateResults
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.metrics.registry import METRICS, compute_metrics
from phoropter.results.stats.calibration_error import CalibrationEstimate, estimate_calibration_error
from phoropter.results.stats.estimand import choose_estimand
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.store import Store

MAX_CANDIDATES = 3  # whose labels are shown; each costs two rankings and 1,000 resamples a label
RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class LabelResult:
    """One label under one candidate, as a question of two answers. rows: held-out, of one round · prevalence: share that has it

    area, precision: ROC-AUC and average precision · f1, recall, specificity: of the answers at a probability of a half
    calibration: of the probability of the label
    """

    name: str
    rows: int
    prevalence: float
    area: ConfidenceInterval
    precision: ConfidenceInterval
    f1: float
    recall: float
    specificity: float
    calibration: CalibrationEstimate


def label_section(inputs: ReportInput) -> Section | None:
    """None where rows have one class each."""
    summary = inputs.summary
    if not summary.is_multi_label:
        return None
    shown = summary.candidates[:MAX_CANDIDATES]
    results = {c.name: measure_labels(inputs.store, c, summary.classes) for c in shown}
    first = results[shown[0].name]
    order = sorted(range(len(first)), key=lambda k: (np.nan_to_num(first[k].area.estimate, nan=2.0), first[k].name))
    columns = [(name, np.array([found[k].area.estimate for k in order])) for name, found in results.items()]
    caption = f"ROC-AUC by label, lowest first for {one_line(shown[0].name)}."
    names = [summary.classes[k] for k in order]
    figure = dot_plot(names, columns, "labels", caption, MetricFormat.from_metric(METRICS["roc_auc"]))
    tables = tuple(_label_table(name, [found[k] for k in order], number) for number, (name, found) in enumerate(results.items()))
    return Section("labels", "Results by label", (), (figure, *tables))


def measure_labels(store: Store, candidate: CandidateResults, labels: tuple[str, ...]) -> list[LabelResult]:
    """Each label by itself, by the rule that decides what a metric of two classes estimates here."""
    loaded = [(store.run(line.key).load_predictions(), line.split[:2]) for line in candidate.runs]
    rows = HeldOutRows.from_predictions([p for p, _ in loaded], [name for _, name in loaded])
    return [_measure_label(rows, k, name) for k, name in enumerate(labels)]


def _measure_label(rows: HeldOutRows, k: int, name: str) -> LabelResult:
    yes, p = rows.labels[:, k], rows.probabilities[:, k]
    alone = replace(rows, labels=yes, probabilities=np.stack([1 - p, p], axis=1))
    n_rounds = len(np.unique(rows.repeats))

    def estimate(metric: str) -> ConfidenceInterval:
        estimand = choose_estimand(metric, alone.split_supports, n_rounds)
        drawn = estimand.make_bootstrap(alone, resamples=RESAMPLES).compute_replicates(metric, alone.probabilities)
        return drawn.confidence_interval()

    answer = p > 0.5
    f1 = compute_metrics(["micro_f1"], yes[:, None], p[:, None])["micro_f1"]
    recall, specificity = (float(np.mean(answer[yes == k] == k)) if (yes == k).any() else float("nan") for k in (1, 0))
    ranked = estimate("roc_auc"), estimate("average_precision")
    calibration = estimate_calibration_error(alone, 1)
    return LabelResult(name, len(yes) // n_rounds, float(yes.mean()), *ranked, f1, recall, specificity, calibration)


def _label_table(name: str, results: list[LabelResult], number: int) -> Table:
    """The labels of one candidate."""
    columns = (
        Column("Label"),
        Column("Rows", "count", "held-out rows of a round of folds"),
        Column("Prevalence", "percent", "share of the rows that have the label"),
        Column("ROC-AUC", "number", "of this label against its absence", 3),
        Column(f"{INTERVAL_TITLE} of AUC", "number", "over the independent units, by bootstrap", 3),
        Column("Average precision", "number", "without information it is the prevalence", 3),
        Column(f"{INTERVAL_TITLE} of AP", "number", "over the independent units, by bootstrap", 3),
        Column("F1", "percent", "of the answers at a probability of a half"),
        Column("Sensitivity", "percent", "share of the rows with the label that are answered yes"),
        Column("Specificity", "percent", "share of the rows without it that are answered no"),
        Column("ECE, debiased", "number", "calibration error of the probability of this label", 3),
    )
    rows = tuple(TableRow(_label_cells(found)) for found in results)
    order = "lowest ROC-AUC first" if number == 0 else "in the same order"
    caption = f"Labels of {one_line(name)}, each as a question of its own, {order}"
    return Table("labels" if number == 0 else f"labels-{number + 1}", caption, columns, rows, max_html_rows=30)


def _label_cells(found: LabelResult) -> tuple[CellValue, ...]:
    def bounds(interval: ConfidenceInterval) -> CellValue:
        return IntervalBounds(interval.low, interval.high) if np.isfinite(interval.low) else None

    area, precision = found.area, found.precision
    values: tuple[CellValue, ...] = (area.estimate, bounds(area), precision.estimate, bounds(precision))
    answers = (found.f1, found.recall, found.specificity, found.calibration.debiased)
    return found.name, found.rows, found.prevalence, *values, *answers
