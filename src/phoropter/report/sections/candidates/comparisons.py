"""Pairwise comparisons: differences with intervals, tests corrected for their number, and mean ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from phoropter.report.figures.comparison import LeaderDifference, difference_figure, mean_rank_figure
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import Column, ColumnKind, IntervalBounds, Table, TableRow
from phoropter.report.summary.compare import MAX_SHOWN_PAIRS, CandidateComparisons
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.stats.compare import Comparison
from phoropter.results.stats.friedman import friedman_test

MAX_RANKED_CANDIDATES, MIN_RANK_BLOCKS = 20, 6  # candidates at most, and groups at least, for the figure of mean ranks


def comparison_section(inputs: ReportInput) -> Section | None:
    """None where there is one candidate."""
    summary, comparisons = inputs.summary, inputs.comparisons
    if not comparisons.pairs:
        return None
    differences = [
        LeaderDifference(c.b, c.difference, c.low, c.high, c.verdict == "ahead")
        for c in comparisons.leader_pairs
        if np.isfinite(c.low)
    ]
    blocks: list[ContentBlock] = []
    if differences:
        scale = MetricFormat.from_metric(summary.ranking_metric)
        blocks.append(difference_figure(differences, summary.candidates[0].name, scale))
    blocks.append(pairwise_table(comparisons, summary))
    ranks = _mean_rank_block(summary)
    blocks += [ranks] if ranks else []
    text = explain_comparisons(comparisons, summary)
    files = pairwise_file_tables(comparisons, summary)
    return Section("comparisons", "Pairwise comparisons", text, tuple(blocks), files)


def _mean_rank_block(summary: StudySummary) -> RenderedFigure | None:
    """Friedman's test with groups as blocks, where groups are held out and there are enough of them.

    Folds cannot be the blocks: they share training rows, so their ranks are not independent.
    """
    held_out = summary.has_groups and not summary.protocol_config.get("allow_group_overlap")
    candidates = [c for c in summary.candidates if c.is_complete]
    if not held_out or not 2 < len(candidates) <= MAX_RANKED_CANDIDATES:
        return None
    names = sorted(candidates[0].group_accuracy.row_counts)
    if len(names) < MIN_RANK_BLOCKS:
        return None
    test = friedman_test([[c.group_accuracy.accuracy_of(name) for c in candidates] for name in names])
    order = sorted(range(len(candidates)), key=lambda i: (test.mean_ranks[i], i))
    ranks = [test.mean_ranks[i] for i in order]
    return mean_rank_figure([candidates[i].name for i in order], ranks, test.critical_difference / 2, test.blocks, test.p)


def pairwise_table(comparisons: CandidateComparisons, summary: StudySummary) -> Table:
    """On the page: all pairs if there are few, else those of the leader."""
    if len(comparisons.pairs) <= MAX_SHOWN_PAIRS:
        return _build_table("pairwise", "All pairs of candidates", comparisons.pairs, summary)
    caption = f"{summary.candidates[0].name} compared with each other candidate"
    table = _build_table("pairwise", caption, comparisons.leader_pairs, summary)
    return replace(table, columns=table.columns[1:], rows=tuple(TableRow(row.values[1:], row.role) for row in table.rows))


def pairwise_file_tables(comparisons: CandidateComparisons, summary: StudySummary) -> tuple[Table, ...]:
    """All pairs, where the page shows only those of the leader."""
    if len(comparisons.pairs) <= MAX_SHOWN_PAIRS:
        return ()
    return (_build_table("pairwise-of-all", "All pairs of candidates", comparisons.pairs, summary),)


def _build_table(name: str, caption: str, pairs: tuple[Comparison, ...], summary: StudySummary) -> Table:
    percent = summary.ranking_metric.percent
    kind: ColumnKind = "points" if percent else "signed"
    unsigned: ColumnKind = "percent" if percent else "number"
    digits, unit = (1, "points") if percent else (3, "")
    title = MetricFormat.from_metric(summary.ranking_metric).inline_title
    effect_kinds = " or ".join(dict.fromkeys(c.effect_kind for c in pairs if c.effect_kind))
    columns = (
        Column("Candidate"),
        Column("Compared with"),
        Column("Difference", kind, f"in {title}: the candidate minus the other", digits),
        Column("95\u00a0%\u00a0interval", kind, "of this comparison, not corrected", digits),
        Column("p", "p", "of this comparison, not corrected"),
        Column("p, corrected", "p", "for the number of pairs"),
        Column("Detectable", unsigned, "the true difference that this design detects with a power of 80 %", digits, unit),
        Column("Effect", "signed", effect_kinds, 2),
        Column("Verdict"),
    )
    rows = tuple(
        TableRow((c.a, c.b, c.difference, IntervalBounds(c.low, c.high), c.p, c.p_adjusted, c.detectable, c.effect, c.verdict))
        for c in pairs
    )
    return Table(name, caption, columns, rows)


_TEST_DESCRIPTIONS = {
    "corrected resampled t": "the corrected resampled t-test (Nadeau & Bengio 2003), which allows for the overlap of training "
    "sets",
    "Wilcoxon signed-rank": "the Wilcoxon signed-rank test over the groups, each left out once",
    "McNemar exact": "McNemar's exact test on the rows that only one of the two predicts correctly",
    "DeLong": "DeLong's test of two areas under the ROC curve on the same rows",
    "paired z": "a paired z-test on the contribution of each unit to the difference",
    "unit-swap permutation": "a permutation test that swaps the predictions of the two, unit by unit",
}


def explain_comparisons(comparisons: CandidateComparisons, summary: StudySummary) -> tuple[str, ...]:
    """Paragraphs: how pairs were tested, and why some have no verdict."""
    tests = list(dict.fromkeys(c.test for c in comparisons.pairs if c.test != "none"))
    notes = list(dict.fromkeys(c.note for c in comparisons.pairs if c.note))
    text = []
    if tests:
        units = max(c.n_units for c in comparisons.pairs)
        unit = "splits" if comparisons.design.kind == "folds" else "groups" if summary.has_groups else "rows"
        pairs = comparisons.family_size
        correction = f"p is corrected for all {pairs} pairs" if pairs > 1 else "p needs no correction for one pair"
        text.append(
            f"Pairs are compared over {units:,} {unit} by {' and '.join(_TEST_DESCRIPTIONS.get(t, t) for t in tests)}; "
            f"{correction}. A candidate is called ahead only if the corrected p is at most 0.05 and the interval excludes zero."
        )
    if kinds := list(dict.fromkeys(c.effect_kind for c in comparisons.pairs if c.effect_kind)):
        text.append(f"Effect size (dimensionless): {' or '.join(kinds)}.")
    if tests and comparisons.design.margin is not None:
        margin = MetricFormat.from_metric(summary.ranking_metric).format_difference(comparisons.design.margin)
        text.append(
            f"Practically the same: the complete interval lies within ±{margin}, the equivalence margin that the study set in "
            "advance."
        )
    if any(c.n_left_out for c in comparisons.pairs):
        text.append("In some pairs, splits that only one of the two has finished are left out.")
    return (*text, *(f"Some pairs cannot be tested: {note}." for note in notes[:3]))
