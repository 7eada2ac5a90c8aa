"""What the page knows of recordings, people and operating points. `collect.py` beside it fills it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from phoropter.core.language.unit_words import UnitWord
from phoropter.results.clinical.decision_curves import DecisionCurve
from phoropter.results.clinical.levels import LevelName
from phoropter.results.clinical.operating_points import Goal, OperatingPoint
from phoropter.results.clinical.spec import ClinicalSpec
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.stats.estimand import Estimand


@dataclass(frozen=True, eq=False)
class CandidateAtLevel:
    """A candidate's answers at one level.

    values: metric → value, and interval: of the ranking metric, above the row, whose are on the leaderboard
    points: operating points, in the order of the goals · precision: (100,) by recall, empty without a positive class
    decision: its decision curve
    """

    name: str
    values: Mapping[str, float]
    interval: ConfidenceInterval | None
    points: tuple[OperatingPoint, ...] = ()
    precision: Floats = field(default_factory=lambda: np.zeros(0))
    decision: DecisionCurve | None = None

    def find_point(self, goal: Goal) -> OperatingPoint | None:
        return next((point for point in self.points if point.goal == goal), None)


@dataclass(frozen=True, eq=False)
class LevelResults:
    """One level of a study.

    word: what an answer is of · rule: of aggregation, in words · estimands: of its metrics, as for the rows · supports: answers
    of each class in a round · candidates: those with finished runs, in the order of the leaderboard
    """

    level: LevelName
    word: UnitWord
    rule: str
    estimands: Mapping[str, Estimand]
    supports: tuple[int, ...]
    candidates: tuple[CandidateAtLevel, ...]

    def find_candidate(self, name: str) -> CandidateAtLevel:
        return next(c for c in self.candidates if c.name == name)


@dataclass(frozen=True, eq=False)
class ClinicalResults:
    """levels: from the row up; the row only where there is a positive class · missing: level → `3 of 12` owners that have rows of
    several classes · positive: its column; None where there is none · is_stated: the study names it
    """

    levels: tuple[LevelResults, ...] = ()
    missing: Mapping[LevelName, str] = field(default_factory=dict)
    positive: int | None = None
    is_stated: bool = False
    spec: ClinicalSpec = field(default_factory=ClinicalSpec)

    @property
    def goal(self) -> Goal:
        """The operating point that the study has in mind."""
        return self.spec.goal

    @property
    def deciding(self) -> LevelResults | None:
        """The highest level: what is decided on. None where there is no positive class."""
        return self.levels[-1] if self.levels and self.positive is not None else None


NO_CLINICAL_RESULTS = ClinicalResults()
