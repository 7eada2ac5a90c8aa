"""Candidates against each other: which test this protocol asks for, every pair by it, and what may be said of the first.

The tests themselves are results/statistics.py's. All pairs are one family, for the leader was picked after a look at the scores;
the page shows the leader's pairs and the files have all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from phoropter.report.evidence import CandidateResults, StudySummary
from phoropter.report.figures import MetricFormat
from phoropter.report.table import Column, ColumnKind, IntervalBounds, Table, TableRow
from phoropter.results import statistics
from phoropter.results.statistics import CandidateScores, Comparison, Design, SplitKey
from phoropter.results.store import Predictions, Store

MAX_TESTED = 10  # candidates of which all pairs are tested where a test must go through the predictions
MAX_SHOWN_PAIRS = 15  # all pairs stand on the page up to so many


@dataclass(frozen=True)
class CandidateComparisons:
    """pairs: all that were tested, the better one first · of_leader: the first against each other, in the order of the
    leaderboard · family: the number of pairs p is corrected for
    """

    pairs: tuple[Comparison, ...]
    leader_pairs: tuple[Comparison, ...]
    design: Design
    family_size: int


def compare_candidates(store: Store, evidence: StudySummary) -> CandidateComparisons:
    """Every pair of candidates by the first metric."""
    design = infer_design(evidence)
    tested = [collect_scores(store, e, design, evidence.metrics[0]) for e in evidence.candidates]
    names = [t.name for t in tested]
    every = len(names) * (len(names) - 1) // 2
    asked = None
    if design.kind == "one test set" and len(names) > MAX_TESTED:
        asked = [(names[0], other) for other in names[1:]]
    found = statistics.compare_all_pairs(tested, evidence.metrics[0], design, asked) if every else []
    if asked is not None:
        found = [_adjust_bonferroni(c, every, design) for c in found]
    return CandidateComparisons(tuple(found), tuple(c for c in found if c.a == names[0]), design, every)


def _adjust_bonferroni(found: Comparison, family: int, design: Design) -> Comparison:
    """Bonferroni over all pairs, tested or not: never smaller than Holm's over all would have been."""
    p = min(1.0, found.p * family)
    return replace(found, p_adjusted=p, verdict=found.verdict if p <= 1 - design.level else "cannot tell")


def infer_design(evidence: StudySummary) -> Design:
    """Read from the runs themselves: what each was tested on, and how much it was trained on; the margin is the study's."""
    margin = None if (asked := evidence.study_config.get("margin")) is None else float(asked)
    lines = [line for e in evidence.candidates for line in e.runs]
    sets = {line.test_rows_digest for line in lines}
    if len(sets) == 1:
        return Design("one test set", margin=margin)
    if all(line.n_groups == 1 for line in lines):
        return Design("groups", margin=margin)
    ratio = float(np.mean([line.n_test / max(1, line.n_train) for line in lines]))
    return Design("folds", ratio, margin)


def collect_scores(store: Store, entrant: CandidateResults, design: Design, metric: str) -> CandidateScores:
    """A candidate's results by this metric, as the tests take them; predictions are read when they are asked for."""
    keys: dict[SplitKey, str] = {(line.test_rows_digest, line.split[0]): line.key for line in entrant.runs}
    scores: dict[SplitKey, float] = {(line.test_rows_digest, line.split[0]): line.metrics[metric] for line in entrant.runs}
    return CandidateScores(entrant.name, scores, _LazyPredictions(store, keys) if design.kind == "one test set" else {})


class _LazyPredictions(Mapping[SplitKey, Predictions]):
    """Predictions by split, from their files; the last one is kept, for it is asked for once a pair."""

    def __init__(self, store: Store, keys: Mapping[SplitKey, str]) -> None:
        self._keys = keys
        self._read = lru_cache(maxsize=1)(lambda key: store.run(key).load_predictions())

    def __getitem__(self, split: SplitKey) -> Predictions:
        said = self._read(self._keys[split])
        if said is None:
            raise KeyError(split)
        return said

    def __iter__(self) -> Iterator[SplitKey]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


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
