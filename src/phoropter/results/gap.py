"""What a laxer protocol would have claimed: the same candidates with groups on both sides and with groups kept apart.

Both studies test the same people, so the interval of the gap is that of one draw of people, used for both: to first order (the
infinitesimal jackknife, Efron 1982, ch. 6), each group drawn with all its rows of both studies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import StoreError, nearest
from phoropter.core.seeds import generator
from phoropter.results.bootstrap import LEAST_UNITS, RESAMPLES
from phoropter.results.metrics import metric
from phoropter.results.statistics import Interval, Rows
from phoropter.results.store import Run, Store

Floats = NDArray[np.float64]
_CELLS = 20_000_000  # of draws at once
_DEFAULT = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Gap:
    """One candidate by one metric: the mean over splits under either protocol, lax - strict, and the interval of that gap."""

    candidate: str
    metric: str
    lax: float
    strict: float
    gap: float
    interval: Interval


def gap(
    lax: Store,
    strict: Store,
    metrics: Sequence[str] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> list[Gap]:
    """A row for each candidate both have, and each metric (those of the strict study unless named), in the strict study's order.

    The unit is the group; of data without groups, the sample. Raises StoreError when the two studies have no candidate in common
    or are one and the same, SpecError for an unknown metric.
    """
    _refuse_same(lax, strict)
    names = metrics or strict.study["study"].get("metrics", _DEFAULT)
    for name in names:
        metric(name)
    loose, tight = _by_candidate(lax), _by_candidate(strict)
    common = [name for name in tight if name in loose]
    if not common:
        hint = nearest(next(iter(tight), ""), loose)
        raise StoreError(f"{lax.folder} and {strict.folder} have no finished candidate in common{hint}; run both to the end")
    rows: list[Gap] = []
    for candidate in common:
        a, b = _Sheet.of(loose[candidate]), _Sheet.of(tight[candidate])
        for name in names:
            rows.append(_gap(candidate, name, a, b, (seed, resamples, level)))
    return rows


@dataclass(frozen=True, eq=False)
class _Sheet:
    """All held-out rows of one candidate: labels (N,), probabilities (N, C), the unit and the run of each row."""

    labels: NDArray[np.int64]
    probabilities: Floats
    units: NDArray[np.str_]
    runs: NDArray[np.int64]

    @classmethod
    def of(cls, runs: Iterable[Run]) -> _Sheet:
        """Joined, run after run."""
        said = [p for run in runs if (p := run.predictions()) is not None]
        return cls(
            np.concatenate([p.labels for p in said]),
            np.concatenate([p.probabilities for p in said]),
            np.concatenate([p.ids if p.groups is None else p.groups for p in said]),
            np.repeat(np.arange(len(said), dtype=np.int64), [len(p.labels) for p in said]),
        )

    def slopes(self, name: str, units: NDArray[np.str_]) -> tuple[float, Floats]:
        """The metric, averaged over runs, and (U,) its derivatives by the weight of each of the named units."""
        estimate, mine = Rows(self.labels, self.units, self.runs).influences(name, self.probabilities)
        slopes = np.zeros(len(units))
        slopes[np.searchsorted(units, np.unique(self.units))] = mine
        return estimate, slopes


def _gap(candidate: str, name: str, lax: _Sheet, strict: _Sheet, how: tuple[int, int, float]) -> Gap:
    seed, resamples, level = how
    units = np.unique(np.concatenate([lax.units, strict.units]))
    loose, loose_slopes = lax.slopes(name, units)
    tight, tight_slopes = strict.slopes(name, units)
    slopes, difference = loose_slopes - tight_slopes, loose - tight
    low = high = float("nan")
    method = f"paired first-order bootstrap of {len(units)} units"
    if len(units) < LEAST_UNITS:
        method = f"no interval: {len(units)} independent units, at least {LEAST_UNITS} are needed"
    elif not np.isnan(difference):
        values = difference + _drawn(slopes, seed, resamples)
        low, high = (float(bound) for bound in np.quantile(values, [(1 - level) / 2, (1 + level) / 2]))
    return Gap(candidate, name, loose, tight, difference, Interval(difference, low, high, level, method, len(units)))


def _drawn(slopes: Floats, seed: int, resamples: int) -> Floats:
    """(B,) Σ_u (times drawn_u - 1) slope_u."""
    count = len(slopes)
    random = generator(seed, "gap")
    width = max(1, _CELLS // count)
    sums = []
    for start in range(0, resamples, width):
        drawn = random.integers(0, count, (min(width, resamples - start), count))
        sums.append(slopes[drawn].sum(axis=1) - slopes.sum())
    return np.concatenate(sums)


def _by_candidate(store: Store) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in store.runs():
        found.setdefault(run.candidate, []).append(run)
    return found


def _refuse_same(lax: Store, strict: Store) -> None:
    """Without groups the two protocols are one, and a gap of 0 would be no finding."""
    keys: list[set[Any]] = [{row["key"] for row in store.study["plan"]} for store in (lax, strict)]
    if keys[0] & keys[1]:
        raise StoreError(
            f"{lax.folder} and {strict.folder} hold the same runs: there is no gap between them; the lax study needs "
            "allow_group_overlap: true, and the data need groups"
        )
