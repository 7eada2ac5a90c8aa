"""A classifier made after a study, with what its bundle says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from phoropter.models.classifier import Classifier, average_classifiers
from phoropter.study.plan import PlannedRun
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.refit_record import FoldModels


@dataclass(frozen=True, eq=False)
class MadeClassifier:
    """A classifier for use.

    run:         a run of its candidate, which says what its images are and where they come from
    candidates:  of `model.members`, the candidate that each was trained as
    seen_rows:   rows of the study that some of its models has met, ascending
    epochs:      candidate that was trained → epochs
    fold_models: of an average of the study's own models, where they come from
    """

    run: PlannedRun
    model: Classifier
    candidates: tuple[Candidate, ...]
    seen_rows: NDArray[np.int64]
    epochs: dict[str, int] = field(default_factory=dict)
    fold_models: FoldModels | None = None

    @property
    def member_candidates(self) -> tuple[Candidate, ...]:
        """Of an average, the candidate of each member; else empty."""
        return self.candidates if self.model.member_specs else ()


def average_models(models: Sequence[Classifier]) -> Classifier:
    """One model as it is, several as the average of their probabilities."""
    return models[0] if len(models) == 1 else average_classifiers(models)
