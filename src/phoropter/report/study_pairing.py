"""Pairs two studies: which of their results can be compared, and how.

    protocols   the same rows, with groups shared by training and test sets in one study and held out in the other: the gap of
                results/stats/optimism.py
    splits      all splits of the two have the same test rows and seeds: the tests of a single study apply
    rows        the same rows in different splits, or a part of them: the contribution of each unit, paired where both have it
    unpaired    no common rows: two independent samples, whose difference is partly that between the rows
    classes     other classes: two problems beside each other, and no difference between them

Rows are the same if their id and label agree. `rows` and `unpaired` use first-order influences of the units and
Student's t. They cover the variation between units but not that between trainings, so their intervals are rather too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import StoreError
from phoropter.report.render.wording import list_names
from phoropter.report.summary import compare
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.guessing import find_uninformed
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.intervals.interval_rules import MIN_UNITS
from phoropter.results.metrics.registry import METRICS
from phoropter.results.positive_class import open_results
from phoropter.results.stats import compare as stats_compare
from phoropter.results.stats.estimand import choose_common_estimand, paired_influences
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.stats.optimism import ProtocolGap, compute_protocol_gaps
from phoropter.results.stats.paired_tests import adjust_holm
from phoropter.results.stats.pairs.answers import Verdict
from phoropter.results.store import Store

ComparisonBasis = Literal["protocols", "splits", "rows", "unpaired", "classes"]
Floats = NDArray[np.float64]
N_BEST = 3  # candidates of each study that are compared where the two have no name in common
CONFIDENCE_LEVEL = 0.95
_ROUNDING = 1e-12  # derivatives below this are rounding


@dataclass(frozen=True, eq=False)
class StudySide:
    """One of the two studies, with the label that tells it from the other."""

    store: Store
    summary: StudySummary
    label: str

    @cached_property
    def labels_by_id(self) -> dict[str, int]:
        """Id → label of every held-out row of the first candidate."""
        labels: dict[str, int] = {}
        for line in self.summary.candidates[0].runs:
            predictions = self.store.run(line.key).load_predictions()
            if predictions is not None:
                labels.update(zip(map(str, predictions.ids), map(int, predictions.labels), strict=True))
        return labels

    @property
    def allows_group_overlap(self) -> bool:
        """Whether its training and test sets may share groups."""
        return self.summary.has_groups and bool(self.summary.protocol_config.get("allow_group_overlap"))

    def find_candidate(self, name: str) -> CandidateResults:
        return next(e for e in self.summary.candidates if e.name == name)

    @cached_property
    def _uninformed(self) -> set[str]:
        return {c.name for c in find_uninformed(self.summary, compare.infer_design(self.summary))}

    def beats_guessing(self, name: str, metric: str) -> bool | None:
        """Whether it is clearly better than a predictor without information; None where its study cannot say, by this metric."""
        candidate = self.find_candidate(name)
        if self.summary.metrics[0] != metric or candidate.replicates is None or candidate.no_information is None:
            return None
        return name not in self._uninformed

    def run_keys(self, name: str) -> set[str]:
        return {line.key for line in self.find_candidate(name).runs}


@dataclass(frozen=True)
class CrossStudyComparison:
    """A candidate of the first study minus one of the second.

    p_adjusted: by Holm's method over all pairs · beats_guessing: of the better one, as its own study finds; None where unknown.
    Where it does not, nobody is ahead, as inside a study.
    """

    a: str
    b: str
    value_a: float
    value_b: float
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    n_units: int
    verdict: Verdict
    beats_guessing: bool | None = None


@dataclass(frozen=True, eq=False)
class StudyPair:
    """The two studies and the basis of their comparison.

    n_common_rows:     rows that both tested · n_total_rows: rows that either tested
    shared_candidates: candidates whose runs are in both studies, and so equal
    gaps:              of the basis `protocols`: shared minus held-out groups, for every metric
    pairs:             of the other bases, by the ranking metric of the first study
    """

    a: StudySide
    b: StudySide
    basis: ComparisonBasis
    metric: str
    n_common_rows: int
    n_total_rows: int
    shared_candidates: tuple[str, ...]
    gaps: tuple[ProtocolGap, ...] = ()
    pairs: tuple[CrossStudyComparison, ...] = ()

    @property
    def within_group(self) -> StudySide:
        return self.a if self.a.allows_group_overlap else self.b

    @property
    def group_held_out(self) -> StudySide:
        return self.b if self.a.allows_group_overlap else self.a


def pair_studies(first: Path | str, second: Path | str) -> StudyPair:
    """Two results folders → what can be said of the two; classes are matched by name, whatever their order and the positive one.

    Raises StoreError where a folder has no finished run, or both are the same folder.
    """
    stated = [(Store(folder).study.get("dataset") or {}).get("positive") for folder in (first, second)]
    positive = stated[0] or stated[1]  # one positive class for both
    store = open_results(first, positive)
    order = (store.study.get("dataset") or {}).get("classes") or ()
    stores = store, open_results(second, positive, order)
    if stores[0].folder.resolve() == stores[1].folder.resolve():
        raise StoreError(f"{first} and {second} are the same results folder: name two different ones")
    summaries = [collect_summary(store) for store in stores]
    a, b = (StudySide(s, e, label) for s, e, label in zip(stores, summaries, _study_labels(stores), strict=True))
    if a.summary.classes != b.summary.classes:
        return StudyPair(a, b, "classes", a.summary.metrics[0], 0, len(a.labels_by_id) + len(b.labels_by_id), ())
    names = [e.name for e in a.summary.candidates if e.name in {o.name for o in b.summary.candidates}]
    same = tuple(n for n in names if a.run_keys(n) & b.run_keys(n))
    common = sum(b.labels_by_id.get(name) == label for name, label in a.labels_by_id.items())
    pair = StudyPair(a, b, "unpaired", a.summary.metrics[0], common, len({**a.labels_by_id, **b.labels_by_id}), same)
    if common and a.allows_group_overlap != b.allows_group_overlap and names and not same:
        within, held_out = (a, b) if a.allows_group_overlap else (b, a)
        metrics = [m for m in dict.fromkeys((pair.metric, *b.summary.metrics)) if m in METRICS]
        return replace(pair, basis="protocols", gaps=tuple(compute_protocol_gaps(within.store, held_out.store, metrics)))
    wanted = _select_pairs(a, b, [n for n in names if n not in same], same)
    if not wanted:
        return replace(pair, basis="splits" if same else "unpaired")
    return _compare_pairs(pair, wanted)


def describe_other_classes(studies: StudyPair) -> str:
    """Which classes each of two studies has alone."""
    both = ((studies.a, studies.b), (studies.b, studies.a))
    alone = ((one.label, set(one.summary.classes) - set(other.summary.classes), other.label) for one, other in both)
    return "; ".join(f"{a} has {list_names(sorted(names))}, which {b} has not" for a, names, b in alone if names)


def _study_labels(stores: tuple[Store, Store]) -> tuple[str, str]:
    """The names of the studies, or of their folders where the names are equal."""
    names = tuple(str(s.study.get("name", s.folder.name)) for s in stores)
    if names[0] != names[1]:
        return names[0], names[1]
    folders = stores[0].folder.name, stores[1].folder.name
    return folders if folders[0] != folders[1] else (str(stores[0].folder), str(stores[1].folder))


def _select_pairs(a: StudySide, b: StudySide, names: Sequence[str], same: Sequence[str]) -> list[tuple[str, str]]:
    """Candidates of the same name and the two leaders, or the first N_BEST of each. same: candidates with shared runs."""
    own = [[e.name for e in s.summary.candidates if e.name not in same] for s in (a, b)]
    if names:
        first = (own[0][0], own[1][0])
        pairs = [(n, n) for n in names]
        return pairs if first in pairs else [first, *pairs]
    if not any(own):
        return []
    best_a, best_b = (o[:N_BEST] or [s.summary.candidates[0].name] for o, s in zip(own, (a, b), strict=True))
    return list(product(best_a, best_b))


def _compare_pairs(studies: StudyPair, wanted: list[tuple[str, str]]) -> StudyPair:
    a, b = studies.a, studies.b
    if all(_split_keys(a.find_candidate(x)) == _split_keys(b.find_candidate(y)) for x, y in wanted):
        basis: ComparisonBasis = "splits"
        pairs = [_compare_by_split(studies, x, y) for x, y in wanted]
    else:
        units = _unit_names(a) & _unit_names(b)
        basis = "rows" if len(units) >= MIN_UNITS and studies.n_common_rows else "unpaired"
        rows_of = {(s.label, n): _held_out_rows(s, n) for s, n in {*((a, x) for x, _ in wanted), *((b, y) for _, y in wanted)}}
        pairs = [
            _compare_by_unit(studies.metric, rows_of[a.label, x], rows_of[b.label, y], basis == "rows", (x, y)) for x, y in wanted
        ]
    adjusted = adjust_holm([p.p for p in pairs])
    return replace(
        studies,
        basis=basis,
        pairs=tuple(_assign_verdict(p, float(q), studies) for p, q in zip(pairs, adjusted, strict=True)),
    )


def _assign_verdict(pair: CrossStudyComparison, p: float, studies: StudyPair) -> CrossStudyComparison:
    """A verdict only where p and the interval support it and the better one beats guessing; that of identical answers stays."""
    verdict, sign = pair.verdict, 1 if METRICS[studies.metric].higher_is_better else -1
    side, name = (studies.a, pair.a) if sign * pair.difference > 0 else (studies.b, pair.b)
    beats = side.beats_guessing(name, studies.metric)
    if p <= 1 - CONFIDENCE_LEVEL and (pair.low > 0 or pair.high < 0) and beats is not False:
        verdict = "ahead" if sign * pair.difference > 0 else "behind"
    return replace(pair, p_adjusted=p, verdict=verdict, beats_guessing=beats)


def _split_keys(candidate: CandidateResults) -> set[tuple[str, tuple[int, int]]]:
    """The test rows of each run, with its seed and repeat."""
    return {(line.test_rows_digest, line.split[:2]) for line in candidate.runs}


def _unit_names(side: StudySide) -> set[str]:
    """Groups where rows have them, else row ids."""
    first = side.summary.candidates[0]
    return set(first.group_scores.row_counts) if first.group_scores.row_counts else set(side.labels_by_id)


def _compare_by_split(studies: StudyPair, x: str, y: str) -> CrossStudyComparison:
    rows = _held_out_rows(studies.a, x), _held_out_rows(studies.b, y)
    estimand = choose_common_estimand(studies.metric, rows[0].split_supports, rows[1].split_supports, same_splits=True)
    design = replace(compare.infer_design(studies.a.summary), pooled=estimand.kind == "pooled")
    one = compare.collect_scores(studies.a.store, studies.a.find_candidate(x), studies.metric)
    two = compare.collect_scores(studies.b.store, studies.b.find_candidate(y), studies.metric)
    c = stats_compare.compare_pair(replace(one, name="a"), replace(two, name="b"), studies.metric, design)
    first, second = (estimand.compute_value(r) for r in rows)
    if METRICS[studies.metric].unavailable:  # only what the runs recorded is known
        first, second = (s.find_candidate(n).metric_mean(studies.metric) for s, n in ((studies.a, x), (studies.b, y)))
    verdict: Verdict = "identical" if c.identical else "cannot tell"
    return CrossStudyComparison(x, y, first, second, c.difference, c.low, c.high, c.p, c.p, c.n_units, verdict)


def _same_or_undecided(difference: float, slopes: Floats) -> Verdict:
    """Of answers that differ for no unit, that they are identical."""
    return "identical" if difference == 0 and len(slopes) and np.abs(slopes).max() <= _ROUNDING else "cannot tell"


def _held_out_rows(side: StudySide, name: str) -> HeldOutRows:
    return HeldOutRows.from_runs(side.store.run(line.key) for line in side.find_candidate(name).runs)


def _compare_by_unit(metric: str, a: HeldOutRows, b: HeldOutRows, paired: bool, names: tuple[str, str]) -> CrossStudyComparison:
    from scipy.special import stdtr, stdtrit

    estimand = choose_common_estimand(metric, a.split_supports, b.split_supports)
    if paired:
        first, second, slopes = paired_influences(estimand, a, b)
        count = len(slopes)
    else:
        (first, by_a), (second, by_b) = estimand.compute_influences(a), estimand.compute_influences(b)
        slopes = np.concatenate([by_a, -by_b])
        count = min(len(by_a), len(by_b))
    difference, error = first - second, float(np.sqrt(np.square(slopes).sum()))
    if count < MIN_UNITS or np.isnan(difference) or not error > _ROUNDING:
        nothing, verdict = float("nan"), _same_or_undecided(difference, slopes)
        return CrossStudyComparison(*names, first, second, difference, nothing, nothing, nothing, nothing, count, verdict)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE_LEVEL) / 2)) * error
    p = min(1.0, 2 * float(stdtr(count - 1, -abs(difference / error))))
    return CrossStudyComparison(
        *names, first, second, difference, difference - half, difference + half, p, p, count, "cannot tell"
    )
