"""Subgroups: the ranking metric of the first candidate in each, with its interval, and whether they differ beyond chance."""

from __future__ import annotations

import numpy as np

from phoropter.report.render.metric_format import MetricFormat, metric_column
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.table import INTERVAL_TITLE, CellValue, Column, IntervalBounds, Table, TableRow, one_line
from phoropter.report.summary.clinical.subgroups import collect_subgroups
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.clinical.subgroups import PERMUTATIONS, SubgroupResults

MAX_CANDIDATES = 8  # in the file of all candidates
MAX_CLASSES = 6  # with a column of their own


def subgroup_section(inputs: ReportInput) -> Section | None:
    """None where the study states no subgroups."""
    summary = inputs.summary
    found = collect_subgroups(inputs.store, summary, summary.candidates[:MAX_CANDIDATES])
    if not found:
        return None
    name, first = next(iter(found.items()))
    blocks: list[ContentBlock] = [
        subgroup_table(summary, name, column, results, number) for number, (column, results) in enumerate(first.items(), 1)
    ]
    text = (
        f"{MetricFormat.from_metric(summary.ranking_metric).title} of {name} in each subgroup. One of many subgroups differs by "
        "chance; intervals and tests are exploratory, and not corrected for their number."
    )
    return Section("subgroups", "Subgroups", (text,), tuple(blocks), (all_subgroups_table(summary, found),))


def subgroup_table(summary: StudySummary, name: str, column: str, results: SubgroupResults, number: int) -> Table:
    """A row for each subgroup of one column. number: of the column, for the name of the files"""
    metric = metric_column(summary.ranking_metric)
    classes = summary.classes[:MAX_CLASSES] if len(summary.classes) <= MAX_CLASSES else ()
    columns = (
        Column(one_line(column)),
        metric,
        Column(INTERVAL_TITLE, metric.kind, "", metric.digits),
        *([Column(summary.unit_word.plural.capitalize(), "count")] if summary.has_groups else []),
        Column("Rows", "count"),
        *(Column(f"Rows of {one_line(name)}", "count") for name in classes),
    )
    rows = []
    for subgroup, found in results.results.items():
        cells: list[CellValue] = [subgroup, found.interval.estimate, IntervalBounds(found.interval.low, found.interval.high)]
        cells += [found.n_units] if summary.has_groups else []
        rows.append(TableRow((*cells, found.n_rows, *found.supports[: len(classes)])))
    note = (
        f"Interaction: p {results.p:.2g} by {PERMUTATIONS} exchanges of {summary.unit_word.plural} between subgroups, among "
        "those with rows of the same classes."
        if np.isfinite(results.p)
        else f"No interaction test: a {summary.unit_word.singular} has rows in several subgroups, or fewer than two subgroups "
        "define the metric."
    )
    return Table(f"subgroups-{number}", f"{name} by {one_line(column)}", columns, tuple(rows), note)


def all_subgroups_table(summary: StudySummary, found: dict[str, dict[str, SubgroupResults]]) -> Table:
    """For the files: a row for each candidate, column and subgroup."""
    metric = metric_column(summary.ranking_metric)
    columns = (
        *(Column(name) for name in ("Candidate", "Column", "Subgroup")),
        metric,
        Column(INTERVAL_TITLE, metric.kind, "", metric.digits),
        Column("Rows", "count"),
        Column("p of interaction", "p"),
    )
    rows = [
        TableRow(
            (
                *(name, column, subgroup, r.interval.estimate),
                IntervalBounds(r.interval.low, r.interval.high),
                *(r.n_rows, results.p),
            )
        )
        for name, of_candidate in found.items()
        for column, results in of_candidate.items()
        for subgroup, r in results.results.items()
    ]
    return Table("subgroups-of-all", "Every candidate in each subgroup", columns, tuple(rows))
