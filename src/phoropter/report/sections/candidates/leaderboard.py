"""Leaderboard: every candidate by the metrics of the study, best first, above the majority-class baseline."""

from __future__ import annotations

from phoropter.report.figures.comparison import LeaderboardEntry, leaderboard_figure
from phoropter.report.render.metric_format import MetricFormat, metric_column
from phoropter.report.render.section import Section
from phoropter.report.render.table import CellValue, Column, Table, TableRow
from phoropter.report.sections.candidate_values import (
    PROBABILITY_METRICS,
    describe_interval_methods,
    mean_std_over_runs,
    primary_metric_interval,
)
from phoropter.report.sections.candidates.cost import COST_COLUMNS
from phoropter.report.summary.majority_class import BASELINE_NAME, majority_class_scores
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS, metric_names

_COSTS_SHOWN = ("parameters", "train_seconds")


def leaderboard_section(inputs: ReportInput) -> Section:
    summary = inputs.summary
    baseline = majority_class_scores(summary).get(summary.metrics[0])
    entries = [_leaderboard_entry(c, summary.metrics[0]) for c in summary.candidates]
    figure = leaderboard_figure(entries, MetricFormat.from_metric(summary.ranking_metric), baseline)
    return Section("leaderboard", "Leaderboard", (), (figure, leaderboard_table(summary)))


def _leaderboard_entry(candidate: CandidateResults, metric: str) -> LeaderboardEntry:
    low, high = primary_metric_interval(candidate)
    return LeaderboardEntry(candidate.name, candidate.metric_mean(metric), low, high, candidate.metric_values(metric))


def leaderboard_table(summary: StudySummary) -> Table:
    """A row for each candidate, best first, and the majority-class baseline last."""
    published = _published_scores(summary)
    requested = tuple(metric_names(summary.study_config.get("metrics") or summary.metrics[:1]))
    other_metrics = [m for m in summary.metrics[1:] if m not in PROBABILITY_METRICS or m in requested]
    columns = _leaderboard_columns(summary, other_metrics, bool(published))
    rows = []
    for place, candidate in enumerate(summary.candidates):
        values: list[CellValue] = [_name_with_progress(candidate), mean_std_over_runs(candidate, summary.metrics[0])]
        values += [primary_metric_interval(candidate), *(mean_std_over_runs(candidate, m) for m in other_metrics)]
        values += [published.get(candidate.base_name, published.get(candidate.name))] if published else []
        values += [candidate.median_cost(name) for name in _COSTS_SHOWN]
        rows.append(TableRow(tuple(values), "leader" if place == 0 else "plain"))
    baseline = majority_class_scores(summary)
    last: list[CellValue] = [BASELINE_NAME, baseline.get(summary.metrics[0]), None, *(baseline.get(m) for m in other_metrics)]
    rows.append(TableRow((*last, *[None] * (len(columns) - len(last))), "baseline"))
    note = (
        f"Mean ± standard deviation over runs. Interval of the mean: {describe_interval_methods(summary)}. "
        "Training time is the median over runs."
    )
    caption = f"Candidates by {MetricFormat.from_metric(summary.ranking_metric).inline_title} on held-out data"
    return Table("leaderboard", caption, columns, tuple(rows), note)


def _leaderboard_columns(summary: StudySummary, other_metrics: list[str], published: bool) -> tuple[Column, ...]:
    first, unit = metric_column(summary.ranking_metric), "groups" if summary.has_groups else "rows"
    interval = Column(
        "95\u00a0%\u00a0interval", first.kind, f"of the mean, all runs pooled; the {unit} are independent", first.digits
    )
    source = Column("Published", first.kind, "as reported by the source, on other data or with other training", first.digits)
    return (
        Column("Candidate"),
        first,
        interval,
        *(metric_column(METRICS[m]) for m in other_metrics),
        *([source] if published else []),
        *(dict(COST_COLUMNS)[name] for name in _COSTS_SHOWN),
    )


def _name_with_progress(candidate: CandidateResults) -> str:
    return candidate.name if candidate.is_complete else f"{candidate.name} ({len(candidate.runs)} of {candidate.n_planned} runs)"


def _published_scores(summary: StudySummary) -> dict[str, float]:
    """Candidate → the published value of the ranking metric, as a fraction; the study may give it as a fraction or × 100.

    Empty for a smoke version of a study, whose networks are not those that were published.
    """
    figures = {} if summary.study.get("scale") else (summary.study_config.get("about") or {}).get("published") or {}
    scores: dict[str, float] = {}
    for candidate, by_metric in figures.items():
        value = by_metric.get(summary.metrics[0])
        if value is not None:
            scores[str(candidate)] = float(value) / 100 if summary.ranking_metric.percent and value > 1 else float(value)
    return scores
