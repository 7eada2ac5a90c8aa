"""Pairwise comparisons: the table, and what was tested how."""

from __future__ import annotations

from dataclasses import replace

from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.table import Column, ColumnKind, IntervalBounds, Table, TableRow
from phoropter.report.summary.compare import MAX_SHOWN_PAIRS, CandidateComparisons
from phoropter.report.summary.model import StudySummary
from phoropter.results.stats.compare import Comparison


def pairwise_table(found: CandidateComparisons, evidence: StudySummary) -> Table:
    """On the page: all pairs where they are few, else the leader's."""
    if len(found.pairs) <= MAX_SHOWN_PAIRS:
        return _build_table("pairwise", "Every pair", found.pairs, evidence)
    whole = _build_table("pairwise", f"{evidence.candidates[0].name} against each other candidate", found.leader_pairs, evidence)
    return replace(whole, columns=whole.columns[1:], rows=tuple(TableRow(row.values[1:], row.role) for row in whole.rows))


def pairwise_file_tables(found: CandidateComparisons, evidence: StudySummary) -> tuple[Table, ...]:
    """All pairs, where the page has not room for them."""
    if len(found.pairs) <= MAX_SHOWN_PAIRS:
        return ()
    return (_build_table("pairwise-of-all", "Every pair", found.pairs, evidence),)


def _build_table(name: str, caption: str, pairs: tuple[Comparison, ...], evidence: StudySummary) -> Table:
    kind: ColumnKind = "points" if evidence.ranking_metric.percent else "signed"
    plain: ColumnKind = "percent" if evidence.ranking_metric.percent else "number"
    digits, unit = (1, "points") if evidence.ranking_metric.percent else (3, "")
    title = MetricFormat.from_metric(evidence.ranking_metric).inline_title
    kinds = " or ".join(dict.fromkeys(c.effect_kind for c in pairs if c.effect_kind))
    columns = (
        Column("Candidate"),
        Column("Against"),
        Column("Difference", kind, f"in {title}: the candidate minus the other", digits),
        Column("95\u00a0%\u00a0interval", kind, "of this comparison alone", digits),
        Column("p", "p", "of this comparison alone"),
        Column("p, corrected", "p", "for the number of pairs"),
        Column("Detectable", plain, "the true difference that 8 in 10 such studies would have found", digits, unit),
        Column("Effect", "signed", kinds, 2),
        Column("Verdict"),
    )
    rows = tuple(
        TableRow((c.a, c.b, c.difference, IntervalBounds(c.low, c.high), c.p, c.p_adjusted, c.detectable, c.effect, c.verdict))
        for c in pairs
    )
    return Table(name, caption, columns, rows)


_TEST_DESCRIPTIONS = {
    "corrected resampled t": "the corrected resampled t-test (Nadeau & Bengio 2003), which allows for the training rows that "
    "splits share",
    "Wilcoxon signed-rank": "Wilcoxon's signed-rank test over the groups, each left out once",
    "McNemar exact": "McNemar's exact test on the rows that only one of the two got right",
    "DeLong": "DeLong's test of two areas on the same cases",
    "paired z": "a paired z-test over what each unit adds to the difference",
    "unit-swap permutation": "a permutation test that exchanges the answers of the two, unit by unit",
}


def explain_comparisons(found: CandidateComparisons, evidence: StudySummary) -> tuple[str, ...]:
    """How the pairs were compared, and what keeps a verdict from being given."""
    tests = list(dict.fromkeys(c.test for c in found.pairs if c.test != "none"))
    notes = list(dict.fromkeys(c.note for c in found.pairs if c.note))
    words = " and ".join(_TEST_DESCRIPTIONS.get(t, t) for t in tests)
    text = []
    if words:
        units = max(c.n_units for c in found.pairs)
        what = "splits" if found.design.kind == "folds" else "groups" if evidence.has_groups else "rows"
        correction = (
            f"p is corrected for all {found.family_size} pairs" if found.family_size > 1 else "p needs no correction for one pair"
        )
        text.append(
            f"Pairs are compared over {units:,} {what} by {words}; {correction}. "
            "A candidate is called ahead only where the corrected p is at most 0.05 and the interval excludes zero."
        )
    if kinds := list(dict.fromkeys(c.effect_kind for c in found.pairs if c.effect_kind)):
        text.append(f"Effect, a size without unit: {' or '.join(kinds)}.")
    if words and found.design.margin is not None:
        margin = MetricFormat.from_metric(evidence.ranking_metric).format_difference(found.design.margin)
        text.append(
            f"Practically the same: the whole interval lies within ±{margin}, a difference that the study said beforehand "
            "does not matter."
        )
    if any(c.n_left_out for c in found.pairs):
        text.append("Some pairs have splits that only one of the two has finished; those splits are left out.")
    return (*text, *(f"Nothing can be told of some pairs: {note}." for note in notes[:3]))
