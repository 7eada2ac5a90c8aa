"""Curves of a two-class classifier that need no threshold to be chosen: precision by recall, and net benefit (decision curve).

Net benefit (Vickers & Elkin 2006): right alarms minus false ones, both per row, a false one weighted by the odds of the threshold
probability. Who alarms at probability t says that one missed positive is as bad as (1 - t)/t false alarms. Alarming all, or
nobody (0), is what a classifier must beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.results.metrics.sufficient_sums import Floats, Ints
from phoropter.results.stats.held_out_rows import HeldOutRows

RECALLS = np.linspace(0.01, 1.0, 100)  # where curves of different rounds are averaged
THRESHOLDS = np.linspace(0.01, 0.99, 99)  # probabilities at which an alarm may be thought worth while


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """(99,) net benefit at THRESHOLDS: of the classifier, and of alarming all. prevalence: share of the positive class"""

    net_benefit: Floats
    alarm_all: Floats
    prevalence: float


def precision_by_recall(positive: NDArray[np.bool_], scores: NDArray[Any]) -> Floats:
    """(100,) the precision at RECALLS: of the highest threshold that reaches the recall."""
    levels, member = np.unique(scores, return_inverse=True)
    found = np.cumsum(np.bincount(member, positive, len(levels))[::-1])
    alarmed = np.cumsum(np.bincount(member, minlength=len(levels))[::-1])
    at = np.searchsorted(found / found[-1], RECALLS - 1e-12)
    return np.asarray(found[at] / alarmed[at])


def mean_precision_by_recall(rows: HeldOutRows, column: int) -> Floats:
    """(100,) the mean over rounds, each with all its held-out rows; empty where no round has positive rows."""
    curves = [
        precision_by_recall(rows.labels[some] == column, rows.probabilities[some, column])
        for some in _rows_of_rounds(rows)
        if (rows.labels[some] == column).any()
    ]
    return np.mean(curves, axis=0) if curves else np.zeros(0)


def compute_decision_curve(rows: HeldOutRows, column: int) -> DecisionCurve:
    """Over all held-out rows, those of several rounds together."""
    positive, scores = rows.labels == column, rows.probabilities[:, column]
    prevalence, odds = float(positive.mean()), THRESHOLDS / (1 - THRESHOLDS)
    return DecisionCurve(net_benefit(positive, scores, THRESHOLDS), prevalence - (1 - prevalence) * odds, prevalence)


def net_benefit(positive: NDArray[np.bool_], scores: NDArray[Any], thresholds: Floats) -> Floats:
    """(T,) at each threshold probability. positive, scores: (N,)"""
    right, wrong = np.sort(scores[positive]), np.sort(scores[~positive])
    alarms_right = len(right) - np.searchsorted(right, thresholds)  # at the threshold or above
    alarms_wrong = len(wrong) - np.searchsorted(wrong, thresholds)
    return np.asarray((alarms_right - alarms_wrong * thresholds / (1 - thresholds)) / len(positive))


def _rows_of_rounds(rows: HeldOutRows) -> list[Ints]:
    return [np.flatnonzero(rows.repeats == number) for number in np.unique(rows.repeats)]
