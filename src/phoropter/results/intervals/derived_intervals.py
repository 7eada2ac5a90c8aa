"""Intervals of figures that somebody else published, derived from what is printed with them; two independent figures compared.

    share of n right answers            Wilson (1927)
    ROC-AUC of m positives, n negatives the standard error of Hanley and McNeil (1982), on the logit scale
    mean ± std over runs of k folds     the corrected variance of Nadeau and Bengio (2003), Student's t

A printed figure is also rounded: half a unit of its last digit is added on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phoropter.results.intervals.interval_rules import logit_bounds, normal_quantile, student_quantile, wilson_bounds

LEVEL = 0.95
_MOST_ROUNDING = 0.005  # a figure is printed with two digits at least: 0.9 may have been 0.90


@dataclass(frozen=True)
class DerivedInterval:
    """Bounds of a published figure. method: what they were derived from and how"""

    low: float
    high: float
    method: str


def derive_share_interval(share: float, rows: int) -> DerivedInterval:
    """Of a share of right answers among `rows` independent rows."""
    return _round_out(share, *wilson_bounds(share, rows, normal_quantile(LEVEL)), f"Wilson's interval of {rows:,} tested rows")


def derive_auc_interval(auc: float, positives: int, negatives: int) -> DerivedInterval:
    """Of a ROC-AUC between 0 and 1, both excluded."""
    both_positive, both_negative = auc / (2 - auc), 2 * auc**2 / (1 + auc)  # Hanley and McNeil's Q1 and Q2
    variance = auc * (1 - auc) + (positives - 1) * (both_positive - auc**2) + (negatives - 1) * (both_negative - auc**2)
    error = float(np.sqrt(variance / (positives * negatives)))
    method = f"Hanley and McNeil's standard error of {positives:,} positive and {negatives:,} negative rows"
    return _round_out(auc, *logit_bounds(auc, error, normal_quantile(LEVEL)), method)


def derive_mean_interval(mean: float, std: float, runs: int, folds: int) -> DerivedInterval:
    """Of a mean over `runs` trained models of a cross-validation in `folds` folds, with their standard deviation.

    Runs share training rows, so the variance of their mean is (1 / runs + 1 / (folds - 1)) of that of a run.
    """
    half = student_quantile(LEVEL, runs - 1) * std * float(np.sqrt(1 / runs + 1 / (folds - 1)))
    method = f"the printed standard deviation over {runs:,} runs of {folds} folds, corrected for shared training rows"
    return _round_out(mean, mean - half, mean + half, method)


def _round_out(value: float, low: float, high: float, method: str) -> DerivedInterval:
    digits = len(repr(float(value)).partition(".")[2])
    half_unit = min(0.5 * 10.0**-digits, _MOST_ROUNDING)
    return DerivedInterval(max(0.0, low - half_unit), min(1.0, high + half_unit), method)


def difference_bounds(ours: tuple[float, float, float], theirs: tuple[float, float, float]) -> tuple[float, float]:
    """Bounds of ours minus theirs, of two independent (value, low, high), from their own intervals (Zou & Donner 2008)."""
    (a, a_low, a_high), (b, b_low, b_high) = ours, theirs
    difference = a - b
    low = difference - float(np.hypot(a - a_low, b_high - b))
    return low, difference + float(np.hypot(a_high - a, b - b_low))
