"""Comparison of candidates: two questions of each pair, the tests that fit the protocol, and what may be concluded.

    rows      are these trained models different on new rows like these?         pairs/row_tests.py
    training  would training again on other data of this size repeat it?         pairs/training_tests.py

A candidate is `ahead` only where its adjusted p and its interval agree. Two are `practically the same` only where the complete
interval lies within a margin that was set beforehand, and `identical` where their answers are. All else is `cannot tell`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal

import numpy as np

from phoropter.core.errors import SpecError, did_you_mean
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.stats.paired_tests import NAN, ROUNDING_TOLERANCE, PairedTest, adjust_holm
from phoropter.results.stats.pairs.aligned_predictions import find_id_rows
from phoropter.results.stats.pairs.answers import Answer
from phoropter.results.stats.pairs.answers import Comparison as Comparison
from phoropter.results.stats.pairs.row_tests import compare_on_test_set, group_rank_test, unit_t_test
from phoropter.results.stats.pairs.training_tests import group_t_test, score_t_test, split_components, untested_training
from phoropter.results.stats.pairs.two_components import TwoComponents, two_component_test
from phoropter.results.stats.pairs.unit_contributions import ContributionReader, SplitKey, UnitContributions
from phoropter.results.store import Predictions


@dataclass(frozen=True)
class Design:
    """How the splits of a study relate.

    kind: `folds` share training rows · `groups` are one left-out group each · `one test set` is the same rows for every run
    test_to_train: rows tested / rows trained on, for folds: 1/(k-1) from the full split, not from an under-sampled training part
    margin: a difference of the metric that does not matter (0.01 of accuracy is one point), where one was set beforehand
    pooled: the estimand is the metric of all held-out rows of a round, not the mean over its splits
    """

    kind: Literal["folds", "groups", "one test set"]
    test_to_train: float = NAN
    margin: float | None = None
    level: float = 0.95
    seed: int = 0
    pooled: bool = False


@dataclass(frozen=True, eq=False)
class CandidateScores:
    """One candidate's results: its score on each split, and where they are known its predictions and rounds.

    predictions: may be a mapping that reads lazily; without them nothing is said about rows
    rounds: the round of each split: repeat or seed that drew its own partition; one round where it is empty
    """

    name: str
    scores: Mapping[SplitKey, float]
    predictions: Mapping[SplitKey, Predictions] = field(default_factory=dict)
    rounds: Mapping[SplitKey, Hashable] = field(default_factory=dict)


def compare_pair(a: CandidateScores, b: CandidateScores, name: str, design: Design) -> Comparison:
    """One pair, without correction for a family. Raises SpecError for an unknown metric."""
    return _Family([a, b], name, design).compare_pairs([(0, 1)])[0]


def compare_all_pairs(
    contenders: Iterable[CandidateScores],
    name: str,
    design: Design,
    pairs: Iterable[tuple[str, str]] | None = None,
    known: Mapping[str, UnitContributions] | None = None,
) -> list[Comparison]:
    """Every pair, or the named ones, as one family for each of the two questions.

    Pairs selected by their scores (the leader against each) belong to the family of all pairs: compute all and show a few.
    known: what the candidates' units contribute, by name, where it was read already by the metric and the design's estimand
    Raises SpecError for an unknown metric or name.
    """
    given = list(contenders)
    place = {t.name: i for i, t in enumerate(given)}
    if len(place) < len(given):
        raise SpecError(f"{len(given)} candidates share {len(place)} names: to compare them, give each its own")
    requested = list(combinations(place, 2) if pairs is None else pairs)
    for word in (w for pair in requested for w in pair):
        if word not in place:
            raise SpecError(f"there is no candidate '{word}' among the {len(place)} compared{did_you_mean(word, place)}")
    return _Family(given, name, design, known).compare_pairs([(place[a], place[b]) for a, b in requested])


def ensemble_predictions(members: Iterable[Predictions]) -> Predictions:
    """The mean probabilities of several runs over the rows that all have, as logits."""
    each = list(members)
    ids = each[0].ids
    for other in each[1:]:
        ids = np.intersect1d(ids, other.ids)
    rows = [find_id_rows(p, ids) for p in each]
    mean = np.mean([p.probabilities[r] for p, r in zip(each, rows, strict=True)], axis=0)
    smallest = np.finfo(np.float32).tiny
    logits = np.log(np.maximum(mean, smallest)).astype(np.float32)
    if each[0].is_multi_label:
        logits = (logits - np.log(np.maximum(1 - mean, smallest))).astype(np.float32)
    first, r = each[0], rows[0]
    groups, sites = (None if column is None else column[r] for column in (first.groups, first.sites))
    return Predictions(first.ids[r], first.labels[r], logits, groups, sites)


def correct_for_family(found: list[Comparison], size: int, design: Design) -> list[Comparison]:
    """Verdicts by Holm's correction over these pairs; where they are a part of `size` pairs, by Bonferroni over all of them."""
    corrected: dict[str, list[Answer]] = {}
    for question in ("rows", "training"):
        answers: list[Answer] = [getattr(c, question) for c in found]
        p = np.array([a.result.p for a in answers])
        adjusted = adjust_holm(p) if size == len(found) else np.minimum(p * size, 1.0)
        family = max(1, int((~np.isnan(p)).sum())) if size == len(found) else size
        corrected[question] = [
            a.with_verdict(float(q), family, c.metric, design.margin) for a, q, c in zip(answers, adjusted, found, strict=True)
        ]
    both = zip(found, corrected["rows"], corrected["training"], strict=True)
    return [replace(c, rows=rows, training=_not_surer(training, rows)) for c, rows, training in both]


