"""Computes the runs of a plan: decodes images, trains, and writes the run folders.

A run's bundle is kept until all runs that depend on it (students, warm-started fusions) are finished.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from phoropter.core.extensions import collect_extensions
from phoropter.core.files import digest, file_lock
from phoropter.data.dataset import Dataset
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.images.pixels import Pixels
from phoropter.models import classifier as classifiers
from phoropter.models.weights.bundle_files import set_aside_damaged_bundle
from phoropter.results.store import Store, write_progress_note
from phoropter.study.cost import note_speed
from phoropter.study.inputs.table_inputs import TableInputs
from phoropter.study.load import ImageSet, LoadedVariant
from phoropter.study.plan import Plan, PlannedRun
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.study.records import run_record
from phoropter.study.records.selection_record import SelectedMembers
from phoropter.study.records.table_record import write_table_run
from phoropter.study.shifts.evaluate import ShiftEvaluator
from phoropter.training.costs.peak_memory import PeakMemory
from phoropter.training.distillation import Teacher
from phoropter.training.fit import TrainedRun, TrainingTask
from phoropter.training.frozen.batched_fit import MAX_BATCHED_HEADS, FitOutcome, batch_group_key, can_batch, fit_batched
from phoropter.training.loop.checkpoint import Checkpoints
from phoropter.training.loop.history import HistoryRow
from phoropter.training.loop.parallel.training_group import TrainingGroup
from phoropter.training.loop.precision import resolve_autocast_dtype
from phoropter.training.loop.stop_signals import StopRequest, defer_stop
from phoropter.training.loop.training_loop import StepProgress
from phoropter.training.selection.inner_answers import choose_members
from phoropter.training.tables.row_features import RowFeatures
from phoropter.training.tables.signal_fit import fit_signal_network
from phoropter.training.tables.table_fit import FittedTable, fit_table, take_predictions
from phoropter.training.train import train_candidate

STATUS_INTERVAL_S = 1.0  # how often the progress of a run is written for other processes to read


def make_batch_key(run: PlannedRun) -> str:
    """Equal for runs whose heads are trained in one batch; side runs have their own, so that the others' stay as they are."""
    return digest([batch_group_key(run.candidate), run.image_set.identity, *([] if run.role == "compared" else [run.role])])


def is_batched(run: PlannedRun) -> bool:
    """Whether its head is trained in one batch with others'; one that is tuned is trained by itself, once values are chosen."""
    return not run.trials and can_batch(run.candidate)


def decode_images(variants: list[LoadedVariant], cache: Path, on_progress: ProgressCallback) -> list[LoadedVariant]:
    """Decodes the images of a study that are not decoded yet; rows that could not be decoded are left out from here on.

    Raises DataError for the first such row unless the data say `on_bad_input: skip`.
    """
    decoded: dict[int, ImageSet] = {}
    for variant in variants:
        image_set = variant.image_set
        if not image_set.decoded and id(image_set) not in decoded:
            dataset = prepare_image_set(image_set, cache, on_progress)[0]
            decoded[id(image_set)] = replace(image_set, dataset=dataset, decoded=True)
    return [v.with_image_set(decoded.get(id(v.image_set), v.image_set)) for v in variants]


def open_pixels(image_set: ImageSet, cache: Path, on_progress: ProgressCallback) -> Pixels:
    """The decoded images of an image set."""
    return prepare_image_set(image_set, cache, on_progress)[1]


def prepare_image_set(image_set: ImageSet, cache: Path, on_progress: ProgressCallback) -> tuple[Dataset, Pixels]:
    """Both, decoded where they are not yet: the dataset of an image set without rows that could not be, and its images."""
    return prepare_pixels(
        image_set.dataset,
        image_set.image_size,
        resize=image_set.data.resize,
        interpolation=image_set.data.interpolation,
        cache=cache,
        on_bad_input=image_set.data.on_bad_input,
        progress=lambda done, total: on_progress(ProgressEvent("decoding", done=done, total=total)),
    )


StepFunction = Callable[[dict[str, Any]], None]
Trained = TypeVar("Trained")


