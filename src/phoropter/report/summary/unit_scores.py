"""The ranking metric by group and by site: only in those that can carry it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from phoropter.results.intervals.bootstrap import weighted_mean
from phoropter.results.metrics.by_group import score_parts
from phoropter.results.metrics.distinct_values import number_values
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Ints, LabelledProbabilities
from phoropter.results.stats.estimand import Estimand, units_can_carry

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


def score_units(
    estimand: Estimand, rows: LabelledProbabilities, units: Sequence[str], unit_of: Ints, repeats: Ints
) -> UnitScores:
    """units: (U,) names · unit_of: (N,) the number of each row's · repeats: (N,) its round"""
    metric, counts = get_metric(estimand.metric), np.bincount(unit_of, minlength=len(units))
    found: dict[int, list[tuple[float, int]]] = {}
    for number in np.unique(repeats):
        of_round = np.flatnonzero(repeats == number)
        supports = _count_by_unit(rows.select_rows(of_round), unit_of[of_round], len(units))
        sizes = np.bincount(unit_of[of_round], minlength=len(units))  # of several labels, each row has several answers
        carries = units_can_carry(estimand.metric, sizes, supports, rows.answer_counts)
        inside = of_round[carries[unit_of[of_round]]]
        if len(inside):
            shown, member = number_values(unit_of[inside])
            values = score_parts(metric, rows.select_rows(inside), member, len(shown))
            for unit, value, size in zip(shown.tolist(), values.tolist(), np.bincount(member).tolist(), strict=True):
                if np.isfinite(value):
                    found.setdefault(unit, []).append((value, size))
    in_order = sorted(np.flatnonzero(counts).tolist(), key=units.__getitem__)
    means = {units[u]: weighted_mean(*map(np.array, zip(*found[u], strict=True))) for u in in_order if u in found}
    return UnitScores(means, {units[u]: int(counts[u]) for u in in_order})


def _count_by_unit(rows: LabelledProbabilities, unit_of: Ints, count: int) -> Ints:
    """(U, C) `count_answers` of the rows of each unit; of several labels (U, 2, C)."""
    n_classes = rows.n_classes
    if rows.is_multi_label:
        supports = np.zeros((count, 2, n_classes), dtype=np.int64)
        np.add.at(supports, unit_of, np.stack([rows.labels, 1 - rows.labels], axis=1))
        return supports
    return np.bincount(unit_of * n_classes + rows.labels, minlength=count * n_classes).reshape(count, n_classes)
