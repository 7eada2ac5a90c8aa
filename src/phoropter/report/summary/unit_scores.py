"""The ranking metric by group and by site: only in those that can carry it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.results.intervals.bootstrap import weighted_mean
from phoropter.results.metrics.by_group import score_by_group
from phoropter.results.metrics.sufficient_sums import Floats, Ints, count_answers
from phoropter.results.stats.estimand import Estimand, unit_can_carry

MIN_SHARE = 0.5  # of the units that must carry a metric, for it to be shown by unit: else those shown are a selection


@dataclass(frozen=True, eq=False)
class UnitScores:
    """values: unit → the metric of its rows, pooled in each round, for the units that can carry it (estimand.py) ·
    row_counts: unit → predictions, of all units"""

    values: dict[str, float] = field(default_factory=dict)
    row_counts: dict[str, int] = field(default_factory=dict)

    def value_of(self, name: str) -> float:
        """NaN where the unit cannot carry the metric, or has no rows."""
        return self.values.get(name, float("nan"))

    @property
    def n_left_out(self) -> int:
        """Units that cannot carry the metric."""
        return len(self.row_counts) - len(self.values)

    @property
    def is_shown(self) -> bool:
        """Whether two units or more, and at least half of all, can carry the metric."""
        return len(self.values) > 1 and len(self.values) >= MIN_SHARE * len(self.row_counts)


def score_units(estimand: Estimand, labels: Ints, probabilities: Floats, names: NDArray[Any], repeats: Ints) -> UnitScores:
    """labels (N,), probabilities (N, C), names (N,) of the unit of each row, repeats (N,) its round."""
    every = count_answers(labels, probabilities.shape[1])
    unique, counts = np.unique(names, return_counts=True)
    row_counts = dict(zip(map(str, unique), counts.tolist(), strict=True))
    found: dict[str, list[tuple[float, int]]] = {}
    for number in np.unique(repeats):
        rows = np.flatnonzero(repeats == number)
        rows = rows[np.isin(names[rows], _carrying_units(estimand.metric, labels[rows], names[rows], every))]
        for score in score_by_group(estimand.metric, labels[rows], probabilities[rows], names[rows]) if len(rows) else ():
            if np.isfinite(score.value):
                found.setdefault(score.group, []).append((score.value, score.n_rows))
    means = {unit: weighted_mean(np.array([v for v, _ in each]), np.array([n for _, n in each])) for unit, each in found.items()}
    return UnitScores(dict(sorted(means.items())), row_counts)


def _carrying_units(metric: str, labels: Ints, names: NDArray[Any], every: Ints) -> NDArray[Any]:
    unique, member = np.unique(names, return_inverse=True)
    if labels.ndim == 2:
        supports = np.zeros((len(unique), len(every)), dtype=np.int64)
        np.add.at(supports, member, np.concatenate([labels, 1 - labels], axis=1))
    else:
        pairs = member * len(every) + labels
        supports = np.bincount(pairs, minlength=len(unique) * len(every)).reshape(len(unique), len(every))
    return unique[[unit_can_carry(metric, support, every) for support in supports]]
