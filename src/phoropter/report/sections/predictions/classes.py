"""Per-class results: precision, recall and F1 of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phoropter.report.figures.predictions import dot_plot
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.section import Section
from phoropter.report.render.table import Column, ColumnKind, Table, TableRow, one_line
from phoropter.report.sections.candidate_values import MAX_OTHER_CANDIDATES
from phoropter.report.summary.model import CandidateResults, Ints, StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics import sufficient_sums


def class_section(inputs: ReportInput) -> Section:
    summary = inputs.summary
    candidates = summary.candidates[: MAX_OTHER_CANDIDATES + 1]
    metrics = [compute_class_metrics(c.confusion) for c in candidates]
    order = np.argsort(metrics[0].recall, kind="stable")
    columns = [(c.name, m.recall[order]) for c, m in zip(candidates, metrics, strict=True)]
    caption = f"Recall by class, lowest first for {one_line(candidates[0].name)}."
    figure = dot_plot([summary.classes[k] for k in order], columns, "classes", caption, MetricFormat("Recall", percent=True))
    return Section(
        "classes", "Per-class results", (), (figure, per_class_table(summary, candidates)), (all_classes_table(summary),)
    )


@dataclass(frozen=True, eq=False)
class ClassMetrics:
    """(C,) each, of one candidate over all runs. support: held-out rows of the class, once for each run that tested them."""

    precision: sufficient_sums.Floats
    recall: sufficient_sums.Floats
    f1: sufficient_sums.Floats
    support: Ints


def compute_class_metrics(confusion: Ints) -> ClassMetrics:
    """confusion: (C, C) counts, row the true class."""
    correct, actual, predicted = (
        a.astype(np.float64) for a in (np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0))
    )
    functions = (sufficient_sums.precision_per_class, sufficient_sums.recall_per_class, sufficient_sums.f1_per_class)
    precision, recall, f1 = (function(correct, actual, predicted) for function in functions)
    return ClassMetrics(precision, recall, f1, confusion.sum(axis=1))


def per_class_table(summary: StudySummary, candidates: Sequence[CandidateResults]) -> Table:
    """Classes by the recall of the first candidate, lowest first: its precision, recall and F1, and the recall of the others."""
    first, *others = candidates
    metrics = compute_class_metrics(first.confusion)
    recalls = [compute_class_metrics(c.confusion).recall for c in others]
    columns = (
        Column("Class"),
        Column("Rows", "count", "held-out rows of this class, counted once for each run that tested them"),
        Column("Precision", "percent", f"of {first.name}: correct share of the rows predicted as this class"),
        Column("Recall", "percent", f"of {first.name}: correct share of the rows of this class"),
        Column("F1", "percent", f"of {first.name}"),
        *(Column(f"Recall, {c.name}", "percent") for c in others),
    )
    rows = tuple(
        TableRow((*_class_values(metrics, k, summary.classes[k]), *(float(recall[k]) for recall in recalls)))
        for k in np.argsort(metrics.recall, kind="stable")
    )
    means = (("precision", metrics.precision), ("recall", metrics.recall), ("F1", metrics.f1))
    overall = ", ".join(f"{name} {values.mean() * 100:.1f} %" for name, values in means)
    note = f"Mean of the classes: {overall}; all runs pooled, {int(metrics.support.sum()):,} rows."
    return Table("per-class", f"Classes by the recall of {first.name}, lowest first", columns, rows, note, max_html_rows=20)


def _class_values(m: ClassMetrics, k: int, name: str) -> tuple[str, int, float, float, float]:
    return name, int(m.support[k]), float(m.precision[k]), float(m.recall[k]), float(m.f1[k])


def all_classes_table(summary: StudySummary) -> Table:
    """For the files: a row for each candidate and class."""
    kinds: tuple[tuple[str, ColumnKind], ...] = (
        ("Rows", "count"),
        ("Precision", "percent"),
        ("Recall", "percent"),
        ("F1", "percent"),
    )
    rows = []
    for candidate in summary.candidates:
        metrics = compute_class_metrics(candidate.confusion)
        rows += [TableRow((candidate.name, *_class_values(metrics, k, name))) for k, name in enumerate(summary.classes)]
    columns = (Column("Candidate"), Column("Class"), *(Column(n, k) for n, k in kinds))
    return Table("per-class-of-all", "Precision, recall and F1 of every candidate and class", columns, tuple(rows))