def drive_training(
    task: TrainingTask, title: str, on_progress: ProgressCallback, after_step: StepFunction = lambda note: None
) -> TrainedRun:
    """Trains a candidate to its end and tells of each step. after_step: is told the same note, and may raise to stop"""
    return follow_training(train_candidate(task), task, title, on_progress, after_step)


def follow_training(
    training: Generator[StepProgress | HistoryRow, None, Trained],
    task: TrainingTask,
    title: str,
    on_progress: ProgressCallback,
    after_step: StepFunction = lambda note: None,
) -> Trained:
    """As `drive_training`, of any generator that tells of its steps; returns what it returns."""
    with closing(training):  # at once, whatever ends it: other processes of the training wait to hear of it
        while True:
            try:
                step = next(training)
            except StopIteration as stop:
                trained: Trained = stop.value
                return trained
            note = vars(step) if isinstance(step, StepProgress) else {**step, "epochs": task.candidate.recipe.total_epochs}
            on_progress(ProgressEvent("tick" if isinstance(step, StepProgress) else "epoch", title, note=note))
            after_step(note)


class Computation:
    """Computes the runs of a plan, in one process."""

    def __init__(
        self,
        planned: Plan,
        store: Store,
        cache: Path,
        device: torch.device,
        checkpoint_s: float,
        on_progress: ProgressCallback,
        group: TrainingGroup | None = None,
    ) -> None:
        self.planned, self.store, self.cache, self.device, self.on_progress = planned, store, cache, device, on_progress
        self.checkpoint_s, self.group = checkpoint_s, group
        self.shifts = ShiftEvaluator(planned, store.folder, cache, on_progress)
        self._loaded_pixels: dict[str, Pixels] = {}
        self.table_inputs = TableInputs(planned, cache, on_progress)

    def train_run(self, run: PlannedRun) -> dict[str, Any]:
        """Trains one run and writes its folder; returns its metrics. Raises StopRequest when asked to stop."""
        started = datetime.now(UTC)
        work = self.store.work_folder(run.key)
        checkpoints = Checkpoints(work, self.checkpoint_s)
        with defer_stop(checkpoints.request_save) as interrupts:
            with PeakMemory(self.device) as peak:
                fitted = self._drive_training(run, self._make_task(run, checkpoints, interrupts), work, interrupts)
            note = self.write_run_folder(run, replace(fitted, peak_memory_bytes=peak.bytes), started)
        return note

    def find_way(self, run: PlannedRun) -> Callable[[PlannedRun], dict[str, Any]]:
        """The method that computes a run which is computed by itself."""
        if run.candidate.table is not None:
            return self.train_signals if run.candidate.table.is_signal_network else self.compute_table
        return self.average_members if run.candidate.is_ensemble else self.train_run

    def average_members(self, run: PlannedRun) -> dict[str, Any]:
        """Writes the folder of an ensemble from its members' predictions; returns its metrics."""
        started = datetime.now(UTC)
        members = [self.store.run(key) for key in run.needs]
        selected = self._select_members(run) if run.candidate.selects else None
        with self.store.create_run(run.key) as folder:
            record = run_record.write_averaged_run(
                folder, run, members, self.load_pixels(run.image_set), self.planned.study.metrics, started, selected
            )
            self.shifts.evaluate_average(run, folder.folder)
        self.store.clear_work(run.key)
        return dict(record["metrics"])

    def _select_members(self, run: PlannedRun) -> SelectedMembers:
        """Which members count in a run, by what each answers on inner folds of the training rows, and what that took."""
        work = self.store.work_folder(run.key)
        checkpoints = Checkpoints(work, self.checkpoint_s)
        with defer_stop(checkpoints.request_save) as interrupts:
            tasks = [self._make_task(self.planned.by_key[key], checkpoints, interrupts) for key in run.needs]
            files = [self.cache / "inner-answers" / f"{key}.npz" for key in run.needs]
            members = dict(zip(run.candidate.members, zip(files, tasks, strict=True), strict=True))
            chosen, seconds = choose_members(members, lambda task: self._drive_training(run, task, work, interrupts))
        return SelectedMembers(chosen, len(run.split.train), seconds)

    def compute_table(self, run: PlannedRun) -> dict[str, Any]:
        """Fits the classifier of a candidate without a network, or takes its predictions from a file; returns its metrics."""
        started = datetime.now(UTC)
        table, image_set = run.candidate.table, run.image_set
        assert table is not None
        features = None
        with PeakMemory(self.device) as peak:
            if table.predictions is not None:
                fitted = take_predictions(table, self.table_inputs.load_fold(run), run.split)
            else:
                features = self.table_inputs.load_features(run, self.load_pixels(image_set))
                fitted = fit_table(table, features, image_set.dataset, run.split)
        return self._write_table(run, fitted, features, started, peak.bytes)

    def train_signals(self, run: PlannedRun) -> dict[str, Any]:
        """Trains one run of the network on the samples of windows and writes its folder; returns its metrics."""
        started, work = datetime.now(UTC), self.store.work_folder(run.key)
        checkpoints = Checkpoints(work, self.checkpoint_s)
        with defer_stop(checkpoints.request_save) as interrupts:
            with PeakMemory(self.device) as peak:
                task = self._make_task(run, checkpoints, interrupts)
                watch = self._watch_steps(run, task, work, interrupts)
                fitted = follow_training(fit_signal_network(task), task, run.title, self.on_progress, watch)
            return self._write_table(run, fitted, None, started, peak.bytes)

    def _write_table(
        self, run: PlannedRun, fitted: FittedTable, features: RowFeatures | None, started: datetime, peak_bytes: int
    ) -> dict[str, Any]:
        pixels, metrics = self.load_pixels(run.image_set), self.planned.study.metrics
        with self.store.create_run(run.key) as folder:
            record = write_table_run(folder, run, fitted, features, pixels, metrics, started, peak_bytes=peak_bytes)
            self.shifts.evaluate_table(run, folder.folder, fitted, pixels)
        self.store.clear_work(run.key)
        return dict(record["metrics"])

    def train_batch(self, runs: list[PlannedRun]) -> list[FitOutcome]:
        """Trains the heads of at most MAX_BATCHED_HEADS runs of one batch key."""
        with PeakMemory(self.device) as peak:
            outcomes = fit_batched([replace(self._make_task(run, Checkpoints(None)), group=None) for run in runs])
        return [replace(o, peak_memory_bytes=peak.bytes) if isinstance(o, TrainedRun) else o for o in outcomes]

    def list_batches(self, run: PlannedRun) -> list[list[PlannedRun]]:
        """The planned runs whose heads may be trained with this one's, in the order of the plan, as they are trained at once."""
        heads = self._heads_by_key[make_batch_key(run)]
        return [heads[start : start + MAX_BATCHED_HEADS] for start in range(0, len(heads), MAX_BATCHED_HEADS)]

    @cached_property
    def _heads_by_key(self) -> dict[str, list[PlannedRun]]:
        heads: dict[str, list[PlannedRun]] = {}  # found once: asking every run for every candidate would be quadratic
        for run in filter(is_batched, self.planned.runs):
            heads.setdefault(make_batch_key(run), []).append(run)
        return heads

    def find_batch(self, run: PlannedRun) -> list[PlannedRun]:
        return next(batch for batch in self.list_batches(run) if run in batch)

    def write_run_folder(self, run: PlannedRun, outcome: FitOutcome | Exception, started: datetime) -> dict[str, Any]:
        """Writes the folder of a trained run; returns its metrics. Raises the outcome if it is an error."""
        if isinstance(outcome, Exception):
            raise outcome
        with self.store.create_run(run.key) as folder:
            needed = run.key in self.planned.dependents
            metrics = self.planned.study.metrics
            record = run_record.write_trained_run(folder, run, outcome, metrics, started, needed_by_others=needed)
            self.shifts.evaluate_network(run, folder.folder, outcome.model, outcome.initial_weight_digests, outcome.task.pixels)
        self.store.clear_work(run.key)
        note_speed(run, record, self.planned.study.base, self.cache, self.device.type, torch.get_num_threads())
        return dict(record["metrics"])

    def delete_unneeded_bundles(self, run: PlannedRun) -> None:
        """Deletes bundles that were kept only for runs that depend on them, once all of these are done."""
        for key in (run.key, *run.needs):
            planned, dependents = self.planned.by_key[key], self.planned.dependents.get(key, [])
            if dependents and not planned.keep_bundle and all(other.key in self.store for other in dependents):
                shutil.rmtree(self.store.run(key).folder / "bundle", ignore_errors=True)

    def _make_task(self, run: PlannedRun, checkpoints: Checkpoints, interrupts: list[int] | None = None) -> TrainingTask:
        candidate, distillation = run.candidate, run.candidate.distillation
        shown = distillation.teacher if distillation else " + ".join(b.name for b in candidate.backbones) or candidate.name

        def report_progress(done: int, total: int) -> None:
            if interrupts:
                raise StopRequest(interrupts[0])  # the features computed so far are kept, but for a few blocks
            self.on_progress(ProgressEvent("features", shown, done, total))

        return TrainingTask(
            candidate=run.candidate,
            split=run.split,
            dataset=run.image_set.dataset,
            pixels=self.load_pixels(run.image_set),
            device=self.device,
            cache=self.cache,
            weights_base=self.planned.study.base,
            checkpoints=checkpoints,
            progress=report_progress,
            teacher=self._make_teacher(run) if distillation is not None and run.needs else None,
            member_bundles=tuple(self._ensure_bundle(key) for key in run.needs) if run.candidate.members else (),
            group=self.group,
        )

    def _make_teacher(self, run: PlannedRun) -> Teacher:
        key = run.needs[-1]
        planned = self.planned.by_key[key]
        recipe, hashes = planned.candidate.recipe, run.image_set.dataset.hashed_ids
        return Teacher(
            name=planned.candidate.name,
            identity=self.store.run(key).record["digests"]["classifier"],
            load_model=lambda: classifiers.load_classifier(self._ensure_bundle(key), list(collect_extensions(planned.candidate))),
            trained_on=hashes[planned.split.train] if recipe.phases else hashes[:0],
            dtype=resolve_autocast_dtype(recipe, self.device),
            keep_logits=self.planned.needs_full_logits(key),
        )

    def _ensure_bundle(self, key: str) -> Path:
        """Bundle of a finished run that others need; where it was not kept, the run is trained again, to the same bits."""
        folder = self.store.run(key).folder / "bundle"
        with file_lock(self.store.folder / "locks" / f"{key}.bundle.lock"):
            set_aside_damaged_bundle(folder)
            if not folder.is_dir():
                planned = self.planned.by_key[key]
                self.on_progress(ProgressEvent("start", f"{planned.title}, again because its model was not kept"))
                run_record.save_bundle(folder, planned, self.retrain_run(planned))
        return folder

    def retrain_run(self, run: PlannedRun) -> TrainedRun:
        """Trains a finished run again, to the same bits on the machine of the study; writes no results."""
        if is_batched(run):
            batch = self.find_batch(run)
            outcome = self.train_batch(batch)[batch.index(run)]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        work = self.store.work_folder(run.key)
        checkpoints = Checkpoints(work, self.checkpoint_s)
        with defer_stop(checkpoints.request_save) as interrupts:
            fitted = self._drive_training(run, self._make_task(run, checkpoints, interrupts), work, interrupts)
        self.store.clear_work(run.key)
        return fitted

    def _drive_training(self, run: PlannedRun, task: TrainingTask, work: Path, interrupts: list[int]) -> TrainedRun:
        return drive_training(task, run.title, self.on_progress, self._watch_steps(run, task, work, interrupts))

    def _watch_steps(self, run: PlannedRun, task: TrainingTask, work: Path, interrupts: list[int]) -> StepFunction:
        """Writes where a run is for other processes to read, and raises StopRequest when asked to stop."""
        last_note = 0.0

        def note_and_stop(note: dict[str, Any]) -> None:
            nonlocal last_note
            if time.monotonic() - last_note >= STATUS_INTERVAL_S:
                last_note = time.monotonic()
                write_progress_note(work, {"candidate": run.candidate.name, "split": run.split.name, **note})
            if interrupts and not task.checkpoints.is_due():
                raise StopRequest(interrupts[0])

        return note_and_stop

    def load_pixels(self, image_set: ImageSet) -> Pixels:
        name = digest(image_set.identity)
        if name not in self._loaded_pixels:
            self._loaded_pixels = {name: open_pixels(image_set, self.cache, self.on_progress)}
        return self._loaded_pixels[name]
