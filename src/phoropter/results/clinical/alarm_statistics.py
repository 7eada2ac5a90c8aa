"""What alarms are worth: sensitivity, specificity, predictive values, likelihood ratios and alarms per 100, with intervals.

A likelihood ratio's interval is on the log scale: of independent rows the one of Simel, Samsa & Matchar 1991, over units that of
their influences with Student's t. Predictive values at another prevalence are functions of the likelihood ratios (Bayes), and so
are their bounds. Where a ratio is 0 or infinite, or all rows are alarmed or none, its bounds come from those of the two shares,
which is wider than needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phoropter.results.intervals.bootstrap import UnitRows
from phoropter.results.intervals.interval_rules import MIN_UNITS, ConfidenceInterval, choose_interval, student_quantile
from phoropter.results.metrics.registry import METRICS
from phoropter.results.metrics.sufficient_sums import Floats, Ints

Booleans = NDArray[np.bool_]
NO_VALUE = float("nan")
LEVEL = 0.95


class Estimate(NamedTuple):
    """A value with the bounds of its 95 % interval; NaN where unknown."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class AlarmStatistics:
    """n_positive, n_negative: rows, over all rounds · alarms: share of all rows that are alarmed; see the head of the module"""

    n_positive: int
    n_negative: int
    sensitivity: ConfidenceInterval
    specificity: ConfidenceInterval
    ppv: ConfidenceInterval
    npv: ConfidenceInterval
    alarms: ConfidenceInterval
    positive_ratio: Estimate
    negative_ratio: Estimate

    @classmethod
    def from_alarms(
        cls, positive: Booleans, alarms: Booleans, unit_names: NDArray[Any], repeats: Ints | None = None
    ) -> AlarmStatistics:
        """All (N,): the truth, the alarm, the independent unit and the round of each row (None: one round)."""

        def share(hits: Booleans, of: Booleans) -> ConfidenceInterval:
            return share_interval(hits[of], unit_names[of], None if repeats is None else repeats[of])

        sensitivity, specificity = share(alarms, positive), share(~alarms, ~positive)
        ratios = _LogRatios.from_alarms(positive, alarms, unit_names, repeats)
        return cls(
            int(positive.sum()),
            int((~positive).sum()),
            sensitivity,
            specificity,
            share(positive, alarms),
            share(~positive, ~alarms),
            share(alarms, np.ones(len(alarms), dtype=bool)),
            ratios.positive_ratio(sensitivity, specificity),
            ratios.negative_ratio(sensitivity, specificity),
        )

    def ppv_at(self, prevalence: float) -> Estimate:
        """The positive predictive value where the positive class has this share."""
        odds = prevalence / (1 - prevalence)
        return Estimate(*(_odds_to_share(odds * ratio) for ratio in self.positive_ratio))

    def npv_at(self, prevalence: float) -> Estimate:
        """The negative predictive value where the positive class has this share."""
        odds, ratio = prevalence / (1 - prevalence), self.negative_ratio
        return Estimate(*(1 - _odds_to_share(odds * r) for r in (ratio.value, ratio.high, ratio.low)))


def share_interval(hits: Booleans, unit_names: NDArray[Any], repeats: Ints | None = None) -> ConfidenceInterval:
    """The share of hits (N,) with the 95 % interval of accuracy, for rows of these units (N,) and rounds (N,)."""
    if not len(hits):
        return ConfidenceInterval(NO_VALUE, NO_VALUE, NO_VALUE, LEVEL, "no interval: there are no such rows", 0)
    rounds = None if repeats is None or (repeats == repeats[0]).all() else repeats
    rows = UnitRows(np.ones(len(hits), dtype=np.int64), unit_names, rounds, weigh_rows=True)
    value, slopes = rows.compute_influences("accuracy", np.stack([~hits, hits], axis=1).astype(np.float64))
    design = replace(rows.design, standard_error=rows.standard_error(slopes), df=rows.count - 1)
    return choose_interval(METRICS["accuracy"], value, np.zeros(0), design, LEVEL)


@dataclass(frozen=True, eq=False)
class _LogRatios:
    """counts: (2, 2) rows by [positive, alarmed] · of_units: (U, 2, 2) the same in each unit · single: each unit is one row"""

    counts: Floats
    of_units: Floats
    single: bool

    @classmethod
    def from_alarms(cls, positive: Booleans, alarms: Booleans, unit_names: NDArray[Any], repeats: Ints | None) -> _LogRatios:
        units, member = np.unique(unit_names, return_inverse=True)
        cell = member * 4 + 2 * positive + alarms
        of_units = np.bincount(cell, minlength=4 * len(units)).reshape(-1, 2, 2).astype(np.float64)
        n_rounds = 1 if repeats is None else len(np.unique(repeats))
        single = bool((of_units.sum(axis=(1, 2)) <= n_rounds).all())
        return cls(of_units.sum(axis=0), of_units, single)

    def positive_ratio(self, sensitivity: ConfidenceInterval, specificity: ConfidenceInterval) -> Estimate:
        value = _divide(sensitivity.estimate, 1 - specificity.estimate)
        outer = _divide(sensitivity.low, 1 - specificity.low), _divide(sensitivity.high, 1 - specificity.high)
        return self._estimate_ratio(value, 1, outer)

    def negative_ratio(self, sensitivity: ConfidenceInterval, specificity: ConfidenceInterval) -> Estimate:
        value = _divide(1 - sensitivity.estimate, specificity.estimate)
        outer = _divide(1 - sensitivity.high, specificity.high), _divide(1 - sensitivity.low, specificity.low)
        return self._estimate_ratio(value, 0, outer)

    def _estimate_ratio(self, value: float, alarmed: int, outer: tuple[float, float]) -> Estimate:
        """The ratio of the shares of positive and negative rows with this answer. outer: bounds where it has no half-width"""
        if np.isnan(value) or len(self.of_units) < MIN_UNITS:
            return Estimate(value, NO_VALUE, NO_VALUE)
        if value == 0 or not np.isfinite(value) or (half := self._half_width(alarmed)) == 0:
            return Estimate(value, *outer)  # half is 0 where all rows are answered alike, which says nothing about other rows
        factor = float(np.exp(half))
        return Estimate(value, value / factor, value * factor)

    def _half_width(self, alarmed: int) -> float:
        """Of the 95 % interval of the logarithm."""
        totals, hits = self.counts.sum(axis=1), self.counts[:, alarmed]
        shares = hits / totals
        # d log(share₁ / share₀) by the weight of each unit, (U,)
        of_class = (self.of_units[:, :, alarmed] - shares * self.of_units.sum(axis=2)) / hits
        slopes = of_class[:, 1] - of_class[:, 0]
        if self.single:  # rows of several rounds count once
            return student_quantile(LEVEL, np.inf) * float(np.sqrt(np.square(slopes).sum()))
        units = len(slopes)
        return student_quantile(LEVEL, units - 1) * float(np.sqrt(np.square(slopes).sum() * units / (units - 1)))


def _divide(a: float, b: float) -> float:
    """a / b; infinite where only b is 0, NaN where both are."""
    return a / b if b != 0 else NO_VALUE if a == 0 or np.isnan(a) else float("inf")


def _odds_to_share(odds: float) -> float:
    return 1.0 if odds == float("inf") else odds / (1 + odds)
