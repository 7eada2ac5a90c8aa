"""Two studies against each other: what of them can be compared, and how surely.

    protocols   one dataset, groups on both sides in one study and kept apart in the other: the gap of results/gap.py
    splits      every split of the two was tested on the same rows with the same seed: the tests of one study serve
    rows        the same rows, dealt otherwise or in part: each unit's share of the difference, paired where it is in both
    unpaired    no rows in common: the difference of two independent samples, which is in part that of the rows themselves

Rows are the same where id and label agree. `rows` and `unpaired` are first-order (results/bootstrap.py), between Student's
bounds; they know the chance of the units and not that of another training, so they are rather too sure than not sure enough.
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
from phoropter.report.summary import compare
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats import compare as stats_compare
from phoropter.results.stats.bootstrap import MIN_UNITS
from phoropter.results.stats.compare import Verdict
from phoropter.results.stats.held_out_rows import HeldOutRows, paired_influences
from phoropter.results.stats.optimism import ProtocolGap, compute_protocol_gaps
from phoropter.results.stats.paired_tests import adjust_holm
from phoropter.results.store import Store

ComparisonBasis = Literal["protocols", "splits", "rows", "unpaired"]
Floats = NDArray[np.float64]
N_BEST = 3  # candidates of each study that are compared where the two have no name in common
CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class StudySide:
    """One of the two studies, and what it is called beside the other."""

    store: Store
    summary: StudySummary
    label: str

    @cached_property
    def labels_by_id(self) -> dict[str, int]:
        """Id → label of every held-out row of the first candidate."""
        found: dict[str, int] = {}
        for line in self.summary.candidates[0].runs:
            said = self.store.run(line.key).load_predictions()
            if said is not None:
                found.update(zip(map(str, said.ids), map(int, said.labels), strict=True))
        return found

    @property
    def allows_group_overlap(self) -> bool:
        """Whether groups may stand on both sides of its splits."""
        return self.summary.has_groups and bool(self.summary.protocol_config.get("allow_group_overlap"))

    def find_candidate(self, name: str) -> CandidateResults:
        return next(e for e in self.summary.candidates if e.name == name)

    def run_keys(self, name: str) -> set[str]:
        return {line.key for line in self.find_candidate(name).runs}


@dataclass(frozen=True)
class CrossStudyComparison:
    """A candidate of the first study minus one of the second: values, difference, interval, p alone and after Holm."""

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


@dataclass(frozen=True, eq=False)
class StudyPair:
    """The two studies and what their comparison rests on.

    common, of: rows that both tested, of all rows either did · same_runs: candidates whose runs are shared, hence equal ·
    gaps: of `protocols`, lax minus strict, every metric · pairs: of the other bases, the first metric
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
    """Raises StoreError where one folder has no finished run, where both are one study, or where their classes differ."""
    stores = Store(first), Store(second)
    if stores[0].folder.resolve() == stores[1].folder.resolve():
        raise StoreError(f"{first} and {second} are one results folder; name two")
    summary = [collect_summary(store) for store in stores]
    if summary[0].classes != summary[1].classes:
        classes = " and ".join(f"{s.folder} has {len(e.classes)}" for s, e in zip(stores, summary, strict=True))
        raise StoreError(f"the two studies tell different classes apart, so nothing of them can be compared: {classes}")
    a, b = (StudySide(s, e, label) for s, e, label in zip(stores, summary, _study_labels(stores), strict=True))
    names = [e.name for e in a.summary.candidates if e.name in {o.name for o in b.summary.candidates}]
    same = tuple(n for n in names if a.run_keys(n) & b.run_keys(n))
    common = sum(b.labels_by_id.get(name) == label for name, label in a.labels_by_id.items())
    found = StudyPair(a, b, "unpaired", a.summary.metrics[0], common, len({**a.labels_by_id, **b.labels_by_id}), same)
    if common and a.allows_group_overlap != b.allows_group_overlap and names and not same:
        lax, strict = (a, b) if a.allows_group_overlap else (b, a)
        asked = [m for m in dict.fromkeys((found.metric, *b.summary.metrics)) if m in METRICS]
        return replace(found, basis="protocols", gaps=tuple(compute_protocol_gaps(lax.store, strict.store, asked)))
    wanted = _select_pairs(a, b, [n for n in names if n not in same], same)
    if not wanted:
        return replace(found, basis="splits" if same else "unpaired")
    return _compare_pairs(found, wanted)


def _study_labels(stores: tuple[Store, Store]) -> tuple[str, str]:
    """Names of the studies; of the same name, their folders."""
    names = tuple(str(s.study.get("name", s.folder.name)) for s in stores)
    if names[0] != names[1]:
        return names[0], names[1]
    folders = stores[0].folder.name, stores[1].folder.name
    return folders if folders[0] != folders[1] else (str(stores[0].folder), str(stores[1].folder))


