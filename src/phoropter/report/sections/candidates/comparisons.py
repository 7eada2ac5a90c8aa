"""Pairwise comparisons: differences with intervals, tests corrected for their number, and mean ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from phoropter.report.figures.comparison import LeaderDifference, difference_figure, mean_rank_figure
from phoropter.report.render.metric_format import MetricFormat, difference_kind
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import CellValue, Column, ColumnKind, IntervalBounds, Table, TableRow
from phoropter.report.sections.candidates.contrasts import main_effects_table
from phoropter.report.sections.candidates.pair_words import describe_reach, verdict_word
from phoropter.report.summary.compare import MAX_SHOWN_PAIRS, CandidateComparisons
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.stats.friedman import friedman_test
from phoropter.results.stats.pairs.answers import Answer, Comparison

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
    families = main_effects_table(inputs.answers.main_effects, "family", "Family")
    blocks += [families] if families else []
    text = explain_comparisons(comparisons, summary)
    if inputs.answers.planned:
        text = ("Exploratory: the questions that this study planned are answered under Planned contrasts.", *text)
    files = pairwise_file_tables(comparisons, summary)
    return Section("comparisons", "Pairwise comparisons", text, tuple(blocks), files)


def _mean_rank_block(summary: StudySummary) -> RenderedFigure | None:
    """Friedman's test by the ranking metric with groups as blocks, where groups are held out and can carry it, else sites.

    Folds cannot be the blocks: they share training rows, so their ranks are not independent.
    """
    held_out = summary.has_groups and not summary.protocol_config.get("allow_group_overlap")
    candidates = [c for c in summary.candidates if c.is_complete]
    if not held_out or not 2 < len(candidates) <= MAX_RANKED_CANDIDATES:
        return None
    kinds = [[c.group_scores for c in candidates], [c.site_scores for c in candidates]]
    scores = next((each for each in kinds if each[0].is_shown), [])
    names = sorted(scores[0].values) if scores else []
    if len(names) < MIN_RANK_BLOCKS:
        return None
    table = [[one.value_of(name) for one in scores] for name in names]
    test = friedman_test(table, higher_is_better=summary.ranking_metric.higher_is_better)
    order = sorted(range(len(candidates)), key=lambda i: (test.mean_ranks[i], i))
    ranks = [test.mean_ranks[i] for i in order]
    word = summary.group_word if scores[0] is candidates[0].group_scores else summary.site_word
    what = f"by {MetricFormat.from_metric(summary.ranking_metric).inline_title} over {word.count(test.blocks)}"
    return mean_rank_figure([candidates[i].name for i in order], ranks, test.critical_difference / 2, test.p, what)


def pairwise_table(comparisons: CandidateComparisons, summary: StudySummary) -> Table:
    """On the page: all pairs if there are few, else those of the leader."""
    if len(comparisons.pairs) <= MAX_SHOWN_PAIRS:
        return _build_table("pairwise", "All pairs of candidates", comparisons.pairs, summary)
    caption = f"{summary.candidates[0].name} compared with each other candidate"
    table = _build_table("pairwise", caption, comparisons.leader_pairs, summary)
    return replace(table, columns=table.columns[1:], rows=tuple(TableRow(row.values[1:], row.role) for row in table.rows))


def pairwise_file_tables(comparisons: CandidateComparisons, summary: StudySummary) -> tuple[Table, ...]:
    """The tests of all pairs, which the page has no room for."""
    return (_build_details_table(comparisons.pairs, summary),)


def _build_table(name: str, caption: str, pairs: tuple[Comparison, ...], summary: StudySummary) -> Table:
    """For the page: the two answers."""
    kind, digits = difference_kind(summary.ranking_metric)
    title = MetricFormat.from_metric(summary.ranking_metric).inline_title
    models, again = "of the trained models on new rows", "of training again on other data of this size"
    columns = (
        Column("Candidate"),
        Column("Compared with"),
        Column("Difference", kind, f"in {title}: the candidate minus the other", digits),
        Column("On new rows", kind, f"95 % interval {models}, not corrected", digits),
        Column("p on new rows", "p", f"{models}, corrected for the number of pairs"),
        Column("Verdict on new rows"),
        Column("Trained again", kind, f"95 % interval {again}, not corrected", digits),
        Column("p trained again", "p", f"{again}, corrected for the number of pairs"),
        Column("Verdict trained again"),
    )
    return Table(name, caption, columns, tuple(TableRow(_page_row(c, summary)) for c in pairs))


def _page_row(c: Comparison, summary: StudySummary) -> tuple[CellValue, ...]:
    cells: list[CellValue] = [c.a, c.b, c.difference]
    for answer in (c.rows, c.training):
        bounds = IntervalBounds(answer.result.low, answer.result.high)
        cells += [bounds, answer.p_adjusted, verdict_word(c, answer, summary)]
    return tuple(cells)


def _build_details_table(pairs: tuple[Comparison, ...], summary: StudySummary) -> Table:
    """For the files: the tests behind both answers."""
    (kind, digits), percent = difference_kind(summary.ranking_metric), summary.ranking_metric.percent
    unsigned: ColumnKind = "percent" if percent else "number"
    columns = [Column("Candidate"), Column("Compared with"), Column("Difference", kind, "", digits)]
    for words in ("on new rows", "trained again"):
        columns += [
            Column(f"Test {words}"),
            Column(f"95 % interval {words}", kind, "not corrected", digits),
            Column(f"p {words}, not corrected", "p"),
            Column(f"p {words}, corrected", "p"),
            Column(f"Detectable {words}", unsigned, "true difference found 8 times in 10", digits, "points" if percent else ""),
            Column(f"Effect {words}", "signed", "", 2),
            Column(f"Effect is {words}"),
            Column(f"Verdict {words}"),
        ]
    rows = []
    for c in pairs:
        cells: list[CellValue] = [c.a, c.b, c.difference]
        for one in (c.rows, c.training):
            r, word = one.result, verdict_word(c, one, summary)
            cells += [r.test, IntervalBounds(r.low, r.high), r.p, one.p_adjusted, one.detectable, r.effect, r.effect_kind, word]
        rows.append(TableRow(tuple(cells)))
    return Table("pairwise-tests", "All pairs of candidates, with the tests behind both answers", tuple(columns), tuple(rows))


_TEST_DESCRIPTIONS = {
    "paired t over units": "a paired t-test of what each {unit} adds to the difference",
    "sign test": "the sign test",
    "corrected resampled t": "the corrected resampled t-test (Nadeau & Bengio 2003)",
    "two-component t": "a t-test that keeps the variances of rows and of training apart (the latter from the splits)",
    "Wilcoxon signed-rank": "the Wilcoxon signed-rank test over the {units}, each left out once",
    "McNemar exact": "McNemar's exact test on the rows that only one of the two predicts correctly",
    "DeLong": "DeLong's test of two areas under the ROC curve on the same rows",
    "paired z": "a paired z-test on the contribution of each {unit} to the difference",
    "unit-swap permutation": "a permutation test that swaps the predictions of the two, {unit} by {unit}",
}


def explain_comparisons(comparisons: CandidateComparisons, summary: StudySummary) -> tuple[str, ...]:
    """Paragraphs: the two questions, how each is tested, and why some pairs have no verdict."""
    pairs = comparisons.pairs
    text = [
        f"Two questions of each pair. On new rows: are these trained models different on new {summary.unit_word.plural} like "
        f"these? {_name_tests([c.rows for c in pairs], summary)} Trained again: would this way of training, on other data of "
        f"this size, differ again? {_name_tests([c.training for c in pairs], summary)}"
    ]
    if any(a.is_tested for c in pairs for a in (c.rows, c.training)):
        number = comparisons.family_size
        correction = f"p is corrected for all {number} pairs" if number > 1 else "p needs no correction for one pair"
        text.append(
            f"For each question {correction}. A candidate is called ahead only if the corrected p is at most 0.05, the "
            "interval excludes zero, and it is clearly better than guessing."
        )
    if comparisons.design.margin is not None:
        margin = MetricFormat.from_metric(summary.ranking_metric).format_difference(comparisons.design.margin)
        text.append(
            f"Practically the same: the complete interval lies within ±{margin}, the equivalence margin that the study set in "
            "advance."
        )
    if any(c.n_left_out for c in pairs):
        text.append("In some pairs, splits that only one of the two has finished are left out.")
    reach = list(dict.fromkeys(w for c in pairs for a in (c.rows, c.training) if (w := describe_reach(a, summary))))
    if reach:
        text.append(f"{reach[0][:1].upper()}{reach[0][1:]}; the intervals of such pairs are descriptive.")
    notes = list(dict.fromkeys(a.result.note for c in pairs for a in (c.rows, c.training) if a.result.note))
    return (*text, *(f"Some pairs cannot be tested: {note}." for note in notes[:3]))


def _name_tests(answers: list[Answer], summary: StudySummary) -> str:
    """`Tested over 360 rows by … .`; where nothing is tested, that this study cannot answer."""
    tests = list(dict.fromkeys(a.result.test for a in answers if a.result.test != "none"))
    if not tests:
        return "This study cannot answer that."
    words = {"unit": summary.unit_word.singular, "units": summary.unit_word.plural}
    number = max(a.result.n_units for a in answers)
    over_splits = {"corrected resampled t", "two-component t"} & set(tests)
    counted = f"{number:,} splits" if over_splits else summary.unit_word.count(number)
    return f"Tested over {counted} by {' and '.join(_TEST_DESCRIPTIONS.get(t, t).format(**words) for t in tests)}."
