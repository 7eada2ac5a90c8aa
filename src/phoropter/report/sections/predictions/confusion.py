"""Confusion matrices of the first candidates, and the most frequent confusions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phoropter.report.figures.predictions import confusion_matrix_figure
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.table import Column, Table, TableRow
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.report.summary.report_input import ReportInput

MAX_CONFUSION_MATRICES = 4  # candidates whose confusion matrix is drawn


def confusion_section(inputs: ReportInput) -> Section:
    summary = inputs.summary
    named = [(c, f"confusion-{i + 1}") for i, c in enumerate(summary.candidates[:MAX_CONFUSION_MATRICES])]
    blocks: list[ContentBlock] = [confusion_matrix_figure(c.confusion, summary.classes, c.name, name) for c, name in named]
    table = top_confusions_table(summary)
    blocks += [table] if table.rows else []
    counts = tuple(confusion_matrix_table(c, summary.classes, name) for c, name in named)
    return Section("confusion", "Confusion matrices", (), tuple(blocks), counts)


def top_confusions_table(summary: StudySummary, limit: int = 10) -> Table:
    """Pairs of true and predicted class of the first candidate, most frequent first."""
    first = summary.candidates[0]
    errors = first.confusion * (1 - np.eye(len(summary.classes), dtype=np.int64))
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(i), len(summary.classes)) for i in order]
    rows = tuple(
        TableRow((summary.classes[t], summary.classes[p], int(errors[t, p]), float(errors[t, p] / first.confusion[t].sum())))
        for t, p in pairs
        if errors[t, p]
    )
    columns = (
        Column("True class"),
        Column("Predicted class"),
        Column("Count", "count"),
        Column("Share of true class", "percent"),
    )
    return Table("confusions", f"Most frequent confusions of {first.name}", columns, rows)


def confusion_matrix_table(candidate: CandidateResults, classes: Sequence[str], name: str) -> Table:
    """For the files: the complete matrix of counts."""
    columns = (Column("True class"), *(Column(c, "count") for c in classes))
    rows = tuple(TableRow((c, *map(int, counts))) for c, counts in zip(classes, candidate.confusion, strict=True))
    return Table(name, f"Confusion matrix of {candidate.name}: true class by row, predicted by column, all runs", columns, rows)
