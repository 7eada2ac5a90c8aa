"""The ranking metric by group and by site, where these can carry it, and the hardest groups of every candidate."""

from __future__ import annotations

import numpy as np

from phoropter.core.language.unit_words import UnitWord
from phoropter.report.figures.predictions import dot_plot
from phoropter.report.render.metric_format import MetricFormat, metric_column
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.table import Column, Table, TableRow, one_line
from phoropter.report.sections.candidate_values import MAX_OTHER_CANDIDATES
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.report.summary.unit_scores import UnitScores
from phoropter.results.metrics.by_group import GroupScore, WorstGroups, find_worst_groups
from phoropter.results.metrics.metric_record import MIN_RAREST


def group_section(inputs: ReportInput) -> Section | None:
    """None where rows have neither groups nor sites that can carry the ranking metric."""
    summary = inputs.summary
    kinds = shown_kinds(summary)
    if not kinds:
        return None
    scale = MetricFormat.from_metric(summary.ranking_metric)
    blocks: list[ContentBlock] = []
    text: list[str] = []
    for kind in kinds:
        names, word = names_hardest_first(summary, kind), unit_word_of(summary, kind)
        candidates = summary.candidates[: MAX_OTHER_CANDIDATES + 1]
        columns = [(c.name, np.array([select_unit_scores(c, kind).value_of(n) for n in names])) for c in candidates]
        caption = f"{scale.title} by {word.singular}, worst first for {one_line(candidates[0].name)}."
        blocks += [dot_plot(names, columns, f"{kind}s", caption, scale), per_group_table(summary, kind)]
        if kind == "group":
            text.append(_describe_hardest_group(summary))
            blocks.append(worst_groups_table(summary))
    text += [sentence for kind in ("site", "group") if (sentence := describe_left_out(summary, kind))]
    title = f"{scale.title} by {' and '.join(unit_word_of(summary, kind).singular for kind in kinds)}"
    files = tuple(per_group_table(summary, k, all_candidates=True) for k in kinds)
    return Section("groups", title, tuple(text), tuple(blocks), files)


def shown_kinds(summary: StudySummary) -> list[str]:
    """Of `site` and `group`, those that can carry the ranking metric for the first candidate."""
    return [kind for kind in ("site", "group") if select_unit_scores(summary.candidates[0], kind).is_shown]


def unit_word_of(summary: StudySummary, kind: str) -> UnitWord:
    """What a group or site of the study is called."""
    return summary.group_word if kind == "group" else summary.site_word


def select_unit_scores(candidate: CandidateResults, kind: str) -> UnitScores:
    """kind: `group` or `site`."""
    return candidate.group_scores if kind == "group" else candidate.site_scores


def describe_left_out(summary: StudySummary, kind: str) -> str:
    """How many units can carry the metric; empty where all can, or there are none."""
    scores, word = select_unit_scores(summary.candidates[0], kind), unit_word_of(summary, kind)
    metric = summary.ranking_metric
    if len(scores.row_counts) < 2 or not scores.n_left_out:
        return ""
    needed = f"{MIN_RAREST} rows" if metric.mean_over_rows else f"{MIN_RAREST} rows and every class"
    title = MetricFormat.from_metric(metric).inline_title
    some = f"{len(scores.values):,} of {word.count(len(scores.row_counts))}"
    have = "has" if len(scores.values) == 1 else "have"
    if not scores.values:
        return f"{title[:1].upper()}{title[1:]} by {word.singular} is not shown: no {word.singular} has {needed}."
    if scores.is_shown:
        return f"{title[:1].upper()}{title[1:]} by {word.singular} uses {some}, those with {needed}."
    return f"{title[:1].upper()}{title[1:]} by {word.singular} is not shown: only {some} {have} {needed}."


def _describe_hardest_group(summary: StudySummary) -> str:
    first, worst, word = summary.candidates[0], find_hardest_groups(summary), summary.group_word
    hardest, scale = worst.groups[0], MetricFormat.from_metric(summary.ranking_metric)
    return (
        f"The hardest of {word.count(len(worst.groups))} for {first.name} is {hardest.group}, with "
        f"{scale.format_value(hardest.value)} {scale.inline_title} on {hardest.n_rows:,} predictions; over the hardest fifth "
        f"({worst.n_worst}) the mean is {scale.format_value(worst.worst_mean)}. The worst of many {word.plural} is bad partly by "
        f"chance, more so with few rows."
    )


def names_hardest_first(summary: StudySummary, kind: str) -> list[str]:
    """Groups or sites that can carry the metric, those where the first candidate is worst first."""
    scores, sign = select_unit_scores(summary.candidates[0], kind), 1 if summary.ranking_metric.higher_is_better else -1
    return sorted(scores.values, key=lambda name: (sign * scores.value_of(name), name))


def per_group_table(summary: StudySummary, kind: str = "group", all_candidates: bool = False) -> Table:
    """A row for each group or site: the ranking metric of the first candidates, or of all of them for the files."""
    candidates = summary.candidates if all_candidates else summary.candidates[: MAX_OTHER_CANDIDATES + 1]
    first, word = select_unit_scores(candidates[0], kind), unit_word_of(summary, kind)
    scale, column = MetricFormat.from_metric(summary.ranking_metric), metric_column(summary.ranking_metric)
    columns = (
        Column(word.singular.capitalize()),
        Column("Rows", "count", "held-out rows, counted once for each run that tested them"),
        *(Column(c.name, column.kind, scale.inline_title, column.digits) for c in candidates),
    )
    rows = tuple(
        TableRow((name, first.row_counts[name], *(select_unit_scores(c, kind).value_of(name) for c in candidates)))
        for name in names_hardest_first(summary, kind)
    )
    caption = f"{scale.title} by {word.singular}, worst first for {candidates[0].name}"
    return Table(f"per-{kind}" + ("-of-all" if all_candidates else ""), caption, columns, rows, max_html_rows=12)


def find_hardest_groups(summary: StudySummary, candidate: CandidateResults | None = None) -> WorstGroups:
    """Groups by the ranking metric of a candidate (default: the first), worst first, and the mean over the worst fifth."""
    scores = (candidate or summary.candidates[0]).group_scores
    each = [GroupScore(name, value, scores.row_counts[name]) for name, value in scores.values.items()]
    return find_worst_groups(summary.metrics[0], each)


def worst_groups_table(summary: StudySummary) -> Table:
    """A row for each candidate: the candidate that is best on average need not be best on the hardest groups."""
    word, scale = summary.group_word, MetricFormat.from_metric(summary.ranking_metric)
    kind, digits = (c := metric_column(summary.ranking_metric)).kind, c.digits
    columns = (
        Column("Candidate"),
        Column(f"All {word.plural}", kind, f"mean of {scale.inline_title} over the {word.plural}", digits),
        Column("Hardest fifth", kind, f"mean over the hardest fifth of the {word.plural}", digits),
        Column(f"Hardest {word.singular}", kind, scale.inline_title, digits),
        Column("Name"),
        Column("Rows", "count", f"of the hardest {word.singular}, counted once for each run that tested them"),
    )
    rows = []
    for candidate in summary.candidates:
        worst = find_hardest_groups(summary, candidate)
        if worst.groups:
            mean, hardest = float(np.mean([g.value for g in worst.groups])), worst.groups[0]
            rows.append(TableRow((candidate.name, mean, worst.worst_mean, hardest.value, hardest.group, hardest.n_rows)))
    caption = f"{scale.title} on the hardest of {word.count(len(summary.candidates[0].group_scores.values))}, by candidate"
    return Table("worst-groups", caption, columns, tuple(rows))