def _select_pairs(a: StudySide, b: StudySide, names: Sequence[str], same: Sequence[str]) -> list[tuple[str, str]]:
    """Candidates of the same name, and the two first; the first few of each where no name is in both. same: shared runs."""
    own = [[e.name for e in s.summary.candidates if e.name not in same] for s in (a, b)]
    if names:
        first = (own[0][0], own[1][0])
        pairs = [(n, n) for n in names]
        return pairs if first in pairs else [first, *pairs]
    if not any(own):
        return []
    ours, theirs = (o[:N_BEST] or [s.summary.candidates[0].name] for o, s in zip(own, (a, b), strict=True))
    return list(product(ours, theirs))


def _compare_pairs(found: StudyPair, wanted: list[tuple[str, str]]) -> StudyPair:
    a, b = found.a, found.b
    if all(_split_keys(a.find_candidate(x)) == _split_keys(b.find_candidate(y)) for x, y in wanted):
        basis: ComparisonBasis = "splits"
        pairs = [_compare_by_split(found, x, y) for x, y in wanted]
    else:
        units = _unit_names(a) & _unit_names(b)
        basis = "rows" if len(units) >= MIN_UNITS and found.n_common_rows else "unpaired"
        sheets = {(s.label, n): _held_out_rows(s, n) for s, n in {*((a, x) for x, _ in wanted), *((b, y) for _, y in wanted)}}
        pairs = [
            _compare_by_unit(found.metric, sheets[a.label, x], sheets[b.label, y], basis == "rows", (x, y)) for x, y in wanted
        ]
    adjusted = adjust_holm([p.p for p in pairs])
    return replace(
        found, basis=basis, pairs=tuple(_assign_verdict(p, float(q), found.metric) for p, q in zip(pairs, adjusted, strict=True))
    )


def _assign_verdict(pair: CrossStudyComparison, p: float, metric: str) -> CrossStudyComparison:
    """Never stronger than p and interval together."""
    verdict: Verdict = "cannot tell"
    if p <= 1 - CONFIDENCE_LEVEL and (pair.low > 0 or pair.high < 0):
        verdict = "ahead" if (pair.low > 0) == METRICS[metric].higher_is_better else "behind"
    return replace(pair, p_adjusted=p, verdict=verdict)


def _split_keys(candidate: CandidateResults) -> set[tuple[str, int]]:
    return {(line.test_rows_digest, line.split[0]) for line in candidate.runs}


def _unit_names(side: StudySide) -> set[str]:
    """Groups where rows have them, else rows."""
    first = side.summary.candidates[0]
    return set(first.group_accuracy.row_counts) if first.group_accuracy.row_counts else set(side.labels_by_id)


def _compare_by_split(found: StudyPair, x: str, y: str) -> CrossStudyComparison:
    design = compare.infer_design(found.a.summary)
    one = compare.collect_scores(found.a.store, found.a.find_candidate(x), design, found.metric)
    two = compare.collect_scores(found.b.store, found.b.find_candidate(y), design, found.metric)
    c = stats_compare.compare_pair(replace(one, name="a"), replace(two, name="b"), found.metric, design)
    values = (found.a.find_candidate(x).metric_mean(found.metric), found.b.find_candidate(y).metric_mean(found.metric))
    return CrossStudyComparison(x, y, *values, c.difference, c.low, c.high, c.p, c.p, c.n_units, "cannot tell")


def _held_out_rows(side: StudySide, name: str) -> HeldOutRows:
    return HeldOutRows.from_predictions(side.store.run(line.key).load_predictions() for line in side.find_candidate(name).runs)


def _compare_by_unit(metric: str, a: HeldOutRows, b: HeldOutRows, paired: bool, names: tuple[str, str]) -> CrossStudyComparison:
    from scipy.special import stdtr, stdtrit

    if paired:
        first, second, slopes = paired_influences(metric, a, b)
        count = len(slopes)
    else:
        (first, by_a), (second, by_b) = a.compute_influences(metric), b.compute_influences(metric)
        slopes = np.concatenate([by_a, -by_b])
        count = min(len(by_a), len(by_b))
    difference, error = first - second, float(np.sqrt(np.square(slopes).sum()))
    if count < MIN_UNITS or np.isnan(difference) or not error > 0:
        nothing = float("nan")
        return CrossStudyComparison(*names, first, second, difference, nothing, nothing, nothing, nothing, count, "cannot tell")
    half = float(stdtrit(count - 1, (1 + CONFIDENCE_LEVEL) / 2)) * error
    p = min(1.0, 2 * float(stdtr(count - 1, -abs(difference / error))))
    return CrossStudyComparison(
        *names, first, second, difference, difference - half, difference + half, p, p, count, "cannot tell"
    )
