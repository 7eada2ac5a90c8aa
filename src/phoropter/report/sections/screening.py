"""The rungs of a ladder: of many candidates a cheap round keeps a few for a dearer one. Shown where study.json has them."""

from __future__ import annotations

from typing import Any

from phoropter.report.render.section import Section
from phoropter.report.render.table import Column, ColumnKind, Table, TableRow
from phoropter.report.summary.findings import ReportInput
from phoropter.report.tables import metric_column
from phoropter.results.metrics.registry import METRICS


def screening_section(findings: ReportInput) -> Section | None:
    """A row for each candidate and rung, the best of a rung first."""
    rungs = [dict(r) for r in findings.summary.study.get("ladder") or () if isinstance(r, dict)]
    if not rungs:
        return None
    text = (
        "Candidates were tried in rounds, and only those that did best in one went on to the next. Scores of different rungs "
        "come from different amounts of training or data and are not to be compared.",
        *(_rung_note(r) for r in rungs if r.get("note")),
    )
    return Section("ladder", "The rungs", text, (_rung_table(rungs),))


def _lower_is_better(metric: str) -> bool:
    """Of a metric of ours, or of the inner loss by which a probe is judged."""
    known = METRICS.get(metric)
    return metric.endswith("loss") if known is None else not known.higher_is_better


def _rung_note(rung: dict[str, Any]) -> str:
    words = str(rung["note"]).strip().rstrip(".")
    return f"{rung.get('title') or 'Rung ' + str(rung.get('rung'))}: {words}."


def _rung_table(rungs: list[dict[str, Any]]) -> Table:
    names = {str(r.get("metric")) for r in rungs}
    known = METRICS.get(names.pop()) if len(names) == 1 else None
    kind: ColumnKind = "number"
    column = metric_column(known) if known else Column("Score", kind, "by the metric of the rung", 3)
    rows = []
    for r in rungs:
        sign = 1 if _lower_is_better(str(r.get("metric"))) else -1
        scores, kept = dict(r.get("scores") or {}), set(map(str, r.get("kept") or ()))
        worth = {str(n): sign * float(v) for n, v in scores.items() if v is not None}
        best_first = sorted(map(str, r.get("tried") or scores), key=lambda n: (worth.get(n, float("inf")), n))
        rung, title = int(r.get("rung", 0)), str(r.get("title", ""))
        rows += [TableRow((rung, title, name, scores.get(name), "yes" if name in kept else "no")) for name in best_first]
    columns = (
        Column("Rung", "count"),
        Column("What"),
        Column("Candidate"),
        Column(column.name, column.kind, column.description.partition(";")[0], column.digits),
        Column("Went on"),
    )
    return Table("ladder", "What was tried on each rung, and what went on", columns, tuple(rows), sortable=False)
