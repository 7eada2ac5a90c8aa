"""Inside the candidates that are more than one network: what each branch of a fusion is worth, and how teachers were examined."""

from __future__ import annotations

import numpy as np

from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.table import Column, MeanStd, RowRole, Table, TableRow
from phoropter.report.summary.findings import ReportInput
from phoropter.report.summary.model import CandidateResults, StudySummary, finite_mean, finite_std

MIN_BRANCH_GAIN = 0.002  # accuracy that a branch must add, on average over runs, not to be called out


def fusion_section(findings: ReportInput) -> Section | None:
    """None where no candidate is a fusion or a student."""
    blocks: list[ContentBlock] = []
    text: list[str] = []
    branches = _branch_table(findings.summary)
    if branches:
        blocks.append(branches)
        idle = [f"{row.values[1]} in {row.values[0]}" for row in branches.rows if row.role == "warning"]
        if idle:
            text.append(
                f"Taken out, these branches change the fusion's accuracy by less than {MIN_BRANCH_GAIN * 100:g} points, or improve it: "
                f"{', '.join(idle[:6])}."
            )
    teachers = _teacher_table(findings.summary)
    blocks += [teachers] if teachers else []
    title = "What each branch is worth" if branches else "Teachers"
    return Section("branches", title, tuple(text), tuple(blocks)) if blocks else None


def _branch_table(evidence: StudySummary) -> Table | None:
    """A row for each branch of each fusion; numbers over the runs that have them."""
    rows = [row for e in evidence.candidates for row in _fusion_rows(e)]
    if not rows:
        return None
    columns = (
        Column("Fusion"),
        Column("Branch"),
        Column("Alone", "percent", "accuracy of the branch's own answer on the held-out rows"),
        Column("Fusion without it", "percent", "accuracy with the branch replaced by its mean over training rows"),
        Column("Whole fusion", "percent", "accuracy"),
        Column("Worth", "points", "whole minus without"),
    )
    note = "Mean ± standard deviation over runs. A dash: branches of this fusion have no answer of their own."
    return Table("branches", "Accuracy of each branch alone, and of the fusion without it", columns, tuple(rows), note)


def _fusion_rows(entrant: CandidateResults) -> list[TableRow]:
    each = [list(line.record["branches"]) for line in entrant.runs if line.record.get("branches")]
    if not each or len({len(b) for b in each}) > 1:
        return []
    rows = []
    for i in range(len(each[0])):
        alone, without, whole = (
            np.array([np.nan if b[i].get(k) is None else float(b[i][k]) for b in each]) for k in ("accuracy", "without", "whole")
        )
        worth = whole - without
        role: RowRole = "warning" if finite_mean(worth) < MIN_BRANCH_GAIN else "plain"
        numbers = (MeanStd(finite_mean(v), finite_std(v)) for v in (alone, without, whole, worth))
        rows.append(TableRow((entrant.name, str(each[0][i]["name"]), *numbers), role))
    return rows


def _teacher_table(evidence: StudySummary) -> Table | None:
    """A row for each student: who taught it, how the teacher did on training rows, what asking it took."""
    rows = []
    for e in evidence.candidates:
        notes = [dict(line.record["teaching"]) for line in e.runs if line.record.get("teaching")]
        if not notes:
            continue
        exam = [n.get("exam") or {} for n in notes]
        right = np.array([float(x.get("accuracy", np.nan)) for x in exam])
        chance = np.array([float(x.get("chance", np.nan)) for x in exam])
        seconds = float(np.median([float(n.get("seconds", np.nan)) for n in notes]))
        size = float(np.median([float(n.get("bytes", np.nan)) for n in notes]))
        rows.append(
            TableRow(
                (
                    e.name,
                    str(notes[0].get("teacher", "")),
                    MeanStd(finite_mean(right), finite_std(right)),
                    finite_mean(chance),
                    seconds,
                    size,
                )
            )
        )
    columns = (
        Column("Student"),
        Column("Teacher"),
        Column("Teacher's exam", "percent", "its accuracy on clean pictures of training rows"),
        Column("By guessing", "percent", "the commonest class of these rows"),
        Column("Asking it", "duration", "median over runs; a teacher asked before costs nothing again"),
        Column("Answers", "bytes", "kept on disk, median over runs"),
    )
    return Table("teachers", "Who taught whom", columns, tuple(rows)) if rows else None
