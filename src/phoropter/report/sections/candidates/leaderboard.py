"""Leaderboard: every candidate by the metrics of the study, best first, above the majority-class baseline."""

from __future__ import annotations

import numpy as np

from phoropter.report.figures.comparison import LeaderboardEntry, leaderboard_figure
from phoropter.report.figures.split_boxes import split_box_figure
from phoropter.report.render.metric_format import MetricFormat, metric_column
from phoropter.report.render.section import ContentBlock, FoldedBlocks, Section
from phoropter.report.render.table import INTERVAL_TITLE, CellValue, Column, RowRole, Table, TableRow
from phoropter.report.sections.candidate_values import (
    PROBABILITY_METRICS,
    describe_estimands,
    describe_interval_methods,
    mean_std_over_runs,
    primary_metric_interval,
    within_split_column,
)
from phoropter.report.sections.candidates.cost import COST_COLUMNS
from phoropter.report.sections.candidates.published import agreement_table, published_table
from phoropter.report.sections.clinical.levels import describe_missing_levels, level_leaderboards
from phoropter.report.sections.published_figures import published_name, read_published
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS, metric_names

_COSTS_SHOWN = ("parameters", "train_seconds")


def leaderboard_section(inputs: ReportInput) -> Section:
    summary = inputs.summary
    value = summary.baseline.metric_mean(summary.metrics[0])
    baseline = value if np.isfinite(value) else None
    entries = [_leaderboard_entry(c, summary.metrics[0]) for c in summary.candidates]
    scale = MetricFormat.from_metric(summary.ranking_metric)
    blocks: list[ContentBlock] = [leaderboard_table(summary), leaderboard_figure(entries, scale, baseline)]
    boxes = split_box_figure(entries, scale)
    blocks += [] if boxes is None else [FoldedBlocks(f"{scale.title} over splits, as boxes", (boxes,))]
    blocks += level_leaderboards(inputs)
    blocks += [table for table in (published_table(summary), agreement_table(summary)) if table is not None]
    notes = (*_explain_intervals(inputs), *describe_missing_levels(inputs))
    return Section("leaderboard", "Leaderboard", (), tuple(blocks), (), notes)


def _explain_intervals(inputs: ReportInput) -> tuple[str, ...]:
    """Which question the intervals answer, so that they and the verdicts on pairs do not contradict each other in silence."""
    summary, best = inputs.summary, inputs.answers.best
    others = summary.unit_word.plural
    text = (
        f"An interval says what the trained models of one candidate, taken by itself, would reach on other {others} like these; "
        "it does not cover how training again would come out."
    )
    if inputs.comparisons.pairs:
        text += (
            f" Two intervals may overlap and a difference still be shown: a pair is tested on the same {others}, under Pairwise "
            "comparisons, where training again is asked about too."
        )
    if best is None:
        return (text,)
    scale = MetricFormat.from_metric(summary.ranking_metric)
    plain, corrected = scale.format_value(best.plain), scale.format_value(best.corrected)
    chosen = (
        f"The first of {best.n_candidates} candidates was chosen by its value, {plain}, which is therefore too good on average"
    )
    return text, f"{chosen}; corrected for the choice it is {corrected} (bootstrap bias-corrected cross-validation)."


def _leaderboard_entry(candidate: CandidateResults, metric: str) -> LeaderboardEntry:
    low, high = primary_metric_interval(candidate)
    shown = np.isfinite(candidate.spreads.get(metric, float("nan")))  # values of single splits, where they can carry it
    values = candidate.metric_values(metric) if shown else np.zeros(0)
    return LeaderboardEntry(candidate.name, candidate.metric_mean(metric), low, high, values)


def leaderboard_table(summary: StudySummary) -> Table:
    """A row for each candidate, best first, and the majority-class baseline last."""
    first = summary.metrics[0]
    published = {name: values[first].value for name, values in read_published(summary).items() if first in values}
    requested = tuple(metric_names(summary.study_config.get("metrics") or summary.metrics[:1]))
    other_metrics = [m for m in summary.metrics[1:] if m not in PROBABILITY_METRICS or m in requested]
    columns = _leaderboard_columns(summary, other_metrics, bool(published))
    within = within_split_column(summary, summary.metrics[0]) is not None
    rows = []
    for place, candidate in enumerate([*summary.candidates, summary.baseline]):
        values: list[CellValue] = [_name_with_progress(candidate), mean_std_over_runs(candidate, summary.metrics[0])]
        values += [primary_metric_interval(candidate)]
        values += [candidate.within_splits.get(summary.metrics[0], (None,))[0]] if within else []
        values += [mean_std_over_runs(candidate, m) for m in other_metrics]
        values += [published.get(published_name(candidate, published))] if published else []
        values += [candidate.median_cost(name) for name in _COSTS_SHOWN]
        role: RowRole = "leader" if place == 0 else "baseline" if candidate is summary.baseline else "plain"
        rows.append(TableRow(tuple(values), role))
    note = (
        f"{describe_estimands(summary, [summary.metrics[0], *other_metrics])} Interval: "
        f"{describe_interval_methods(summary)}. Training time is the median over runs."
    )
    caption = f"Candidates by {MetricFormat.from_metric(summary.ranking_metric).inline_title} on held-out data"
    return Table("leaderboard", caption, columns, tuple(rows), note)


def _leaderboard_columns(summary: StudySummary, other_metrics: list[str], published: bool) -> tuple[Column, ...]:
    first, unit = metric_column(summary.ranking_metric), summary.unit_word.plural
    interval = Column(INTERVAL_TITLE, first.kind, f"of {first.name}; the {unit} are independent", first.digits)
    source = Column("Published", first.kind, "as reported by the source, on other data or with other training", first.digits)
    return (
        Column("Candidate"),
        first,
        interval,
        *([within] if (within := within_split_column(summary, summary.metrics[0])) else []),
        *(metric_column(METRICS[m]) for m in other_metrics),
        *([source] if published else []),
        *(dict(COST_COLUMNS)[name] for name in _COSTS_SHOWN),
    )


def _name_with_progress(candidate: CandidateResults) -> str:
    kind = candidate.table_kind if candidate.table_kind not in candidate.name else ""
    notes = [kind] if kind else []
    notes += [] if candidate.is_complete else [f"{len(candidate.runs)} of {candidate.n_planned} runs"]
    notes += ["not trained to the end"] if getattr(candidate, "not_converged", None) else []
    return f"{candidate.name} ({', '.join(notes)})" if notes else candidate.name
