"""Candidates against each other: which test this protocol asks for, every pair by it, and what may be said of the first.

The tests themselves are results/statistics.py's. All pairs are one family, for the leader was picked after a look at the scores;
the page shows the leader's pairs and the files have all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.stats import compare
from phoropter.results.stats.compare import CandidateScores, Comparison, Design, SplitKey
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


def compare_candidates(store: Store, summary: StudySummary) -> CandidateComparisons:
    """Every pair of candidates by the first metric."""
    design = infer_design(summary)
    tested = [collect_scores(store, e, design, summary.metrics[0]) for e in summary.candidates]
    names = [t.name for t in tested]
    every = len(names) * (len(names) - 1) // 2
    asked = None
    if design.kind == "one test set" and len(names) > MAX_TESTED:
        asked = [(names[0], other) for other in names[1:]]
    found = compare.compare_all_pairs(tested, summary.metrics[0], design, asked) if every else []
    if asked is not None:
        found = [_adjust_bonferroni(c, every, design) for c in found]
    return CandidateComparisons(tuple(found), tuple(c for c in found if c.a == names[0]), design, every)


def _adjust_bonferroni(found: Comparison, family: int, design: Design) -> Comparison:
    """Bonferroni over all pairs, tested or not: never smaller than Holm's over all would have been."""
    p = min(1.0, found.p * family)
    return replace(found, p_adjusted=p, verdict=found.verdict if p <= 1 - design.level else "cannot tell")


def infer_design(summary: StudySummary) -> Design:
    """Read from the runs themselves: what each was tested on, and how much it was trained on; the margin is the study's."""
    margin = None if (value := summary.study_config.get("equivalence_margin")) is None else float(value)
    lines = [line for e in summary.candidates for line in e.runs]
    sets = {line.test_rows_digest for line in lines}
    if len(sets) == 1:
        return Design("one test set", margin=margin)
    if all(line.n_groups == 1 for line in lines):
        return Design("groups", margin=margin)
    ratio = float(np.mean([line.n_test / max(1, line.n_train) for line in lines]))
    return Design("folds", ratio, margin)


def collect_scores(store: Store, candidate: CandidateResults, design: Design, metric: str) -> CandidateScores:
    """A candidate's results by this metric, as the tests take them; predictions are read when they are asked for."""
    keys: dict[SplitKey, str] = {(line.test_rows_digest, line.split[0]): line.key for line in candidate.runs}
    scores: dict[SplitKey, float] = {(line.test_rows_digest, line.split[0]): line.metrics[metric] for line in candidate.runs}
    return CandidateScores(candidate.name, scores, _LazyPredictions(store, keys) if design.kind == "one test set" else {})


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
