"""A metric in subgroups (sex, age, device), each with its interval, and whether subgroups differ more than by chance.

The interaction test exchanges the subgroups of independent units (people), among those whose rows have the same classes: that one
class is more common in a subgroup does not count. Its statistic is the variance of the metric between subgroups, weighted by
rows; p is (1 + permutations with as much or more) / (1 + all) (Phipson & Smyth 2010). Where rows of one unit are in several
subgroups there is no such exchange, and no test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator
from phoropter.results.intervals.bootstrap import Bootstrap
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities
from phoropter.results.stats.held_out_rows import HeldOutRows

PERMUTATIONS = 499


@dataclass(frozen=True)
class SubgroupResult:
    """n_rows, n_units: once each, whatever the rounds · supports: rows of each class · interval: of the metric"""

    n_rows: int
    n_units: int
    supports: tuple[int, ...]
    interval: ConfidenceInterval


@dataclass(frozen=True)
class SubgroupResults:
    """results: subgroup → its result, by name · p: of the interaction; NaN where it cannot be tested"""

    results: Mapping[str, SubgroupResult]
    p: float


def measure_subgroups(name: str, rows: HeldOutRows, members: NDArray[Any]) -> SubgroupResults:
    """A metric in the subgroups of the rows (N,), pooled in each round, and their interaction."""
    found, n_rounds = {}, len(np.unique(rows.repeats))
    for subgroup in sorted(np.unique(members).tolist(), key=_place_to_read):
        here = members == subgroup
        labels, units = rows.labels[here], rows.unit_names[here]
        parts = None if n_rounds == 1 else rows.repeats[here]
        replicates = Bootstrap(labels, units, parts, weigh_rows=True).compute_replicates(name, rows.probabilities[here])
        supports = np.bincount(labels, minlength=rows.probabilities.shape[1]) / n_rounds
        counts = tuple(np.rint(supports).astype(int).tolist())
        found[subgroup] = SubgroupResult(
            round(int(here.sum()) / n_rounds), len(np.unique(units)), counts, replicates.confidence_interval()
        )
    return SubgroupResults(found, interaction_p(name, rows, members))


def _place_to_read(subgroup: str) -> tuple[bool, float, str]:
    """Numbers and ranges of them by size (`under 30`, `30 to under 50`, `50 and over`), then words by letter."""
    first, _, rest = subgroup.partition(" ")
    below = first == "under"
    try:
        number = float(rest if below else first)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        return True, 0.0, subgroup
    return False, np.nextafter(number, -np.inf) if below else number, subgroup


def interaction_p(name: str, rows: HeldOutRows, members: NDArray[Any]) -> float:
    """p that subgroups differ by chance; NaN where units are in several, or fewer than two can carry the metric."""
    _, unit = np.unique(rows.unit_names, return_inverse=True)
    subgroups, member = np.unique(members, return_inverse=True)
    of_unit = np.zeros(unit.max(initial=-1) + 1, dtype=np.int64)
    of_unit[unit] = member
    if (of_unit[unit] != member).any() or len(subgroups) < 2:
        return float("nan")
    observed = _spread_between(name, rows, member, len(subgroups))
    if np.isnan(observed):
        return float("nan")
    strata, draw = _unit_strata(rows.labels, unit, rows.probabilities.shape[1]), named_generator(0, "subgroups", name)
    as_much = 0
    for _ in range(PERMUTATIONS):
        shuffled = of_unit.copy()
        for stratum in strata:
            shuffled[stratum] = of_unit[draw.permutation(stratum)]
        spread = _spread_between(name, rows, shuffled[unit], len(subgroups))
        as_much += bool(np.isnan(spread) or spread >= observed - 1e-12)
    return (1 + as_much) / (1 + PERMUTATIONS)


def _unit_strata(labels: Ints, unit: Ints, n_classes: int) -> list[Ints]:
    """The units that have rows of the same classes."""
    has = np.zeros((int(unit.max(initial=-1)) + 1, n_classes), dtype=bool)
    has[unit, labels] = True
    kinds = np.unique(has, axis=0, return_inverse=True)[1].ravel()
    return [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]


def _spread_between(name: str, rows: HeldOutRows, member: Ints, count: int) -> float:
    """Weighted variance of the metric between subgroups that define it; NaN of fewer than two."""
    metric = get_metric(name)
    values, weights = np.full(count, np.nan), np.bincount(member, minlength=count).astype(np.float64)
    for k in range(count):
        here = member == k
        if here.any():
            values[k] = metric.compute_value(LabelledProbabilities(rows.labels[here], rows.probabilities[here]))
    return _weighted_variance(values, weights)


def _weighted_variance(values: Floats, weights: Floats) -> float:
    known = ~np.isnan(values)
    if known.sum() < 2:
        return float("nan")
    v, w = values[known], weights[known] / weights[known].sum()
    return float((w * np.square(v - (w * v).sum())).sum())
