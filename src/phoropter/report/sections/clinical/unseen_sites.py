"""Unseen sites: the ranking metric at each with its interval, what to expect at a new one, and candidates compared on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from phoropter.report.figures.clinical_curves import site_figure
from phoropter.report.render.metric_format import MetricFormat, difference_kind, metric_column
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.table import INTERVAL_TITLE, CellValue, Column, IntervalBounds, Table, TableRow, one_line
from phoropter.report.summary.clinical.unseen_sites import (
    UnseenSites,
    answer_unseen_sites,
    compare_on_unseen_sites,
    measure_unseen_sites,
)
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.clinical.alarm_statistics import Estimate
from phoropter.results.stats.pairs.answers import Comparison

MAX_COMPARED = 8  # candidates that are compared pair by pair on unseen sites


def unseen_sites_section(inputs: ReportInput) -> Section | None:
    """None where no site is unseen, or rows name none."""
    summary = inputs.summary
    shown = summary.candidates[:MAX_COMPARED]
    answers = {c.name: found for c in shown if (found := answer_unseen_sites(inputs.store, summary, c)) is not None}
    measured = {name: sites for name, found in answers.items() if (sites := measure_unseen_sites(summary, found)) is not None}
    if not measured:
        return None
    name, first = next(iter(measured.items()))
    word, scale = summary.site_word, MetricFormat.from_metric(summary.ranking_metric)
    entries = {site: Estimate(i.estimate, i.low, i.high) for site, i in first.intervals.items()}
    caption = f"{scale.title} of {one_line(name)} at each {word.singular} that its models never saw. Bar: 95 % interval."
    blocks: list[ContentBlock] = [sites_table(summary, name, first)]
    blocks += [site_figure(entries, first.spread, scale, caption)] if len(entries) > 1 else []
    pairs = compare_on_unseen_sites(summary, answers)
    blocks += [pairs_table(summary, pairs)] if pairs else []
    files = (all_sites_table(summary, measured),)
    return Section("unseen-sites", f"Unseen {word.plural}", _describe_spread(summary, name, first), tuple(blocks), files)


def _describe_spread(summary: StudySummary, name: str, measured: UnseenSites) -> tuple[str, ...]:
    """How the choice of the site that is left out changes the result, and what to expect at a new one."""
    scale, word = MetricFormat.from_metric(summary.ranking_metric), summary.site_word
    values = {site: i.estimate for site, i in measured.intervals.items() if np.isfinite(i.estimate)}
    if len(values) < 2:
        return ()
    low, high = min(values, key=lambda s: values[s]), max(values, key=lambda s: values[s])
    sentence = (
        f"From one unseen {word.singular} to another {name} reaches {scale.format_value(values[low])} ({one_line(low)}) to "
        f"{scale.format_value(values[high])} ({one_line(high)}) {scale.inline_title}."
    )
    if measured.spread is None:
        return (sentence,)
    mean, new = measured.spread.mean, measured.spread.new_site
    return (
        sentence,
        f"At a new {word.singular} {scale.format_value(new.low)} to {scale.format_value(new.high)} are to be expected (95 % "
        f"prediction interval around a mean of {scale.format_value(mean.value)}, from {word.count(measured.spread.n_sites)}).",
    )


def sites_table(summary: StudySummary, name: str, measured: UnseenSites) -> Table:
    """A row for each site, then their mean and what to expect at a new one."""
    column = metric_column(summary.ranking_metric)
    word = summary.site_word.singular
    columns = (Column(word.capitalize()), Column("Rows", "count"), column, Column(INTERVAL_TITLE, column.kind, "", column.digits))
    rows = [
        TableRow((site, measured.counts[site], interval.estimate, IntervalBounds(interval.low, interval.high)))
        for site, interval in measured.intervals.items()
    ]
    note = "Answers: the mean probability of all models that did not meet the row. " + "; ".join(
        dict.fromkeys(interval.method for interval in measured.intervals.values())
    )
    if measured.spread is not None:
        mean, new = measured.spread.mean, measured.spread.new_site
        rows.append(TableRow((f"Mean over {summary.site_word.plural}", None, mean.value, IntervalBounds(mean.low, mean.high))))
        rows.append(TableRow((f"A new {word}", None, new.value, IntervalBounds(new.low, new.high))))
        note += (
            ". Mean: random effects on the logit scale (Paule and Mandel), interval by Hartung and Knapp; the interval of a new "
            f"{word} is a prediction interval (after Nagashima et al. 2019)"
        )
    caption = f"{name} on {summary.site_word.plural} that its models never saw"
    return Table("unseen-sites", caption, columns, tuple(rows), f"{note}.")


def all_sites_table(summary: StudySummary, measured: Mapping[str, UnseenSites]) -> Table:
    """For the files: a row for each candidate and site."""
    column = metric_column(summary.ranking_metric)
    columns = (
        Column("Candidate"),
        Column("Site"),
        Column("Rows", "count"),
        column,
        Column(INTERVAL_TITLE, column.kind, "", column.digits),
    )
    rows: list[TableRow] = []
    for name, sites in measured.items():
        for site, interval in sites.intervals.items():
            cells: tuple[CellValue, ...] = (name, site, sites.counts[site], interval.estimate)
            rows.append(TableRow((*cells, IntervalBounds(interval.low, interval.high))))
    return Table("unseen-sites-of-all", "Every candidate at each unseen site", columns, tuple(rows))


def pairs_table(summary: StudySummary, pairs: Sequence[Comparison]) -> Table:
    """Every pair on the rows of unseen sites."""
    metric = summary.ranking_metric
    kind, digits = difference_kind(metric)
    columns = (
        Column("Candidate"),
        Column("Against"),
        Column(f"Difference in {MetricFormat.from_metric(metric).inline_title}", kind, "", digits),
        Column(INTERVAL_TITLE, kind, "", digits),
        Column("p", "p", f"Holm's correction for {len(pairs)} pairs"),
        Column("Verdict", "words"),
    )
    rows = []
    for pair in pairs:
        answer = pair.rows
        bounds = IntervalBounds(answer.result.low, answer.result.high)
        rows.append(TableRow((pair.a, pair.b, pair.difference, bounds, answer.p_adjusted, answer.verdict)))
    tests = "; ".join(dict.fromkeys(pair.rows.result.test for pair in pairs))
    note = f"On the same rows of {summary.site_word.plural} that neither was trained on; the models averaged. Test: {tests}."
    return Table("unseen-site-pairs", f"Candidates compared on unseen {summary.site_word.plural}", columns, tuple(rows), note)
