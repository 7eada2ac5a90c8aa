"""Comparisons between the candidates of a study, with the test that suits its protocol.

The tests are those of results/stats/compare.py, which asks two questions of each pair. p values are corrected for all pairs, also
where the page shows only those of the leader, because the leader was selected by its score.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from phoropter.report.summary.candidate_reader import tested_rows
from phoropter.report.summary.guessing import find_uninformed
from phoropter.report.summary.model import CandidateResults, RunSummary, StudySummary
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats import compare
from phoropter.results.stats.compare import CandidateScores, Design
from phoropter.results.stats.pairs.answers import Comparison
from phoropter.results.stats.pairs.unit_contributions import ContributionReader, SplitKey, UnitContributions
from phoropter.results.store import Predictions, Store

MAX_TESTED = 10  # candidates up to which all pairs are tested, where a test must read predictions
MAX_SHOWN_PAIRS = 15  # pairs up to which the page shows all of them
KnownRows = dict[Hashable, tuple[NDArray[np.str_], NDArray[np.str_] | None]]  # name of the test rows → their ids and groups


@dataclass(frozen=True)
class CandidateComparisons:
    """pairs: all that were tested, the better candidate first · leader_pairs: the leader with each other candidate, in the order
    of the leaderboard · family_size: number of pairs that p is corrected for
    """

    pairs: tuple[Comparison, ...]
    leader_pairs: tuple[Comparison, ...]
    design: Design
    family_size: int


class SharedContributions:
    """What the units of each candidate contribute, read once for each metric and estimand, however many questions ask for it.

    known: by the ranking metric and its estimand, where they were read with the candidates' own figures
    """

    def __init__(self, store: Store, summary: StudySummary, known: Mapping[str, UnitContributions] | None = None) -> None:
        self.store, self.summary = store, summary
        self._read: dict[tuple[str, bool], dict[str, UnitContributions]] = {}
        self._known_rows: KnownRows = {}
        if known is not None:
            estimand = summary.estimands[summary.metrics[0]]
            self._read[estimand.metric, estimand.kind == "pooled"] = {
                c.name: known[c.name] for c in summary.candidates if c.name in known
            }

    def read_all(self, metric: str, pooled: bool) -> dict[str, UnitContributions]:
        """Candidate → contributions, without those that have none. pooled: whether the estimand is that of all rows of a round"""
        if METRICS[metric].unavailable:
            return {}
        if (metric, pooled) not in self._read:
            reader, found = ContributionReader(metric, pooled), {}
            for candidate in self.summary.candidates:
                scores = collect_scores(self.store, candidate, metric, self._known_rows)
                read = reader.read_candidate(scores.predictions, scores.rounds or None)
                if read is not None:
                    found[candidate.name] = read
            self._read[metric, pooled] = found
        return self._read[metric, pooled]


def compare_candidates(store: Store, summary: StudySummary, shared: SharedContributions | None = None) -> CandidateComparisons:
    """Tests every pair of candidates by the ranking metric. Of two that are no better than guessing, none is ahead.

    shared: where what is read for the pairs is kept for other questions
    """
    design = infer_design(summary)
    tested = [collect_scores(store, e, summary.metrics[0]) for e in summary.candidates]
    names = [t.name for t in tested]
    every = len(names) * (len(names) - 1) // 2
    selected = None
    if design.kind == "one test set" and len(names) > MAX_TESTED:
        ended = next((e.name for e in summary.candidates if not e.not_converged), names[0])  # who leads the top group
        selected = [pair for pair in combinations(names, 2) if {names[0], ended} & set(pair)]
    found: list[Comparison] = []
    if every:
        known = None if shared is None else shared.read_all(summary.metrics[0], design.pooled)
        found = compare.compare_all_pairs(tested, summary.metrics[0], design, selected, known)
    if selected is not None:
        found = compare.correct_for_family(found, every, design)
    guessing = {c.name for c in find_uninformed(summary, design)}
    found = [c.withdraw_lead() if c.a in guessing else c for c in found]
    return CandidateComparisons(tuple(found), tuple(c for c in found if c.a == names[0]), design, every)


def infer_design(summary: StudySummary) -> Design:
    """The design, from the runs' test sets and numbers of training rows; the margin is that of the study."""
    margin = None if (value := summary.study_config.get("equivalence_margin")) is None else float(value)
    lines = [line for e in summary.candidates for line in e.runs]
    sets = {line.test_rows_digest for line in lines}
    if len(sets) == 1:
        return Design("one test set", margin=margin)
    pooled = summary.estimands[summary.metrics[0]].kind == "pooled"
    if all(line.n_groups == 1 for line in lines):
        return Design("groups", margin=margin, pooled=pooled)
    ratio = float(np.mean([line.n_test / max(1, line.n_train) for line in lines]))
    return Design("folds", ratio, margin, pooled=pooled)


def collect_scores(
    store: Store, candidate: CandidateResults, metric: str, known_rows: KnownRows | None = None
) -> CandidateScores:
    """A candidate's results by this metric as input of the tests; predictions are read lazily, once for all pairs.

    known_rows: where the names of rows are kept for other candidates on the same ones
    """
    named: dict[SplitKey, RunSummary] = {tested_rows(line): line for line in candidate.runs}
    keys = {split: line.key for split, line in named.items()}
    scores = {split: line.metrics[metric] for split, line in named.items()}
    rounds: dict[SplitKey, Hashable] = {split: line.split[:2] for split, line in named.items()}
    return CandidateScores(candidate.name, scores, _LazyPredictions(store, keys, known_rows), rounds)


class _LazyPredictions(Mapping[SplitKey, Predictions]):
    """Ids, groups, labels and logits by split, from their files; the last ones are cached, because every pair reads them again.

    Names of rows are read once for all runs on the same ones: they are most of a file.
    """

    def __init__(self, store: Store, keys: Mapping[SplitKey, str], known_rows: KnownRows | None) -> None:
        self._store, self._keys, self._known_rows = store, keys, known_rows
        self._read = lru_cache(maxsize=1)(self._load)

    def _load(self, split: SplitKey) -> Predictions | None:
        run = self._store.run(self._keys[split])
        if self._known_rows is None or split[0] not in self._known_rows:
            found = run.load_predictions()
            if found is not None and self._known_rows is not None:
                self._known_rows[split[0]] = found.ids, found.groups
            return found
        (ids, groups), answers = self._known_rows[split[0]], run.load_answers()
        return None if answers is None else Predictions(ids, *answers, groups)

    def __getitem__(self, split: SplitKey) -> Predictions:
        predictions = self._read(split)
        if predictions is None:
            raise KeyError(split)
        return predictions

    def __iter__(self) -> Iterator[SplitKey]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
