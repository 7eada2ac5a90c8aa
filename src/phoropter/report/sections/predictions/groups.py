"""Accuracy by group and by site, and the hardest groups of every candidate."""

from __future__ import annotations

import numpy as np

from phoropter.report.figures.predictions import dot_plot
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.table import Column, Table, TableRow, one_line
from phoropter.report.sections.candidate_values import MAX_OTHER_CANDIDATES
from phoropter.report.summary.model import CandidateResults, GroupAccuracy, StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.by_group import GroupScore, WorstGroups, find_worst_groups


def group_section(inputs: ReportInput) -> Section | None:
    """None where rows have neither groups nor sites."""
    summary = inputs.summary
    kinds = [k for k in ("site", "group") if len(select_group_accuracy(summary.candidates[0], k).row_counts) > 1]
    if not kinds:
        return None
    blocks: list[ContentBlock] = []
    text: list[str] = []
    for kind in kinds:
        names = names_hardest_first(summary, kind)
        candidates = summary.candidates[: MAX_OTHER_CANDIDATES + 1]
        columns = [(c.name, np.array([select_group_accuracy(c, kind).accuracy_of(n) for n in names])) for c in candidates]
        caption = f"Accuracy by {kind}, lowest first for {one_line(candidates[0].name)}."
        blocks += [dot_plot(names, columns, f"{kind}s", caption, "accuracy, %"), per_group_table(summary, kind)]
        if kind == "group":
            text.append(_describe_hardest_group(summary))
            blocks.append(worst_groups_table(summary))
    title = f"Accuracy by {' and '.join(kinds)}"
    files = tuple(per_group_table(summary, k, all_candidates=True) for k in kinds)
    return Section("groups", title, tuple(text), tuple(blocks), files)


def _describe_hardest_group(summary: StudySummary) -> str:
    worst = find_hardest_groups(summary.candidates[0])
    hardest = worst.groups[0]
    return (
        f"The hardest of {len(worst.groups)} groups for {summary.candidates[0].name} is {hardest.group}, with "
        f"{hardest.value * 100:.1f} % of {hardest.n_rows:,} predictions correct; over the hardest fifth ({worst.n_worst}) the "
        f"mean is {worst.worst_mean * 100:.1f} %. The minimum over many groups is low partly by chance, more so for small groups."
    )


def select_group_accuracy(candidate: CandidateResults, kind: str) -> GroupAccuracy:
    """kind: `group` or `site`."""
    return candidate.group_accuracy if kind == "group" else candidate.site_accuracy


def names_hardest_first(summary: StudySummary, kind: str) -> list[str]:
    """Groups or sites, those with the lowest accuracy of the first candidate first."""
    accuracy = select_group_accuracy(summary.candidates[0], kind)
    return sorted(accuracy.row_counts, key=lambda name: (accuracy.accuracy_of(name), name))


def per_group_table(summary: StudySummary, kind: str = "group", all_candidates: bool = False) -> Table:
    """A row for each group or site: the accuracy of the first candidates, or of all of them for the files."""
    candidates = summary.candidates if all_candidates else summary.candidates[: MAX_OTHER_CANDIDATES + 1]
    first = select_group_accuracy(candidates[0], kind)
    columns = (
        Column(kind.capitalize()),
        Column("Rows", "count", "held-out rows, counted once for each run that tested them"),
        *(Column(c.name, "percent", "accuracy") for c in candidates),
    )
    rows = tuple(
        TableRow((name, first.row_counts[name], *(select_group_accuracy(c, kind).accuracy_of(name) for c in candidates)))
        for name in names_hardest_first(summary, kind)
    )
    caption = f"Accuracy by {kind}, lowest first for {candidates[0].name}"
    return Table(f"per-{kind}" + ("-of-all" if all_candidates else ""), caption, columns, rows, max_html_rows=12)


def find_hardest_groups(candidate: CandidateResults) -> WorstGroups:
    """Its groups by accuracy, lowest first, and the mean accuracy over the hardest fifth of them."""
    accuracy = candidate.group_accuracy
    scores = [GroupScore(name, accuracy.accuracy_of(name), rows) for name, rows in sorted(accuracy.row_counts.items())]
    return find_worst_groups("accuracy", scores)


def worst_groups_table(summary: StudySummary) -> Table:
    """A row for each candidate: the candidate that is best on average need not be best on the hardest groups."""
    columns = (
        Column("Candidate"),
        Column("All groups", "percent", "mean of the groups' accuracies"),
        Column("Hardest fifth", "percent", "mean accuracy over the hardest fifth of the groups"),
        Column("Hardest group", "percent", "accuracy"),
        Column("Name"),
        Column("Rows", "count", "of the hardest group, counted once for each run that tested them"),
    )
    rows = []
    for c in summary.candidates:
        worst = find_hardest_groups(c)
        mean, hardest = float(np.mean([g.value for g in worst.groups])), worst.groups[0]
        rows.append(TableRow((c.name, mean, worst.worst_mean, hardest.value, hardest.group, hardest.n_rows)))
    caption = f"Accuracy on the hardest of {len(summary.candidates[0].group_accuracy.row_counts)} groups, by candidate"
    return Table("worst-groups", caption, columns, tuple(rows))
