"""Leaderboards of recordings and people, beside that of the rows: windows are trained on, people are decided on."""

from __future__ import annotations

from phoropter.report.render.metric_format import MetricFormat, metric_column
from phoropter.report.render.section import FoldedBlocks
from phoropter.report.render.table import INTERVAL_TITLE, CellValue, Column, IntervalBounds, Table, TableRow
from phoropter.report.summary.clinical.model import CandidateAtLevel, LevelResults
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS


def level_leaderboards(inputs: ReportInput) -> list[FoldedBlocks]:
    """A folded table for each level above the row, the highest first."""
    return [
        FoldedBlocks(
            f"Per {level.word.singular}: {describe_answers(inputs.summary, level)}", (level_table(inputs.summary, level),)
        )
        for level in reversed(inputs.clinical.levels)
        if level.level != "row"
    ]


def describe_answers(summary: StudySummary, level: LevelResults) -> str:
    """`36 births (12 ‘acidosis’, 24 ‘healthy’), the mean of the probabilities of their rows`"""
    counts = ", ".join(f"{n:,} ‘{c}’" for c, n in list(zip(summary.classes, level.supports, strict=True))[:6])
    return f"{level.word.count(sum(level.supports))} ({counts}), {level.rule} of their rows"


def describe_missing_levels(inputs: ReportInput) -> list[str]:
    """Why there is no leaderboard of recordings or people, where rows have them."""
    words = {"recording": "recordings", "group": inputs.summary.group_word.plural}
    return [
        f"There are no results per {'recording' if level == 'recording' else inputs.summary.group_word.singular}: {count} "
        f"{words[level]} have rows of several classes, so one answer for all of them would have no true class."
        for level, count in inputs.clinical.missing.items()
    ]


def level_table(summary: StudySummary, level: LevelResults) -> Table:
    """Candidates by the ranking metric at this level."""
    names = [name for name in level.estimands if name in summary.metrics]
    first = METRICS[names[0]]
    column = metric_column(first)
    ranked = sorted(level.candidates, key=lambda c: _order(c, first.name, first.higher_is_better))
    columns: tuple[Column, ...] = (
        Column("Candidate"),
        column,
        Column(INTERVAL_TITLE, column.kind, f"of {column.name}", column.digits),
    )
    columns += tuple(metric_column(METRICS[name]) for name in names[1:])
    rows = []
    for candidate in ranked:
        interval = candidate.interval
        bounds = None if interval is None else IntervalBounds(interval.low, interval.high)
        cells: list[CellValue] = [candidate.name, candidate.values[names[0]], bounds]
        rows.append(TableRow((*cells, *(candidate.values[name] for name in names[1:]))))
    pooled = [METRICS[n].title for n in names if level.estimands[n].kind == "pooled" and not METRICS[n].mean_over_rows]
    found = next((c.interval.method for c in ranked if c.interval is not None), "")
    within = [METRICS[n].title for n in names if level.estimands[n].kind == "per-split"]
    note = f"{', '.join(within)}: mean over splits. " if within else ""
    note += f"{', '.join(pooled)}: of all answers of a repeat together. " if pooled else ""
    found = found.replace("independent rows", f"independent {level.word.plural}")  # a row of this table's data is one of these
    caption = f"Candidates by {MetricFormat.from_metric(first).inline_title}, per {level.word.singular}"
    return Table(f"leaderboard-per-{level.level}", caption, columns, tuple(rows), f"{note}Interval: {found}.")


def _order(candidate: CandidateAtLevel, metric: str, higher_is_better: bool) -> tuple[float, str]:
    value = candidate.values[metric]
    unknown = value != value
    return (float("inf") if unknown else -value if higher_is_better else value), candidate.name
