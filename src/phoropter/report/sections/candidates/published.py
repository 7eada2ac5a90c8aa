"""Published results: every figure that the source of a study gives, beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from phoropter.report.render.metric_format import metric_column
from phoropter.report.render.table import CellValue, Column, Table, TableRow
from phoropter.report.sections.candidate_values import mean_std_over_runs
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.metrics.registry import METRICS


def read_published(summary: StudySummary) -> dict[str, dict[str, float]]:
    """Candidate → metric → the published value, a percentage as a fraction; the study may give it as a fraction or × 100.

    Empty for a smoke version of a study, whose networks are not those that were published.
    """
    figures = {} if summary.study.get("scale") else (summary.study_config.get("about") or {}).get("published") or {}
    found: dict[str, dict[str, float]] = {}
    for candidate, by_metric in figures.items():
        values = {str(metric): float(value) for metric, value in by_metric.items() if value is not None}
        found[str(candidate)] = {m: v / 100 if m in METRICS and METRICS[m].percent and v > 1 else v for m, v in values.items()}
    return found


def published_table(summary: StudySummary) -> Table | None:
    """A row for each candidate with a published figure, a pair of columns for each metric; None where there is none.

    What this study did not run or compute, and what the source does not give, has a dash.
    """
    published = read_published(summary)
    named = {name for values in published.values() for name in values}
    metrics = [m for m in summary.metrics if m in named] + sorted(named - set(summary.metrics))
    rows: list[TableRow] = []
    used: set[str] = set()
    for candidate in summary.candidates:
        name = candidate.name if candidate.name in published else candidate.base_name
        if name in published:
            used.add(name)
            rows.append(TableRow((candidate.name, *_paired_cells(candidate, metrics, published[name]))))
    rows += [TableRow((name, *_paired_cells(None, metrics, published[name]))) for name in published if name not in used]
    columns = [Column("Candidate")]
    for metric in metrics:
        ours = metric_column(METRICS[metric]) if metric in METRICS else Column(metric, "number", "", 3)
        columns += [ours, replace(ours, name=f"{ours.name}, published", description="as printed in the source")]
    source = str((summary.study_config.get("about") or {}).get("source") or "").rstrip(".")
    note = f"Source: {source}. " if source else ""
    note += "Published on other data, other splits or with other training. A dash: not run, not computed here, or not published."
    return Table("published", "Published figures beside those of this study", tuple(columns), tuple(rows), note) if rows else None


def _paired_cells(candidate: CandidateResults | None, metrics: Sequence[str], published: Mapping[str, float]) -> list[CellValue]:
    cells: list[CellValue] = []
    for metric in metrics:
        ours = None if candidate is None or metric not in METRICS else mean_std_over_runs(candidate, metric)
        cells += [ours, published.get(metric)]
    return cells
