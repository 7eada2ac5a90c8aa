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
from phoropter.data.images.pixels import Pixels
from phoropter.data.shift.shifted_rows import ShiftedRows, shift_rows
from phoropter.models.classifier import Classifier
from phoropter.results.run_folder import Run
from phoropter.results.shift.answer_file import load_shift_answers, write_shift_answers
from phoropter.results.shift.corruption_kinds import Corruption
from phoropter.study.load import ImageSet
from phoropter.study.plan import Plan, PlannedRun
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.study.records.run_record import average_member_predictions
from phoropter.study.shifts.asked_answers import AskedAnswers, load_clean
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.shift.shifted_predictions import predict_shifted
from phoropter.training.tables.metadata_features import join_metadata, load_metadata
from phoropter.training.tables.row_features import compute_row_features
from phoropter.training.tables.table_fit import FittedTable

Logits = NDArray[np.float32]


class ShiftEvaluator:
    """Evaluates the runs of a plan whose study has `shift`; of one without it does nothing."""

    def __init__(self, planned: Plan, folder: Path, cache: Path, on_progress: ProgressCallback) -> None:
        """folder: of the results"""
        self.planned, self.folder, self.cache, self.on_progress = planned, folder, cache, on_progress
        self.asked = AskedAnswers(planned, folder)
        self._opened: tuple[str, ShiftedRows] | None = None  # of recordings one corruption is in memory
        self._features: dict[str, NDArray[np.float32]] = {}  # of baselines: small, and measured once for all folds
        self._metadata: dict[str, NDArray[np.float32] | None] = {}  # the same at every corruption

    def evaluate_network(
        self, run: PlannedRun, run_folder: Path, model: Classifier, identities: Sequence[str], pixels: Pixels
    ) -> None:
        """Writes what a trained classifier answers at every corruption that is missing.

        run_folder: with the run's predictions, whatever its name · identities: of the backbones, where they are known
        """
        missing = self.asked.find_missing(run, run_folder)
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
        self._write_answers(run, run_folder, answers)

    def evaluate_table(self, run: PlannedRun, run_folder: Path, fitted: FittedTable, pixels: Pixels) -> None:
        """As `evaluate_network`, for a baseline: its features or samples are taken again from the corrupted rows."""
        missing = self.asked.find_missing(run, run_folder)
        answers: dict[str, Logits] = {}
        for corruption in missing:
            shifted, at = self._open_rows(run, corruption, pixels)
            if fitted.predict_other is not None:
                answers[corruption.key] = fitted.predict_other(shifted.dataset, at)
            else:
                assert fitted.predict_values is not None
                answers[corruption.key] = fitted.predict_values(self._measure_features(run, corruption, shifted)[at])
        self._write_answers(run, run_folder, answers)

    def evaluate_average(self, run: PlannedRun, run_folder: Path) -> None:
        """As `evaluate_network`, for an average of finished runs: of its members' answers, by the weights of its record."""
        missing = self.asked.find_missing(run, run_folder)
        if not missing:
            return
        members = [(key, load_clean(self.asked.find_folder(key))) for key in run.needs]
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
        self._write_answers(run, run_folder, answers)

    def _write_answers(self, run: PlannedRun, run_folder: Path, answers: dict[str, Logits]) -> None:
        if answers:
            write_shift_answers(self.folder, run.key, load_clean(run_folder).logits, answers)

    def _open_rows(self, run: PlannedRun, corruption: Corruption, pixels: Pixels) -> tuple[ShiftedRows, NDArray[np.int64]]:
        """The corrupted rows that are tested, and the places of the run's own among them."""
        image_set = run.image_set
        rows, name = self.asked.list_tested_rows(image_set), digest([image_set.identity, corruption.key])
        if self._opened is None or self._opened[0] != name:
            square = image_set.data.square_resize(image_set.image_size)
            self._opened = (name, shift_rows(image_set.dataset, pixels, square, rows, corruption))
        return self._opened[1], np.searchsorted(rows, run.split.test)

    def _measure_features(self, run: PlannedRun, corruption: Corruption, shifted: ShiftedRows) -> NDArray[np.float32]:
        """(m, D) features of all corrupted rows that are tested; metadata stay what they are."""
        table = run.candidate.table
        assert table is not None
        name = digest([table.identity(), run.image_set.identity, corruption.key])
        if name not in self._features:
            title = f"{table.baseline} at {corruption.words}"

            def report_progress(done: int, total: int) -> None:
                self.on_progress(ProgressEvent("features", title, done, total))

            base, own = self.planned.study.base, None
            if table.baseline is not None:
                own = compute_row_features(table, shifted.dataset, shifted.pixels, self.cache, base, report_progress)
            self._features[name] = join_metadata(own, self._load_metadata(table, run.image_set)).values
        return self._features[name]

    def _load_metadata(self, table: TableSpec, images: ImageSet) -> NDArray[np.float32] | None:
        """(m, D) metadata of all rows that are tested, read once; None of a table without."""
        name = digest([table.identity(), images.identity])
        if name not in self._metadata:
            stated = load_metadata(table, images.data, images.dataset, self.planned.study.base)
            self._metadata[name] = None if stated is None else stated[self.asked.list_tested_rows(images)]
        return self._metadata[name]
