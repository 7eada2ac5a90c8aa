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

from phoropter.core.errors import StoreError, did_you_mean
from phoropter.core.seeds import named_generator
from phoropter.results.metrics.registry import get_metric, metric_names, register_stored_metric
from phoropter.results.stats.bootstrap import MIN_UNITS, RESAMPLES, ConfidenceInterval, UnitRows
from phoropter.results.store import Run, Store

Floats = NDArray[np.float64]
_MAX_CELLS = 20_000_000  # of draws at once
_DEFAULT_METRICS = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class ProtocolGap:
    """One candidate by one metric: the mean over splits under either protocol, lax - strict, and the interval of that gap."""

    candidate: str
    metric: str
    within_group: float
    group_held_out: float
    difference: float
    interval: ConfidenceInterval


def compute_protocol_gaps(
    lax: Store,
    strict: Store,
    metrics: Sequence[str] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> list[ProtocolGap]:
    """A row for each candidate both have, and each metric (those of the strict study unless named), in the strict study's order.

    The unit is the group; of data without groups, the sample. Raises StoreError when the two studies have no candidate in common
    or are one and the same, SpecError for an unknown metric.
    """
    _refuse_shared_runs(lax, strict)
    for described in (*lax.study.get("custom_metrics", ()), *strict.study.get("custom_metrics", ())):
        register_stored_metric(described)
    names = metrics or metric_names(strict.study["study"].get("metrics", _DEFAULT_METRICS))
    for name in names:
        get_metric(name)
    loose, tight = _runs_by_candidate(lax), _runs_by_candidate(strict)
    common = [name for name in tight if name in loose]
    if not common:
        hint = did_you_mean(next(iter(tight), ""), loose)
        raise StoreError(f"{lax.folder} and {strict.folder} have no finished candidate in common{hint}; run both to the end")
    rows: list[ProtocolGap] = []
    for candidate in common:
        a, b = _HeldOutRows.from_runs(loose[candidate]), _HeldOutRows.from_runs(tight[candidate])
        for name in names:
            rows.append(_compute_gap(candidate, name, a, b, (seed, resamples, level)))
    return rows


@dataclass(frozen=True, eq=False)
class _HeldOutRows:
    """All held-out rows of one candidate: labels (N,), probabilities (N, C), the unit and the run of each row."""

    labels: NDArray[np.int64]
    probabilities: Floats
    units: NDArray[np.str_]
    runs: NDArray[np.int64]

    @classmethod
    def from_runs(cls, runs: Iterable[Run]) -> _HeldOutRows:
        """Joined, run after run."""
        said = [p for run in runs if (p := run.load_predictions()) is not None]
        return cls(
            np.concatenate([p.labels for p in said]),
            np.concatenate([p.probabilities for p in said]),
            np.concatenate([p.ids if p.groups is None else p.groups for p in said]),
            np.repeat(np.arange(len(said), dtype=np.int64), [len(p.labels) for p in said]),
        )

    def compute_influences(self, name: str, units: NDArray[np.str_]) -> tuple[float, Floats]:
        """The metric, averaged over runs, and (U,) its derivatives by the weight of each of the named units."""
        estimate, mine = UnitRows(self.labels, self.units, self.runs).compute_influences(name, self.probabilities)
        slopes = np.zeros(len(units))
        slopes[np.searchsorted(units, np.unique(self.units))] = mine
        return estimate, slopes


def _compute_gap(candidate: str, name: str, lax: _HeldOutRows, strict: _HeldOutRows, how: tuple[int, int, float]) -> ProtocolGap:
    seed, resamples, level = how
    units = np.unique(np.concatenate([lax.units, strict.units]))
    loose, loose_slopes = lax.compute_influences(name, units)
    tight, tight_slopes = strict.compute_influences(name, units)
    slopes, difference = loose_slopes - tight_slopes, loose - tight
    low = high = float("nan")
    method = f"paired first-order bootstrap of {len(units)} units"
    if len(units) < MIN_UNITS:
        method = f"no interval: {len(units)} independent units, at least {MIN_UNITS} are needed"
    elif not np.isnan(difference):
        values = difference + _resample_slopes(slopes, seed, resamples)
        low, high = (float(bound) for bound in np.quantile(values, [(1 - level) / 2, (1 + level) / 2]))
    return ProtocolGap(
        candidate, name, loose, tight, difference, ConfidenceInterval(difference, low, high, level, method, len(units))
    )


def _resample_slopes(slopes: Floats, seed: int, resamples: int) -> Floats:
    """(B,) Σ_u (times drawn_u - 1) slope_u."""
    count = len(slopes)
    random = named_generator(seed, "gap")
    width = max(1, _MAX_CELLS // count)
    sums = []
    for start in range(0, resamples, width):
        drawn = random.integers(0, count, (min(width, resamples - start), count))
        sums.append(slopes[drawn].sum(axis=1) - slopes.sum())
    return np.concatenate(sums)


def _runs_by_candidate(store: Store) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in store.runs():
        found.setdefault(run.candidate_name, []).append(run)
    return found


def _refuse_shared_runs(lax: Store, strict: Store) -> None:
    """Without groups the two protocols are one, and a gap of 0 would be no finding."""
    keys: list[set[Any]] = [{row["key"] for row in store.study["plan"]} for store in (lax, strict)]
    if keys[0] & keys[1]:
        raise StoreError(
            f"{lax.folder} and {strict.folder} hold the same runs: there is no gap between them; the lax study needs "
            "allow_group_overlap: true, and the data need groups"
        )
