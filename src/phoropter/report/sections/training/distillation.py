"""Distillation: the teacher of each student, its accuracy on training rows, and the cost of its logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from phoropter.report.render.section import Section
from phoropter.report.render.table import Column, MeanStd, Table, TableRow
from phoropter.report.summary.model import StudySummary, finite_mean, finite_std
from phoropter.report.summary.report_input import ReportInput


def distillation_section(inputs: ReportInput) -> Section | None:
    """None where no candidate is distilled."""
    table = _teacher_table(inputs.summary)
    return Section("distillation", "Distillation", (), (table,)) if table else None


def _teacher_table(summary: StudySummary) -> Table | None:
    """A row for each student."""
    rows = []
    for c in summary.candidates:
        records = [dict(run.record["distillation"]) for run in c.runs if run.record.get("distillation")]
        if records:
            rows.append(TableRow((c.name, *_teacher_values(records))))
    columns = (
        Column("Student"),
        Column("Teacher"),
        *_check_columns(summary.is_multi_label),
        Column("Teacher logits", "duration", "time to compute them, median over runs; cached logits cost nothing again"),
        Column("Logits on disk", "bytes", "median over runs"),
    )
    return Table("teachers", "Teachers of the distilled candidates", columns, tuple(rows)) if rows else None


def _check_columns(multi_label: bool) -> tuple[Column, Column]:
    """What the teacher reaches on unaugmented training rows, and guessing."""
    if multi_label:
        return Column("Teacher ROC-AUC", "percent", "mean over the labels, on unaugmented training rows"), Column(
            "Chance", "percent"
        )
    most = "share of the most frequent class in these rows"
    return Column("Teacher accuracy", "percent", "on unaugmented training rows"), Column("Majority class", "percent", most)


def _teacher_values(records: list[dict[str, Any]]) -> tuple[str, MeanStd, float, float, float]:
    checks = [r.get("accuracy_check") or {} for r in records]
    accuracy, majority = (np.array([float(check.get(key, np.nan)) for check in checks]) for key in ("accuracy", "chance"))
    seconds, size = (float(np.median([float(r.get(key, np.nan)) for r in records])) for key in ("seconds", "bytes"))
    return (
        str(records[0].get("teacher", "")),
        MeanStd(finite_mean(accuracy), finite_std(accuracy)),
        finite_mean(majority),
        seconds,
        size,
    )
