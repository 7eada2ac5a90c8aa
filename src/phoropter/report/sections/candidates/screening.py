"""Screening: many candidates in a cheap round, the best of them in an expensive one (successive halving)."""

from __future__ import annotations

from typing import Any

from phoropter.report.render.metric_format import metric_column
from phoropter.report.render.section import Section
from phoropter.report.render.table import (
    Column,
    ColumnKind,
    Table,
    TableRow,
)
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS


def screening_section(inputs: ReportInput) -> Section | None:
    """None where the study has no screening."""
    rounds = [dict(r) for r in inputs.summary.study.get("screening") or () if isinstance(r, dict)]
    if not rounds:
        return None
    text = (
        "Candidates were screened in rounds; only the best of a round entered the next. Scores of different rounds cannot be "
        "compared, because they come from different amounts of training or data.",
        *(_round_note(r) for r in rounds if r.get("note")),
    )
    return Section("screening", "Screening", text, (_round_table(rounds),))


def _lower_is_better(metric: str) -> bool:
    """metric: a metric of the library, or the inner log-loss by which probes are ranked."""
    registered = METRICS.get(metric)
    return metric.endswith("loss") if registered is None else not registered.higher_is_better


def _round_note(round_: dict[str, Any]) -> str:
    words = str(round_["note"]).strip().rstrip(".")
    return f"{round_.get('title') or 'Round ' + str(round_.get('rung'))}: {words}."


def _round_table(rounds: list[dict[str, Any]]) -> Table:
    names = {str(r.get("metric")) for r in rounds}
    metric = METRICS.get(names.pop()) if len(names) == 1 else None
    kind: ColumnKind = "number"
    column = metric_column(metric) if metric else Column("Score", kind, "by the metric of the round", 3)
    rows = []
    for r in rounds:
        sign = 1 if _lower_is_better(str(r.get("metric"))) else -1
        scores, kept = dict(r.get("scores") or {}), set(map(str, r.get("kept") or ()))
        order = {str(n): sign * float(v) for n, v in scores.items() if v is not None}
        best_first = sorted(map(str, r.get("tried") or scores), key=lambda n: (order.get(n, float("inf")), n))
        number, title = int(r.get("rung", 0)), str(r.get("title", ""))
        rows += [TableRow((number, title, name, scores.get(name), "yes" if name in kept else "no")) for name in best_first]
    columns = (
        Column("Round", "count"),
        Column("Description"),
        Column("Candidate"),
        Column(column.name, column.kind, column.description.partition(";")[0], column.digits),
        Column("Selected"),
    )
    return Table("screening", "Candidates of each round, and which were selected", columns, tuple(rows), sortable=False)
