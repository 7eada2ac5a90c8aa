"""Slope and intercept of the positive class's probability, with intervals.

They are those of stats/calibration_error.py (Cox 1958); their variance is the sandwich over units (Liang & Zeger 1986), times
G / (G - 1), with Student's t of G - 1 degrees of freedom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phoropter.results.clinical.alarm_statistics import LEVEL, Estimate
from phoropter.results.intervals.interval_rules import MIN_UNITS, student_quantile
from phoropter.results.stats.calibration_error import fit_calibration_line, log_odds_design
from phoropter.results.stats.held_out_rows import HeldOutRows


@dataclass(frozen=True)
class CalibrationLine:
    """Of the label on the predicted log-odds: a slope of 1 and an intercept of 0 are right; bounds are NaN under three units."""

    slope: Estimate
    intercept: Estimate


def estimate_calibration_line(rows: HeldOutRows, column: int = 1) -> CalibrationLine:
    """Over all rows, of the class of a column. NaN where the rows hold one class, or classes are separated."""
    slope, intercept = fit_calibration_line(rows, column)
    unknown = float("nan")
    units, member = np.unique(rows.unit_names, return_inverse=True)
    if np.isnan(slope) or len(units) < MIN_UNITS:
        return CalibrationLine(Estimate(slope, unknown, unknown), Estimate(intercept, unknown, unknown))
    design = log_odds_design(rows, column)
    fitted = 1 / (1 + np.exp(-(design @ [slope, intercept])))
    bread = np.linalg.inv((design * (fitted * (1 - fitted))[:, None]).T @ design)
    scores = np.zeros((len(units), 2))
    np.add.at(scores, member, design * ((rows.labels == column) - fitted)[:, None])
    variance = bread @ (scores.T @ scores) @ bread * len(units) / (len(units) - 1)
    half = student_quantile(LEVEL, len(units) - 1) * np.sqrt(np.diag(variance))
    bounds = [Estimate(v, float(v - h), float(v + h)) for v, h in zip((slope, intercept), half, strict=True)]
    return CalibrationLine(*bounds)
