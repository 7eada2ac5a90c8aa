"""The calibration error of a candidate, from all held-out rows of a round: with its bias taken away, and its interval.

The plain error of Guo et al. 2017 is the mean absolute difference between confidence and accuracy over bins. It is too high: a
bin of n rows differs by about 1/√n also where the candidate is perfectly calibrated (Kumar et al. 2019, Roelofs et al. 2022), so
that 120 rows show 0.08 and folds of 12 rows 0.2. Here the differences S_b of the bins are shrunk by one factor λ, such that

    Σ_b E|N(λ S_b, V_b)| = Σ_b |S_b|        V_b: variance of S_b over the units whose rows lie in the bin

that is, the shrunk differences with their noise would show the plain error on average. λ Σ|S_b| / N is the error without bias, 0
where noise alone shows as much. The interval holds every λ under which the plain error lies within its normal (Student's) range.
docs/statistics.md has bias and coverage. Left out: signs of the bins by leaving units out, whose interval covered 60 to 90 %.

Slope and intercept of two classes: the logistic regression of the label on the log-odds of the prediction (Cox 1958), 1 and 0
where the probabilities are right; a slope below 1 means that they are too extreme.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.results.intervals.interval_rules import MIN_UNITS, student_quantile
from phoropter.results.metrics.distinct_values import number_values
from phoropter.results.metrics.sufficient_sums import N_BINS, Floats, Ints, assign_bins
from phoropter.results.stats.held_out_rows import HeldOutRows

MAX_FACTOR = 64.0  # of the differences of the bins, for the upper bound
_STEPS, _TOLERANCE = 50, 1e-10  # of Newton's method
_SMALLEST = 1e-12  # probability, so that log-odds are finite
MAX_SLOPE = 1e3  # above, the classes are separated and there is no slope


@dataclass(frozen=True, eq=False)
class CalibrationEstimate:
    """Mean over rounds, each pooled over its rows.

    error: the plain error over N_BINS equal bins · debiased, low, high: without its bias, and its 95 % interval; the bounds are
    NaN under three units · bins: (N_BINS, 3) rows, summed confidence and summed hits of all rounds, the points of the curve
    """

    error: float
    debiased: float
    low: float
    high: float
    bins: Floats


def estimate_calibration_error(rows: HeldOutRows, column: int | None = None, level: float = 0.95) -> CalibrationEstimate:
    """column: of the class whose probability is judged; default: of the most likely class, whether it is right.

    Of several labels a row, the default is the probabilities of all labels together, one answer each.
    """
    if rows.labels.ndim == 2 and column is None:
        n_labels = rows.labels.shape[1]
        units, repeats = np.repeat(rows.unit_names, n_labels), np.repeat(rows.repeats, n_labels)
        return summarize_bins(rows.probabilities.ravel(), rows.labels.ravel() == 1, units, repeats, level)
    if column is None:
        confidence, hit = rows.labelled.confidence, rows.labelled.predicted_labels == rows.labels
    else:
        confidence, hit = rows.probabilities[:, column], rows.labels == column
    return summarize_bins(confidence, hit, rows.unit_names, rows.repeats, level)


def summarize_bins(
    confidence: Floats, hit: NDArray[np.bool_], unit_names: NDArray[Any], repeats: Ints, level: float = 0.95
) -> CalibrationEstimate:
    """As `estimate_calibration_error`, of confidences (N,) and whether the judged class is the true one (N,)."""
    bins = assign_bins(confidence, N_BINS)
    sums = [np.bincount(bins, w, minlength=N_BINS) for w in (np.ones(len(hit)), confidence, hit.astype(np.float64))]
    names, unit = number_values(unit_names)
    round_, n_units = number_values(repeats)[1], len(names)
    noisy = _NoisyBins.from_gaps(confidence - hit, round_ * N_BINS + bins, unit, int(round_.max(initial=0)) + 1)
    low = high = float("nan")
    if n_units >= MIN_UNITS:
        quantile = student_quantile(level, n_units - 1)
        low, high = noisy.error_at(quantile), min(1.0, noisy.error_at(-quantile))
    return CalibrationEstimate(noisy.error, noisy.error_at(0.0), low, high, np.stack(sums, axis=1))


@dataclass(frozen=True, eq=False)
class _NoisyBins:
    """differences: (K,) |S_b| of the bins of all rounds · deviations: (K,) their standard deviations · n_rows: of all rounds ·
    n_rounds: their number; rounds test the same rows, so they make the error no surer · inflation: of its variance, because
    units have rows in several bins"""

    differences: Floats
    deviations: Floats
    n_rows: int
    n_rounds: int
    inflation: float

    @classmethod
    def from_gaps(cls, gap: Floats, cell: Ints, unit: Ints, n_rounds: int) -> _NoisyBins:
        """gap: (N,) confidence minus hit · cell: (N,) bin and round · unit: (N,)"""
        n_units = int(unit.max(initial=-1)) + 1
        pair, own = number_values(cell * n_units + unit)
        of_unit, cell_of_pair = np.bincount(own, gap), pair // n_units
        factor = n_units / max(n_units - 1, 1)
        total = np.bincount(cell_of_pair, of_unit)
        variances = np.bincount(cell_of_pair, np.square(of_unit)) * factor
        signed = np.bincount(pair % n_units, np.sign(total)[cell_of_pair] * of_unit, minlength=n_units)
        shared = float(np.square(signed).sum()) * factor / max(variances.sum() * n_rounds, _SMALLEST)
        return cls(np.abs(total), np.sqrt(variances), len(gap), n_rounds, max(1.0, shared))

    @property
    def error(self) -> float:
        return float(self.differences.sum()) / self.n_rows

    def error_at(self, quantile: float) -> float:
        """The error whose noisy version lies `quantile` standard deviations below the plain error; 0 where 0 lies above it."""
        if self._excess(0.0, quantile) >= 0:
            return 0.0
        low, high = 0.0, 1.0
        while self._excess(high, quantile) < 0 and high < MAX_FACTOR:
            low, high = high, 2 * high
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._excess(middle, quantile) < 0 else (low, middle)
        return high * self.error

    def _excess(self, factor: float, quantile: float) -> float:
        """Mean of the noisy error at this factor, plus `quantile` deviations, minus the plain error; summed over rows."""
        from scipy.special import ndtr

        shift, spread = factor * self.differences, np.maximum(self.deviations, _SMALLEST)
        z = shift / spread
        mean = spread * np.sqrt(2 / np.pi) * np.exp(-np.square(z) / 2) + shift * (1 - 2 * ndtr(-z))
        variance = np.maximum(np.square(shift) + np.square(spread) - np.square(mean), 0).sum()
        deviation = np.sqrt(variance * self.inflation * self.n_rounds)
        return float(mean.sum() + quantile * deviation - self.differences.sum())


def fit_calibration_line(rows: HeldOutRows, column: int = 1) -> tuple[float, float]:
    """(slope, intercept) of the logistic regression of `label is column` on its predicted log-odds, over all rows.

    NaN where the rows hold one class only, predictions do not differ, or classes are separated.
    """
    design, y = log_odds_design(rows, column), (rows.labels == column).astype(np.float64)
    nothing = (float("nan"), float("nan"))
    if y.min(initial=1) == y.max(initial=0) or np.ptp(design[:, 0]) < _TOLERANCE:
        return nothing
    weights = np.zeros(2)  # where curvature is largest: from a slope of 1, saturated probabilities have none
    for _ in range(_STEPS):
        fitted = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        curvature = (design * (fitted * (1 - fitted))[:, None]).T @ design
        if np.linalg.det(curvature) <= 0:
            return nothing
        step = np.linalg.solve(curvature, design.T @ (y - fitted))
        weights = weights + step / max(1.0, float(np.abs(step).max()) / 2)  # short steps where the start is far away
        if np.abs(weights[0]) > MAX_SLOPE:
            return nothing
        if np.abs(step).max() < _TOLERANCE:
            return float(weights[0]), float(weights[1])
    return nothing


def log_odds_design(rows: HeldOutRows, column: int) -> Floats:
    """(N, 2) the predicted log-odds of the class of a column, and ones."""
    p = np.clip(rows.probabilities[:, column], _SMALLEST, 1 - _SMALLEST)
    return np.stack([np.log(p / (1 - p)), np.ones(len(p))], axis=1)
