"""Evaluates trained runs on corrupted versions of their test rows; the answers are kept beside them (results/shift).

It is done while the trained model is in memory, before the run's folder takes its name: a run that is there has its answers,
unless `shift` was asked for later (study/finished/complete_shifts.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import digest
from phoropter.data.images.decode import SquareResize
from phoropter.data.images.pixels import Pixels
from phoropter.data.shift.shifted_rows import ShiftedRows, resolve_corruptions, shift_rows
from phoropter.models.classifier import Classifier
from phoropter.results.run_folder import Predictions, Run
from phoropter.results.shift.answer_file import find_missing_answers, load_shift_answers, write_shift_answers
from phoropter.results.shift.corruption_kinds import Corruption
from phoropter.study.load import ImageSet
from phoropter.study.plan import Plan, PlannedRun
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.study.records.run_record import average_member_predictions
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.shifted_predictions import predict_shifted
from phoropter.training.tables.row_features import compute_row_features
from phoropter.training.tables.table_fit import FittedTable

Logits = NDArray[np.float32]


class ShiftEvaluator:
    """Evaluates the runs of a plan whose study has `shift`; of one without it does nothing."""

    def __init__(self, planned: Plan, folder: Path, cache: Path, on_progress: ProgressCallback) -> None:
        """folder: of the results"""
        self.planned, self.folder, self.cache, self.on_progress = planned, folder, cache, on_progress
        self._resolved: dict[str, tuple[Corruption, ...]] = {}
        self._rows: dict[str, NDArray[np.int64]] = {}
        self._opened: tuple[str, ShiftedRows] | None = None  # of recordings one corruption is in memory
        self._features: dict[str, NDArray[np.float32]] = {}  # of baselines: small, and measured once for all folds

    def evaluate_network(
        self, run: PlannedRun, run_folder: Path, model: Classifier, identities: Sequence[str], pixels: Pixels
    ) -> None:
        """Writes what a trained classifier answers at every corruption that is missing.

        run_folder: with the run's predictions, whatever its name · identities: of the backbones, where they are known
        """
        clean, missing = self._find_missing(run, run_folder)
        answers: dict[str, Logits] = {}
        known = identities or [branch.identity for branch in model.branches] if missing else ()
        for corruption in missing:
            shifted, at = self._open_rows(run, corruption, pixels)
            title = f"{' + '.join(b.name for b in run.candidate.backbones)} at {corruption.words}"

            def report_progress(done: int, total: int, title: str = title) -> None:
                self.on_progress(ProgressEvent("features", title, done, total))

            answers[corruption.key] = predict_shifted(
                model, run.candidate, shifted.pixels, at, self.cache, known, report_progress
            )
        self._write_answers(run, clean, answers)

    def evaluate_table(self, run: PlannedRun, run_folder: Path, fitted: FittedTable, pixels: Pixels) -> None:
        """As `evaluate_network`, for a baseline: its features are measured again on the corrupted rows."""
        clean, missing = self._find_missing(run, run_folder)
        answers: dict[str, Logits] = {}
        for corruption in missing:
            assert fitted.predict_values is not None
            values, at = self._measure_features(run, corruption, pixels)
            answers[corruption.key] = fitted.predict_values(values[at])
        self._write_answers(run, clean, answers)

    def evaluate_average(self, run: PlannedRun, run_folder: Path) -> None:
        """As `evaluate_network`, for an average of finished runs: of its members' answers, by the weights of its record."""
        clean, missing = self._find_missing(run, run_folder)
        if not missing:
            return
        members = [(key, self._load_clean(self.folder / "runs" / key)) for key in run.needs]
        of_members = [load_shift_answers(self.folder, key, found.logits) for key, found in members]
        weights = [b["weight"] for b in Run(run_folder).record.get("branches") or () if "weight" in b]
        answers: dict[str, Logits] = {}
        for corruption in missing:
            if all(corruption.key in found for found in of_members):
                parts = [
                    replace(found, logits=given[corruption.key], features=None)
                    for (_, found), given in zip(members, of_members, strict=True)
                ]
                answers[corruption.key] = average_member_predictions(parts, weights).logits
        self._write_answers(run, clean, answers)

    def is_incomplete(self, run: PlannedRun) -> bool:
        """Whether a finished run lacks answers that it can give."""
        return self.can_evaluate(run) and bool(self._find_missing(run, self.folder / "runs" / run.key)[1])

    def can_evaluate(self, run: PlannedRun) -> bool:
        """Whether the study asks for it and the run's answers follow from the rows: not those of imported tables."""
        if self.planned.study.shift is None or run.role != "compared":
            return False
        needed = [self.planned.by_key[key] for key in run.needs] if run.candidate.is_ensemble else []
        return follows_from_rows(run.candidate) and all(self.can_evaluate(other) for other in needed)

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

    def _find_missing(self, run: PlannedRun, run_folder: Path) -> tuple[Predictions, list[Corruption]]:
        clean = self._load_clean(run_folder)
        asked = {c.key: c for c in self.list_corruptions(run.image_set)} if self.can_evaluate(run) else {}
        return clean, [asked[key] for key in find_missing_answers(self.folder, run.key, clean.logits, asked)]

    def _load_clean(self, run_folder: Path) -> Predictions:
        return Predictions.load(run_folder / "predictions.npz")

    def _write_answers(self, run: PlannedRun, clean: Predictions, answers: dict[str, Logits]) -> None:
        if answers:
            write_shift_answers(self.folder, run.key, clean.logits, answers)

    def _open_rows(self, run: PlannedRun, corruption: Corruption, pixels: Pixels) -> tuple[ShiftedRows, NDArray[np.int64]]:
        """The corrupted rows that are tested, and the places of the run's own among them."""
        image_set = run.image_set
        rows, name = self.list_tested_rows(image_set), digest([image_set.identity, corruption.key])
        if self._opened is None or self._opened[0] != name:
            square = SquareResize(image_set.image_size, image_set.data.resize, image_set.data.interpolation)
            self._opened = (name, shift_rows(image_set.dataset, pixels, square, rows, corruption))
        return self._opened[1], np.searchsorted(rows, run.split.test)

    def _measure_features(
        self, run: PlannedRun, corruption: Corruption, pixels: Pixels
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        table = run.candidate.table
        assert table is not None
        name = digest([table.baseline, run.image_set.identity, corruption.key])
        if name not in self._features:
            shifted, _ = self._open_rows(run, corruption, pixels)
            title = f"{table.baseline} at {corruption.words}"

            def report_progress(done: int, total: int) -> None:
                self.on_progress(ProgressEvent("features", title, done, total))

            base = self.planned.study.base
            found = compute_row_features(table, shifted.dataset, shifted.pixels, self.cache, base, report_progress)
            self._features[name] = found.values
        return self._features[name], np.searchsorted(self.list_tested_rows(run.image_set), run.split.test)


def follows_from_rows(candidate: Candidate) -> bool:
    """Whether its answers are computed from pictures or samples: those of imported features and predictions are not."""
    return candidate.table is None or (candidate.table.baseline is not None and not candidate.table.is_signal_network)
