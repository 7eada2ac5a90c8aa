"""Confusion matrices: pairs that belong beside each other, those of the first candidates, and the most frequent confusions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from phoropter.report.figures.predictions import confusion_matrix_figure
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.table import CellValue, Column, Table, TableRow
from phoropter.report.sections.confusion_pairs import draw_confusion_pairs
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.report.summary.report_input import ReportInput

MAX_CONFUSION_MATRICES = 4  # candidates whose confusion matrix is drawn
MAX_PAIRS_IN_FILE = 200  # confused pairs of a candidate that the files list


def confusion_section(inputs: ReportInput) -> Section:
    summary = inputs.summary
    named = [(c, f"confusion-{i + 1}") for i, c in enumerate(summary.candidates[:MAX_CONFUSION_MATRICES])]
    blocks: list[ContentBlock] = [confusion_matrix_figure(c.confusion, summary.classes, c.name, name) for c, name in named]
    if pairs := draw_confusion_pairs(inputs):
        blocks = [*pairs, Markup("<h3>{}</h3>").format("By rank"), *blocks]
    table = top_confusions_table(summary)
    blocks += [table] if table.rows else []
    counts = [confusion_matrix_table(c, summary.classes, name) for c, name in named]
    drawn, there_are = len(named), len(summary.candidates)
    rest = f"By rank, the first {drawn} of {there_are} candidates are drawn; tables/confusions-of-all.csv has those of each."
    paragraphs = (rest,) if there_are > drawn else ()
    return Section("confusion", "Confusion matrices", paragraphs, tuple(blocks), (*counts, all_confusions_table(summary)))


def find_top_confusions(candidate: CandidateResults, limit: int = 10) -> list[tuple[int, int, int, float]]:
    """(true class, predicted class, count, share of the true class), most frequent first."""
    size = len(candidate.confusion)
    errors = candidate.confusion * (1 - np.eye(size, dtype=np.int64))
    pairs = [divmod(int(i), size) for i in np.argsort(-errors, axis=None, kind="stable")[:limit]]
    return [(t, p, int(errors[t, p]), float(errors[t, p] / candidate.confusion[t].sum())) for t, p in pairs if errors[t, p]]


def top_confusions_table(summary: StudySummary, limit: int = 10) -> Table:
    """Pairs of true and predicted class of the first candidate, most frequent first."""
    first = summary.candidates[0]
    rows = tuple(TableRow(_pair_cells(summary, pair)) for pair in find_top_confusions(first, limit))
    return Table("confusions", f"Most frequent confusions of {first.name}", _PAIR_COLUMNS, rows)


def all_confusions_table(summary: StudySummary) -> Table:
    """For the files: the confused pairs of every candidate, most frequent first."""
    found = [(c.name, pair) for c in summary.candidates for pair in find_top_confusions(c, MAX_PAIRS_IN_FILE)]
    rows = [TableRow((name, *_pair_cells(summary, pair))) for name, pair in found]
    return Table("confusions-of-all", "Confusions of every candidate", (Column("Candidate"), *_PAIR_COLUMNS), tuple(rows))


_PAIR_COLUMNS = (
    Column("True class"),
    Column("Predicted class"),
    Column("Count", "count", "held-out rows, counted once for each run that tested them"),
    Column("Share of true class", "percent"),
)


def _pair_cells(summary: StudySummary, pair: tuple[int, int, int, float]) -> tuple[CellValue, ...]:
    return summary.classes[pair[0]], summary.classes[pair[1]], pair[2], pair[3]


def confusion_matrix_table(candidate: CandidateResults, classes: Sequence[str], name: str) -> Table:
    """For the files: the complete matrix of counts."""
    columns = (Column("True class"), *(Column(c, "count") for c in classes))
    rows = tuple(TableRow((c, *map(int, counts))) for c, counts in zip(classes, candidate.confusion, strict=True))
    return Table(name, f"Confusion matrix of {candidate.name}: true class by row, predicted by column, all runs", columns, rows)
