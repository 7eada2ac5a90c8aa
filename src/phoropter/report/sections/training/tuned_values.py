"""The values that `tune` chose in each split, by which metric, on how many inner folds."""

from __future__ import annotations

from collections import Counter
from typing import Any

from phoropter.report.render.metric_format import MetricFormat, metric_column
from phoropter.report.render.section import Section
from phoropter.report.render.table import Column, Table, TableRow
from phoropter.report.summary.model import CandidateResults
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS


def tuned_values_section(inputs: ReportInput) -> Section | None:
    """None where nothing was tuned."""
    tuned = [(c, found) for c in inputs.summary.candidates if (found := _read_tuning(c))]
    if not tuned:
        return None
    first = tuned[0][1][0]
    metric = METRICS[first["metric"]]
    title = MetricFormat.from_metric(metric).inline_title
    text = (
        f"Values were chosen inside the training part of every split, by the {title} over the rows of {first['folds']} inner "
        "folds; the candidate was then trained on the whole training part with them. Rows that are tested had no say. Figures of "
        "a tuned candidate are those of the way of training with its choice, not of one set of values."
    )
    scored = metric_column(metric)
    columns = (
        Column("Candidate"),
        Column("Values"),
        Column("Chosen", "count", "in so many splits"),
        Column(f"Inner {title}", scored.kind, "mean over the splits", scored.digits),
    )
    rows = tuple(row for c, found in tuned for row in _list_rows(c.name, found))
    return Section("tuning", "Tuned values", (text,), (Table("tuning", "Chosen values", columns, rows, max_html_rows=24),))


def _read_tuning(candidate: CandidateResults) -> list[dict[str, Any]]:
    return [run.record["tuning"] for run in candidate.runs if run.record.get("tuning")]


def _list_rows(name: str, found: list[dict[str, Any]]) -> list[TableRow]:
    chosen = Counter(_describe_values(each["chosen"]) for each in found)
    scores: dict[str, list[float]] = {}
    for score in (score for each in found for score in each["scores"]):
        scores.setdefault(_describe_values(score["settings"]), []).append(
            float("nan") if score["value"] is None else score["value"]
        )
    return [TableRow((name, words, chosen[words], sum(values) / len(values))) for words, values in scores.items()]


def _describe_values(settings: dict[str, Any]) -> str:
    return ", ".join(f"{path.partition('.')[2]} {value}" for path, value in settings.items())
