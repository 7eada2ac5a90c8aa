"""Which answers on corrupted rows a study asks for, and which of them are missing. No torch here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import digest
from phoropter.data.shift.shifted_rows import resolve_corruptions
from phoropter.results.run_folder import Predictions
from phoropter.results.shift.answer_file import find_missing_answers
from phoropter.results.shift.corruption_kinds import Corruption
from phoropter.study.load import ImageSet
from phoropter.study.plan import Plan, PlannedRun
from phoropter.training.candidates.candidate import Candidate


class AskedAnswers:
    """The answers that a plan asks for. folder: of the results"""

    def __init__(self, planned: Plan, folder: Path) -> None:
        self.planned, self.folder = planned, folder
        self._resolved: dict[str, tuple[Corruption, ...]] = {}
        self._rows: dict[str, NDArray[np.int64]] = {}

    def can_answer(self, run: PlannedRun) -> bool:
        """Whether the study asks for it and the run's answers follow from the rows: not those of imported tables."""
        if self.planned.study.shift is None or run.role != "compared":
            return False
        needed = [self.planned.by_key[key] for key in run.needs] if run.candidate.is_ensemble else []
        return follows_from_rows(run.candidate) and all(self.can_answer(other) for other in needed)

    def list_corruptions(self, image_set: ImageSet) -> tuple[Corruption, ...]:
        """The corruptions of an image set."""
        name = digest(image_set.identity)
        if name not in self._resolved:
            spec = self.planned.study.shift
            self._resolved[name] = () if spec is None else resolve_corruptions(spec, image_set.dataset)
        return self._resolved[name]

    def list_tested_rows(self, image_set: ImageSet) -> NDArray[np.int64]:
        """(m,) the rows of an image set that some compared run is tested on, ascending."""
        name = digest(image_set.identity)
        if name not in self._rows:
            tested = [r.split.test for r in self.planned.compared if digest(r.image_set.identity) == name]
            self._rows[name] = np.unique(np.concatenate(tested))
        return self._rows[name]

    def find_missing(self, run: PlannedRun, run_folder: Path) -> list[Corruption]:
        """The corruptions at which a run has no answer yet. run_folder: with its predictions, whatever its name"""
        if not self.can_answer(run):
            return []
        asked = {c.key: c for c in self.list_corruptions(run.image_set)}
        return [asked[key] for key in find_missing_answers(self.folder, run.key, load_clean(run_folder).logits, asked)]

    def is_incomplete(self, run: PlannedRun) -> bool:
        """Whether a finished run lacks answers that it can give."""
        return bool(self.find_missing(run, self.find_folder(run.key)))

    def find_folder(self, key: str) -> Path:
        """The folder of a finished run."""
        return self.folder / "runs" / key


def load_clean(run_folder: Path) -> Predictions:
    """The predictions of the rows as they are. Raises StoreError."""
    return Predictions.load(run_folder / "predictions.npz")


def follows_from_rows(candidate: Candidate) -> bool:
    """Whether its answers are computed from pictures or samples: those of imported features and predictions are not."""
    return candidate.table is None or candidate.table.file is None
