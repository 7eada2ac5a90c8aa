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
from dataclasses import dataclass, field
from functools import cached_property
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

    @cached_property
    def alarmed(self) -> tuple[Floats, Ints, Ints]:
        """(L,) distinct scores, ascending, and for each the positive and the other rows at this score or higher; sorted once for
        all goals."""
        levels, member = np.unique(self.scores, return_inverse=True)
        counts = [np.bincount(member[of], minlength=len(levels)) for of in (self.positive, ~self.positive)]
        found, wrong = (np.cumsum(count[::-1])[::-1] for count in counts)
        return levels, found, wrong


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
    levels, found, wrong = rows.alarmed
    above = found if goal.kind == "sensitivity" else wrong
    if not len(levels) or not above[0]:
        return float("nan")
    if goal.kind == "sensitivity":
        return float(levels[np.flatnonzero(above >= goal.value * above[0] - _ROUNDING)[-1]])
    kept = np.flatnonzero(above <= (1 - goal.value) * above[0] + _ROUNDING)
    return float(levels[kept[0]]) if len(kept) else float("inf")


@dataclass(frozen=True, eq=False)
class CrossFitting:
    """The held-out rows of a candidate, and for each split the rows that its thresholds are chosen from.

    column: of the positive class · validation: number of the split → the answers of its inner validation part, for rounds of one
    split
    """

    rows: HeldOutRows
    column: int
    validation: Mapping[int, ScoredRows] = field(default_factory=dict)

    @cached_property
    def splits(self) -> tuple[Ints, Ints]:
        """(J,) their numbers and (N,) the place of each row's split among them."""
        numbers, member = np.unique(self.rows.splits, return_inverse=True)
        return numbers, member.astype(np.int64)

    @cached_property
    def choosing_rows(self) -> list[ScoredRows]:
        """Of each split, the rows that choose its thresholds: made once for all goals."""
        units = np.unique(self.rows.unit_names, return_inverse=True)[1]
        numbers, member = self.splits
        return [self._find_others(units, int(number), member == place) for place, number in enumerate(numbers)]

    def _find_others(self, units: Ints, split: int, tested: Booleans) -> ScoredRows:
        rows = self.rows
        others = (rows.repeats == rows.repeats[tested][0]) & ~tested
        is_tested = np.zeros(int(units.max(initial=-1)) + 1, dtype=bool)
        is_tested[units[tested]] = True
        others &= ~is_tested[units]
        if not others.any() and split in self.validation:
            return self.validation[split]
        return ScoredRows.from_probabilities(rows.labels[others], rows.probabilities[others], self.column)

    def choose_thresholds(self, goal: Goal) -> Floats:
        """(J,) the threshold of each split; NaN where there are no rows to choose it from."""
        return np.array([choose_threshold(rows, goal) for rows in self.choosing_rows])

    def judge_goal(self, goal: Goal | None) -> OperatingPoint | None:
        """What alarms at a goal (None: at 0.5) are worth on the tested rows; None where some split has no threshold."""
        numbers, member = self.splits
        thresholds = np.full(len(numbers), 0.5) if goal is None else self.choose_thresholds(goal)
        if np.isnan(thresholds).any():
            return None
        rows = self.rows
        scored = ScoredRows.from_probabilities(rows.labels, rows.probabilities, self.column)
        alarms = scored.scores >= thresholds[member]
        return OperatingPoint(
            goal, thresholds, AlarmStatistics.from_alarms(scored.positive, alarms, rows.unit_names, rows.repeats)
        )
