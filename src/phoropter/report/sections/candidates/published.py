"""Published results: every figure that the source of a study gives, beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from phoropter.report.render.metric_format import metric_column
from phoropter.report.render.table import INTERVAL_TITLE, CellValue, Column, IntervalBounds, MeanStd, Table, TableRow
from phoropter.report.sections.published_figures import (
    ComparedFigure,
    PublishedValue,
    compare_ranking_figures,
    our_value,
    published_name,
    read_about,
    read_published,
)
from phoropter.report.summary.model import UNSEEN, CandidateResults, StudySummary
from phoropter.results.metrics.registry import METRICS


def published_table(summary: StudySummary) -> Table | None:
    """A row for each candidate with a published figure, a pair of columns for each metric; None where there is none.

    What this study did not run or compute, and what the source does not give, has a dash.
    """
    published = read_published(summary)
    named = {name for values in published.values() for name in values}
    known = [name for metric in summary.metrics for name in (metric, UNSEEN + metric) if name in named]
    metrics = known + sorted(named - set(known))
    rows: list[TableRow] = []
    used: set[str] = set()
    for candidate in summary.candidates:
        name = published_name(candidate, published)
        if name in published:
            used.add(name)
            rows.append(TableRow((candidate.name, *_paired_cells(candidate, metrics, published[name]))))
    rows += [TableRow((name, *_paired_cells(None, metrics, published[name]))) for name in published if name not in used]
    columns = [Column("Candidate")]
    for metric in metrics:
        ours = _our_column(summary, metric)
        columns += [ours, replace(ours, name=f"{ours.name}, published", description="as printed in the source")]
    source = str(read_about(summary).get("source") or "").rstrip(".")
    note = f"Source: {source}. " if source else ""
    note += "Published on other data, other splits or with other training. A dash: not run, not computed here, or not published."
    return Table("published", "Published figures beside those of this study", tuple(columns), tuple(rows), note) if rows else None


def agreement_table(summary: StudySummary) -> Table | None:
    """A row for each published figure of the ranking metric with ours beside it; None where no figure's interval is known."""
    compared = compare_ranking_figures(summary)
    if not any(figure.derived for figure in compared):
        return None
    column, with_place = metric_column(summary.ranking_metric), any(figure.is_unseen for figure in compared)
    columns = (
        Column("Candidate"),
        *([Column("Tested on", "words")] if with_place else []),
        replace(column, name="Published"),
        Column(f"Its {INTERVAL_TITLE}", column.kind, "derived from what the source says of its rows and runs", column.digits),
        replace(column, name="Here"),
        Column(INTERVAL_TITLE, column.kind, "of ours, as in the leaderboard", column.digits),
        Column("Judgement", "words"),
    )
    rows = [TableRow(_agreement_cells(summary, figure, with_place)) for figure in compared]
    methods = "; ".join(dict.fromkeys(f.derived.method for f in compared if f.derived))
    note = (
        f"Intervals of published figures are derived, not printed: {methods}. Two figures agree where the interval of their "
        "difference (Zou and Donner 2008) holds zero. Neither side's interval covers another training, or other data."
    )
    return Table("agreement", "Agreement with the published figures", columns, tuple(rows), note)


def _agreement_cells(summary: StudySummary, figure: ComparedFigure, with_place: bool) -> tuple[CellValue, ...]:
    place = f"{summary.site_word.plural} never trained on" if figure.is_unseen else "held-out rows"
    derived = figure.derived
    return (
        figure.candidate,
        *([place] if with_place else []),
        figure.published.value,
        None if derived is None else IntervalBounds(derived.low, derived.high),
        figure.ours,
        IntervalBounds(figure.low, figure.high),
        figure.agreement,
    )


def _our_column(summary: StudySummary, metric: str) -> Column:
    name = metric.removeprefix(UNSEEN)
    column = metric_column(METRICS[name]) if name in METRICS else Column(metric, "number", "", 3)
    if not metric.startswith(UNSEEN):
        return column
    words = "all models of a candidate together, on sites that none was trained on"
    return replace(column, name=f"{column.name}, unseen {summary.site_word.plural}", description=words)


def _paired_cells(
    candidate: CandidateResults | None, metrics: Sequence[str], published: Mapping[str, PublishedValue]
) -> list[CellValue]:
    cells: list[CellValue] = []
    for metric in metrics:
        theirs = published.get(metric)
        cells.append(None if candidate is None else our_value(candidate, metric))
        if theirs is None:
            cells.append(None)
        else:
            cells.append(MeanStd(theirs.value, theirs.std) if np.isfinite(theirs.std) else theirs.value)
    return cells
