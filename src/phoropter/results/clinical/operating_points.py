"""Operating points of two classes: a threshold of the positive class's probability, and what alarms by it are worth.

A threshold is chosen on rows that it is not judged on (cross-fitting): for each tested split from the held-out answers of the
other splits of its round, without those of units that the split tests too; where a round has one split, from the answers of its
inner validation part. The labels of tested rows enter no threshold of their own.

    alarm           the probability is at the threshold or above
    sensitivity     share of the positive rows that are alarmed     specificity   share of the others that are not
    PPV             share of alarms that are right                  NPV           share of the unalarmed that are negative
    LR+, LR-        sensitivity / (1 - specificity), (1 - sensitivity) / specificity

Shares have the intervals of accuracy (intervals/interval_rules.py: Wilson, or Student's t over units on the logit scale). They
hold for the thresholds as they were chosen; how much other rows would have moved these is not in them, which is why the share of
false alarms that was reached stands beside the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.results.clinical.alarm_statistics import AlarmStatistics
from phoropter.results.metrics.sufficient_sums import Floats, Ints
from phoropter.results.stats.held_out_rows import HeldOutRows

Booleans = NDArray[np.bool_]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Goal:
    """What a threshold is chosen for. kind: which share is kept · value: at least so much of it"""

    kind: Literal["specificity", "sensitivity"]
    value: float

    @property
    def title(self) -> str:
        """`90 % specificity`"""
        return f"{self.value * 100:.4g} % {self.kind}"


GOALS = (Goal("specificity", 0.9), Goal("specificity", 0.95), Goal("sensitivity", 0.9), Goal("sensitivity", 0.95))


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """positive: (N,) whether a row is of the positive class · scores: (N,) its probability of it"""

    positive: Booleans
    scores: Floats

    @classmethod
    def from_probabilities(cls, labels: Ints, probabilities: Floats, column: int) -> ScoredRows:
        return cls(labels == column, probabilities[:, column])


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """goal: None: threshold 0.5, chosen by nobody · thresholds: (J,) of the splits · statistics: of all rows, each judged
    by the threshold of its split"""

    goal: Goal | None
    thresholds: Floats
    statistics: AlarmStatistics

    @property
    def title(self) -> str:
        return "Threshold 0.5" if self.goal is None else self.goal.title


def choose_threshold(rows: ScoredRows, goal: Goal) -> float:
    """The lowest score whose alarms keep the specificity, or the highest whose alarms reach the sensitivity.

    Infinite where no alarm keeps the specificity. NaN where the rows lack the class that the goal is about.
    """
    counted = rows.positive if goal.kind == "sensitivity" else ~rows.positive
    total = int(counted.sum())
    if not total:
        return float("nan")
    levels, member = np.unique(rows.scores, return_inverse=True)
    above = np.cumsum(np.bincount(member, counted)[::-1])[::-1]  # of the counted class, at this score or higher
    if goal.kind == "sensitivity":
        return float(levels[np.flatnonzero(above >= goal.value * total - _ROUNDING)[-1]])
    kept = np.flatnonzero(above <= (1 - goal.value) * total + _ROUNDING)
    return float(levels[kept[0]]) if len(kept) else float("inf")


def cross_fit_thresholds(
    rows: HeldOutRows, column: int, goal: Goal, validation: Mapping[int, ScoredRows] | None = None
) -> Floats:
    """(J,) the threshold of each split, from rows that it does not test; NaN where there are none to choose it from.

    validation: number of the split → the answers of its inner validation part, for rounds of one split
    """
    numbers = np.unique(rows.splits)
    return np.array([choose_threshold(_other_rows(rows, column, int(j), validation or {}), goal) for j in numbers])


def _other_rows(rows: HeldOutRows, column: int, split: int, validation: Mapping[int, ScoredRows]) -> ScoredRows:
    """The rows from which the threshold of a split is chosen."""
    tested = rows.splits == split
    others = (rows.repeats == rows.repeats[tested][0]) & ~tested
    others &= ~np.isin(rows.unit_names, np.unique(rows.unit_names[tested]))
    if not others.any() and split in validation:
        return validation[split]
    return ScoredRows.from_probabilities(rows.labels[others], rows.probabilities[others], column)


def judge_operating_point(
    rows: HeldOutRows, column: int, goal: Goal | None, validation: Mapping[int, ScoredRows] | None = None
) -> OperatingPoint | None:
    """What alarms at a goal are worth on the tested rows; None where some split has no threshold."""
    numbers, member = np.unique(rows.splits, return_inverse=True)
    thresholds = np.full(len(numbers), 0.5) if goal is None else cross_fit_thresholds(rows, column, goal, validation)
    if np.isnan(thresholds).any():
        return None
    scored = ScoredRows.from_probabilities(rows.labels, rows.probabilities, column)
    alarms = scored.scores >= thresholds[member]
    return OperatingPoint(goal, thresholds, AlarmStatistics.from_alarms(scored.positive, alarms, rows.unit_names, rows.repeats))
