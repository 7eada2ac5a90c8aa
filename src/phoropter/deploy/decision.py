"""What a bundle decides: one answer of several windows by the rule of its study, and the threshold that its study chose.

A threshold belongs to the answers that it was chosen from: those of single pictures or windows, of recordings, or of people. It
decides nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from phoropter.data.dataset import name_label_set
from phoropter.results.clinical.aggregation import aggregate_probabilities
from phoropter.results.clinical.levels import LevelName
from phoropter.training.candidates.refit_record import RefitRecord


class MeanProbabilities(NamedTuple):
    """names of R recordings or subjects, in order · (R,) number of windows of each · (R, C) probabilities of each"""

    names: list[str]
    counts: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True)
class DecisionRule:
    """How a bundle's probabilities become decisions.

    classes: of the bundle, C names · aggregation: a rule of results/clinical/aggregation.py · positive: the class that is looked
    for; None where there is none · threshold: of its probability; None: the likeliest class is the answer · level: whose answers
    the threshold is for
    """

    classes: tuple[str, ...]
    aggregation: str = "mean"
    positive: str | None = None
    threshold: float | None = None
    level: LevelName = "row"

    @classmethod
    def from_refit(cls, refit: RefitRecord | None, classes: tuple[str, ...], multi_label: bool = False) -> DecisionRule:
        """That of a bundle; of one run's model, the mean and the likeliest class."""
        if refit is None:
            return cls(classes, positive=classes[1] if len(classes) == 2 and not multi_label else None)
        return cls(classes, refit.aggregation, refit.positive_class, refit.threshold, refit.threshold_level)

    @property
    def positive_column(self) -> int | None:
        return None if self.positive is None else self.classes.index(self.positive)

    def aggregate(self, probabilities: NDArray[np.float64], owners: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, C) of rows → (O, C) of their owners. owners: (N,) 0..O-1"""
        return aggregate_probabilities(probabilities, owners, self.aggregation, self.positive_column)

    def decide(self, probabilities: NDArray[np.float64], level: LevelName) -> list[str] | None:
        """The class decided for in each row of (n, C); None where there is no threshold for answers of this level.

        The positive class from the threshold on, else the likeliest of the others.
        """
        column = self.positive_column
        if self.threshold is None or column is None or level != self.level:
            return None
        others = probabilities.copy()
        others[:, column] = -1
        chosen = np.where(probabilities[:, column] >= self.threshold, column, others.argmax(axis=1))
        return [self.classes[k] for k in chosen]


def name_answer(p: NDArray[np.float64], classes: tuple[str, ...], multi_label: bool) -> str:
    """(C,) probabilities → the likeliest class; of several labels those above a half, joined by |, or `none`."""
    return name_label_set(p > 0.5, classes) if multi_label else classes[int(p.argmax())]
