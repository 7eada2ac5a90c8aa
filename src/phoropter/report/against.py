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
from phoropter.report import comparisons
from phoropter.report.evidence import Entrant, Evidence
from phoropter.report.reading import gather
from phoropter.results import statistics
from phoropter.results.bootstrap import LEAST_UNITS
from phoropter.results.comparisons import holm
from phoropter.results.gap import Gap, gap
from phoropter.results.metrics import METRICS
from phoropter.results.statistics import Rows, Verdict
from phoropter.results.store import Store

Basis = Literal["protocols", "splits", "rows", "unpaired"]
Floats = NDArray[np.float64]
BEST = 3  # candidates of each study that are compared where the two have no name in common
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two studies, and what it is called beside the other."""

    store: Store
    evidence: Evidence
    label: str

    @cached_property
    def rows(self) -> dict[str, int]:
        """Id → label of every held-out row of the first candidate."""
        found: dict[str, int] = {}
        for line in self.evidence.entrants[0].runs:
            said = self.store.run(line.key).predictions()
            if said is not None:
                found.update(zip(map(str, said.ids), map(int, said.labels), strict=True))
        return found

    @property
    def overlaps(self) -> bool:
        """Whether groups may stand on both sides of its splits."""
        return self.evidence.grouped and bool(self.evidence.protocol.get("allow_group_overlap"))

    def named(self, name: str) -> Entrant:
        return next(e for e in self.evidence.entrants if e.name == name)

    def keys(self, name: str) -> set[str]:
        return {line.key for line in self.named(name).runs}


@dataclass(frozen=True)
class Against:
    """A candidate of the first study minus one of the second: values, difference, interval, p alone and after Holm."""

    a: str
    b: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    units: int
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class Pairing:
    """The two studies and what their comparison rests on.

    common, of: rows that both tested, of all rows either did · same_runs: candidates whose runs are shared, hence equal ·
    gaps: of `protocols`, lax minus strict, every metric · pairs: of the other bases, the first metric
    """

    a: Side
    b: Side
    basis: Basis
    metric: str
    common: int
    of: int
    same_runs: tuple[str, ...]
    gaps: tuple[Gap, ...] = ()
    pairs: tuple[Against, ...] = ()

    @property
    def lax(self) -> Side:
        return self.a if self.a.overlaps else self.b

    @property
    def strict(self) -> Side:
        return self.b if self.a.overlaps else self.a


def pairing(first: Path | str, second: Path | str) -> Pairing:
    """Raises StoreError where one folder has no finished run, where both are one study, or where their classes differ."""
    stores = Store(first), Store(second)
    if stores[0].folder.resolve() == stores[1].folder.resolve():
        raise StoreError(f"{first} and {second} are one results folder; name two")
    evidence = [gather(store) for store in stores]
    if evidence[0].classes != evidence[1].classes:
        classes = " and ".join(f"{s.folder} has {len(e.classes)}" for s, e in zip(stores, evidence, strict=True))
        raise StoreError(f"the two studies tell different classes apart, so nothing of them can be compared: {classes}")
    a, b = (Side(s, e, label) for s, e, label in zip(stores, evidence, _labels(stores), strict=True))
    names = [e.name for e in a.evidence.entrants if e.name in {o.name for o in b.evidence.entrants}]
    same = tuple(n for n in names if a.keys(n) & b.keys(n))
    common = sum(b.rows.get(name) == label for name, label in a.rows.items())
    found = Pairing(a, b, "unpaired", a.evidence.metrics[0], common, len({**a.rows, **b.rows}), same)
    if common and a.overlaps != b.overlaps and names and not same:
        lax, strict = (a, b) if a.overlaps else (b, a)
        asked = [m for m in dict.fromkeys((found.metric, *b.evidence.metrics)) if m in METRICS]
        return replace(found, basis="protocols", gaps=tuple(gap(lax.store, strict.store, asked)))
    wanted = _wanted(a, b, [n for n in names if n not in same], same)
    if not wanted:
        return replace(found, basis="splits" if same else "unpaired")
    return _tested(found, wanted)


def _labels(stores: tuple[Store, Store]) -> tuple[str, str]:
    """Names of the studies; of the same name, their folders."""
    names = tuple(str(s.study.get("name", s.folder.name)) for s in stores)
    if names[0] != names[1]:
        return names[0], names[1]
    folders = stores[0].folder.name, stores[1].folder.name
    return folders if folders[0] != folders[1] else (str(stores[0].folder), str(stores[1].folder))


def _wanted(a: Side, b: Side, names: Sequence[str], same: Sequence[str]) -> list[tuple[str, str]]:
    """Candidates of the same name, and the two first; the first few of each where no name is in both. same: shared runs."""
    own = [[e.name for e in s.evidence.entrants if e.name not in same] for s in (a, b)]
    if names:
        first = (own[0][0], own[1][0])
        pairs = [(n, n) for n in names]
        return pairs if first in pairs else [first, *pairs]
    if not any(own):
        return []
    ours, theirs = (o[:BEST] or [s.evidence.entrants[0].name] for o, s in zip(own, (a, b), strict=True))
    return list(product(ours, theirs))


def _tested(found: Pairing, wanted: list[tuple[str, str]]) -> Pairing:
    a, b = found.a, found.b
    if all(_splits(a.named(x)) == _splits(b.named(y)) for x, y in wanted):
        basis: Basis = "splits"
        pairs = [_by_splits(found, x, y) for x, y in wanted]
    else:
        units = _units(a) & _units(b)
        basis = "rows" if len(units) >= LEAST_UNITS and found.common else "unpaired"
        sheets = {(s.label, n): _Sheet.of(s, n) for s, n in {*((a, x) for x, _ in wanted), *((b, y) for _, y in wanted)}}
        pairs = [_by_units(found.metric, sheets[a.label, x], sheets[b.label, y], basis == "rows", (x, y)) for x, y in wanted]
    adjusted = holm([p.p for p in pairs])
    return replace(
        found, basis=basis, pairs=tuple(_judged(p, float(q), found.metric) for p, q in zip(pairs, adjusted, strict=True))
    )


def _judged(pair: Against, p: float, metric: str) -> Against:
    """Never stronger than p and interval together."""
    verdict: Verdict = "cannot tell"
    if p <= 1 - LEVEL and (pair.low > 0 or pair.high < 0):
        verdict = "ahead" if (pair.low > 0) == METRICS[metric].higher_is_better else "behind"
    return replace(pair, p_adjusted=p, verdict=verdict)


def _splits(entrant: Entrant) -> set[tuple[str, int]]:
    return {(line.rows, line.split[0]) for line in entrant.runs}


def _units(side: Side) -> set[str]:
    """Groups where rows have them, else rows."""
    first = side.evidence.entrants[0]
    return set(first.groups.rows) if first.groups.rows else set(side.rows)


def _by_splits(found: Pairing, x: str, y: str) -> Against:
    design = comparisons.design_of(found.a.evidence)
    one = comparisons.contender(found.a.store, found.a.named(x), design, found.metric)
    two = comparisons.contender(found.b.store, found.b.named(y), design, found.metric)
    c = statistics.compare(replace(one, name="a"), replace(two, name="b"), found.metric, design)
    values = (found.a.named(x).mean(found.metric), found.b.named(y).mean(found.metric))
    return Against(x, y, *values, c.difference, c.low, c.high, c.p, c.p, c.n_units, "cannot tell")


@dataclass(frozen=True, eq=False)
class _Sheet:
    """All held-out rows of one candidate: the metric, and (U,) its slopes by the weight of each of the units (U,), sorted."""

    rows: Rows
    probabilities: Floats
    units: NDArray[np.str_]

    @classmethod
    def of(cls, side: Side, name: str) -> _Sheet:
        said = [p for line in side.named(name).runs if (p := side.store.run(line.key).predictions()) is not None]
        units = np.concatenate([p.ids if p.groups is None else p.groups for p in said])
        runs = np.repeat(np.arange(len(said)), [len(p.labels) for p in said])
        labels = np.concatenate([p.labels for p in said])
        return cls(Rows(labels, units, runs), np.concatenate([p.probabilities for p in said]), np.unique(units))


def _by_units(metric: str, a: _Sheet, b: _Sheet, paired: bool, names: tuple[str, str]) -> Against:
    from scipy.special import stdtr, stdtrit

    (first, ours), (second, theirs) = a.rows.influences(metric, a.probabilities), b.rows.influences(metric, b.probabilities)
    if paired:
        units = np.union1d(a.units, b.units)
        slopes = np.zeros(len(units))
        slopes[np.searchsorted(units, a.units)] += ours
        slopes[np.searchsorted(units, b.units)] -= theirs
        count = len(units)
    else:
        slopes = np.concatenate([ours, -theirs])
        count = min(len(ours), len(theirs))
    difference, error = first - second, float(np.sqrt(np.square(slopes).sum()))
    if count < LEAST_UNITS or np.isnan(difference) or not error > 0:
        nothing = float("nan")
        return Against(*names, first, second, difference, nothing, nothing, nothing, nothing, count, "cannot tell")
    half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * error
    p = min(1.0, 2 * float(stdtr(count - 1, -abs(difference / error))))
    return Against(*names, first, second, difference, difference - half, difference + half, p, p, count, "cannot tell")