def _not_surer(training: Answer, rows: Answer) -> Answer:
    """That training again repeats a lead is not said where the lead on these rows could not be told."""
    if rows.is_tested and training.verdict in ("ahead", "behind") and rows.verdict != training.verdict:
        return replace(training, verdict="cannot tell")
    return training


class _Family:
    """Candidates of one study, each read once."""

    def __init__(
        self,
        candidates: list[CandidateScores],
        name: str,
        design: Design,
        known: Mapping[str, UnitContributions] | None = None,
    ) -> None:
        self.metric, self.candidates, self.design = get_metric(name), candidates, design
        self.contributions: list[UnitContributions | None] = [None] * len(candidates)
        if design.kind == "one test set" or self.metric.unavailable:
            return
        if known is not None:
            self.contributions = [known.get(c.name) for c in candidates]
        else:
            reader = ContributionReader(name, design.pooled)
            self.contributions = [reader.read_candidate(c.predictions, c.rounds or None) for c in candidates]

    def compare_pairs(self, pairs: list[tuple[int, int]]) -> list[Comparison]:
        """All pairs, corrected as one family. One difference is held at a time: each is as long as all rows of a candidate."""
        found = []
        for i, j in pairs:
            difference = self._subtract_pair(i, j)
            found.append(self._compare_one(i, j, difference, self._split_components(difference)))
        return correct_for_family(found, len(found), self.design)

    def _subtract_pair(self, i: int, j: int) -> UnitContributions | None:
        a, b = self.contributions[i], self.contributions[j]
        difference = a.subtract_other(b) if a is not None and b is not None else None
        return difference if difference is not None and len(difference.values) else None

    def _split_components(self, difference: UnitContributions | None) -> TwoComponents | None:
        if difference is None or self.design.kind != "folds":
            return None
        return split_components(difference, self.design.test_to_train)

    def _compare_one(self, i: int, j: int, difference: UnitContributions | None, parts: TwoComponents | None) -> Comparison:
        a, b, design = self.candidates[i], self.candidates[j], self.design
        common = [k for k in a.scores if k in b.scores and not np.isnan(a.scores[k] - b.scores[k])]
        values = _differences_by_split(a, b, common) if difference is None else difference.values
        mean = float(values.mean()) if len(values) else NAN
        tests = self._run_tests(a, b, common, values, difference, parts)
        rows, training = (test.with_bounds_within(self.metric.value_range) for test in tests)
        if not np.isnan(rows.difference) and design.kind == "one test set":
            mean = rows.difference
        return Comparison(
            a.name,
            b.name,
            self.metric.name,
            mean,
            Answer("rows", rows),
            Answer("training", training),
            len(values),
            1 if difference is None else len(np.unique(difference.layout.rounds)),
            _count_left_out(a, b, common, difference),
            (difference is not None and _is_zero(difference)) or self._same_predictions(a, b, common, rows),
        )

    def _run_tests(
        self,
        a: CandidateScores,
        b: CandidateScores,
        common: list[SplitKey],
        values: Floats,
        difference: UnitContributions | None,
        parts: TwoComponents | None,
    ) -> tuple[PairedTest, PairedTest]:
        """The tests of the two questions."""
        design, mean = self.design, float(values.mean()) if len(values) else NAN
        if design.kind == "groups":
            ranked = values if difference is None else difference.unweighted_values
            of_groups = group_rank_test(values, ranked, design.level, design.seed)
            return of_groups, group_t_test(values, of_groups, design.level)
        if design.kind == "folds" and len(values) > 1:
            if parts is not None and difference is not None:
                return unit_t_test(difference, design.level), two_component_test(parts, design.level)
            reason = self.metric.unavailable or f"{len(common)} splits in common and no predictions of both"
            return PairedTest("none", mean, NAN, note=reason), score_t_test(values, design.test_to_train, design.level)
        rows = compare_on_test_set(a.predictions, b.predictions, common, self.metric.name, design.level, design.seed)
        return rows, untested_training(mean, design.level)

    def _same_predictions(self, a: CandidateScores, b: CandidateScores, common: list[SplitKey], rows: PairedTest) -> bool:
        """On one test set: whether both gave the same probabilities in every run."""
        if self.design.kind != "one test set" or not abs(rows.difference) <= ROUNDING_TOLERANCE:
            return False
        pairs = [(a.predictions[k], b.predictions[k]) for k in common if k in a.predictions and k in b.predictions]
        return bool(pairs) and all(np.array_equal(x.ids, y.ids) and np.array_equal(x.logits, y.logits) for x, y in pairs)


def _differences_by_split(a: CandidateScores, b: CandidateScores, common: list[SplitKey]) -> Floats:
    """One difference per split. Runs that differ only in the seed are averaged, because they have the same test rows."""
    each: dict[Hashable, list[float]] = {}
    for key in common:
        each.setdefault(key[0], []).append(a.scores[key] - b.scores[key])
    return np.array([np.mean(d) for d in each.values()], dtype=np.float64)


def _count_left_out(a: CandidateScores, b: CandidateScores, common: list[SplitKey], difference: UnitContributions | None) -> int:
    """Splits and seeds that are not part of the comparison."""
    either = {*a.scores, *b.scores}
    used = set(common) if difference is None else {k for k in either if k[0] in difference.layout.splits}
    return len(either - used)


def _is_zero(difference: UnitContributions) -> bool:
    """Whether neither a split nor a unit differs."""
    return bool(
        np.abs(difference.values).max(initial=0) <= ROUNDING_TOLERANCE
        and np.abs(difference.slopes).max(initial=0) <= ROUNDING_TOLERANCE
    )
