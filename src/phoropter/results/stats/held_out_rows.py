"""All held-out rows of one candidate, joined over its runs, for comparisons between studies that split their data differently."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.results.intervals.bootstrap import UnitRows
from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.store import Predictions


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """rows: labels, units and runs of N rows · probabilities: (N, C) · units: (U,) names of the units, sorted.

    The unit is the group where rows have one, else the row.
    """

    rows: UnitRows
    probabilities: Floats
    units: NDArray[np.str_]

    @classmethod
    def from_predictions(cls, runs: Iterable[Predictions | None]) -> HeldOutRows:
        """Joined, run after run; runs without predictions are left out."""
        each = [p for p in runs if p is not None]
        units = np.concatenate([p.ids if p.groups is None else p.groups for p in each])
        number = np.repeat(np.arange(len(each)), [len(p.labels) for p in each])
        rows = UnitRows(np.concatenate([p.labels for p in each]), units, number)
        return cls(rows, np.concatenate([p.probabilities for p in each]), np.unique(units))

    def compute_influences(self, name: str) -> tuple[float, Floats]:
        """The metric, averaged over runs, and (U,) its derivatives by the weights of the units."""
        return self.rows.compute_influences(name, self.probabilities)


def paired_influences(name: str, a: HeldOutRows, b: HeldOutRows) -> tuple[float, float, Floats]:
    """Metric of a, metric of b, and the derivatives of a - b by the weights of all units that occur in either, by name."""
    (first, by_a), (second, by_b) = a.compute_influences(name), b.compute_influences(name)
    units = np.union1d(a.units, b.units)
    slopes = np.zeros(len(units))
    slopes[np.searchsorted(units, a.units)] += by_a
    slopes[np.searchsorted(units, b.units)] -= by_b
    return first, second, slopes
