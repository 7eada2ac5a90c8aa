"""Branch ablation: the accuracy of each branch of a fusion by itself, and of the fusion with the branch removed."""

from __future__ import annotations

import numpy as np

from phoropter.report.render.section import Section
from phoropter.report.render.table import Column, MeanStd, RowRole, Table, TableRow
from phoropter.report.summary.model import CandidateResults, StudySummary, finite_mean, finite_std
from phoropter.report.summary.report_input import ReportInput

MIN_BRANCH_GAIN = 0.002  # a branch that adds less accuracy than this, on average over runs, is named in the text


def fusion_section(inputs: ReportInput) -> Section | None:
    """None where no candidate is a fusion."""
    table = _branch_table(inputs.summary)
    if table is None:
        return None
    idle = [f"{row.values[1]} in {row.values[0]}" for row in table.rows if row.role == "warning"]
    text = (
        (
            f"Removing any of these branches lowers the accuracy of its fusion by less than {MIN_BRANCH_GAIN * 100:g} points, "
            f"or raises it: {', '.join(idle[:6])}.",
        )
        if idle
        else ()
    )
    return Section("branches", "Branch ablation", text, (table,))


def _branch_table(summary: StudySummary) -> Table | None:
    """A row for each branch of each fusion, over the runs that recorded an ablation."""
    weighs = any(run.record.get("selection") for c in summary.candidates for run in c.runs)
    rows = [row for c in summary.candidates for row in _fusion_rows(c, weighs)]
    if not rows:
        return None
    columns = (
        Column("Fusion"),
        Column("Branch"),
        *([Column("Weight", "percent", "its share of the mean probability, chosen on inner folds")] if weighs else []),
        Column("Branch only", "percent", "accuracy of the branch's own classifier on the held-out rows"),
        Column(
            "Branch removed",
            "percent",
            "accuracy with the branch's features replaced by their mean over training rows; of an average, of its other members",
        ),
        Column("All branches", "percent", "accuracy of the fusion"),
        Column("Contribution", "points", "all branches minus branch removed"),
    )
    note = "Mean ± standard deviation over runs. A dash: the branches of this fusion have no classifiers of their own."
    if weighs:
        note += (
            " Under weight it means that all count alike. Where one branch has all the weight nothing is left without it: branch "
            "removed and contribution are means over the other runs."
        )
    return Table("branches", "Accuracy of each branch, and of the fusion without it", columns, tuple(rows), note)


def _fusion_rows(candidate: CandidateResults, weighs: bool) -> list[TableRow]:
    """weighs: whether the table has a column of weights"""
    records = [list(run.record["branches"]) for run in candidate.runs if run.record.get("branches")]
    if not records or len({len(r) for r in records}) > 1:
        return []
    rows = []
    for i in range(len(records[0])):
        own, removed, complete, weight = (
            np.array([np.nan if r[i].get(key) is None else float(r[i][key]) for r in records])
            for key in ("accuracy", "without", "fused", "weight")
        )
        gain = complete - removed
        alone = bool(np.isnan(removed).any())  # in some run nothing is left without it, so that it is not idle
        role: RowRole = "warning" if finite_mean(gain) < MIN_BRANCH_GAIN and not alone else "plain"
        shown = (*([weight] if weighs else []), own, removed, complete, gain)
        numbers = (MeanStd(finite_mean(v), finite_std(v)) for v in shown)
        rows.append(TableRow((candidate.name, str(records[0][i]["name"]), *numbers), role))
    return rows
