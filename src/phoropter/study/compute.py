"""From a planned run to its folder: the task, its teacher and members, training, and what is kept.

What others need of a run is its bundle: it stays until they are done.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from phoropter.core.files import digest, file_lock
from phoropter.data.dataset import Dataset
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.images.pixels import Pixels
from phoropter.models import classifier as classifiers
from phoropter.results.store import Store, write_progress_note
from phoropter.study import run_record
from phoropter.study.cost import estimate_macs, update_measured_speed
from phoropter.study.plan import ImageSet, Plan, PlannedRun
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.training.distillation import Teacher
from phoropter.training.fit import TrainedRun, TrainingTask
from phoropter.training.frozen.batched_fit import MAX_BATCHED_HEADS, FitOutcome, batch_group_key, can_batch, fit_batched
from phoropter.training.loop.checkpoint import Checkpoints
from phoropter.training.loop.precision import resolve_autocast_dtype
from phoropter.training.loop.training_loop import StepProgress
from phoropter.training.train import train_candidate

STATUS_INTERVAL_S = 1.0  # how often what is under way is told to other processes


def make_batch_key(run: PlannedRun) -> str:
    """Equal for runs whose heads are trained together."""
    return digest([batch_group_key(run.candidate), run.image_set.identity])


def prepare_images(material: ImageSet, cache: Path, watch: ProgressCallback) -> tuple[Dataset, Pixels]:
    """The dataset of a material with what could not be decoded left out, and its pictures; decoded now if they are not yet."""
    spec = material.data
    return prepare_pixels(
        material.dataset,
        material.image_size,
        resize=spec.resize,
        interpolation=spec.interpolation,
        cache=cache,
        on_bad_input=spec.on_bad_input,
        progress=lambda done, total: watch(ProgressEvent("decoding", done=done, total=total)),
    )


class Computation:
    """Computes the runs of a plan, in one process."""

    def __init__(
        self, planned: Plan, store: Store, cache: Path, device: torch.device, checkpoint_s: float, watch: ProgressCallback
    ) -> None:
        self.planned, self.store, self.cache, self.device, self.watch = planned, store, cache, device, watch
        self.checkpoint_s = checkpoint_s
        self._held: dict[str, Pixels] = {}

    def train_run(self, run: PlannedRun) -> dict[str, Any]:
        """Trains what belongs to one run and writes its folder; its metrics. Raises KeyboardInterrupt where one is asked for."""
        started = datetime.now(UTC)
        work = self.store.work_folder(run.key)
        checkpoints = Checkpoints(work, self.checkpoint_s)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with _defer_interrupt(checkpoints) as asked:
            fitted = self._drive_training(run, self._make_task(run, checkpoints, asked), work, asked)
            note = self.write_run_folder(run, fitted, started)
            if asked:
                raise KeyboardInterrupt
        return note

    def average_members(self, run: PlannedRun) -> dict[str, Any]:
        """The mean of its members' probabilities, from their predictions."""
        started = datetime.now(UTC)
        members = [self.store.run(key) for key in run.needs]
        with self.store.create_run(run.key) as folder:
            made = run_record.write_averaged_run(
                folder, run, members, self._load_pixels(run.image_set), self.planned.question.study.metrics, started
            )
        return dict(made["metrics"])

    def train_batch(self, some: list[PlannedRun]) -> list[FitOutcome]:
        """Of runs whose heads are trained together, at most MOST."""
        return fit_batched([self._make_task(r, Checkpoints(None)) for r in some])

    def batch_peers(self, run: PlannedRun) -> list[PlannedRun]:
        """The planned runs whose heads share a program with this one's, in the order of the plan."""
        heads = make_batch_key(run)
        return [r for r in self.planned.runs if can_batch(r.candidate) and make_batch_key(r) == heads]

    def write_run_folder(self, run: PlannedRun, outcome: FitOutcome | Exception, started: datetime) -> dict[str, Any]:
        """Writes the run folder; its metrics. Raises what the outcome is when it is an error."""
        if isinstance(outcome, Exception):
            raise outcome
        with self.store.create_run(run.key) as folder:
            lends = run.key in self.planned.dependents
            made = run_record.write_trained_run(folder, run, outcome, self.planned.question.study.metrics, started, lends=lends)
        self.store.clear_work(run.key)
        self._record_speed(run, made["cost"])
        return dict(made["metrics"])

    def delete_unneeded_bundles(self, run: PlannedRun) -> None:
        """Removes the bundles only this run and others like it needed, once all of them are done."""
        for key in (run.key, *run.needs):
            planned, heirs = self.planned.by_key[key], self.planned.dependents.get(key, [])
            if heirs and not planned.keep_bundle and all(heir.key in self.store for heir in heirs):
                shutil.rmtree(self.store.run(key).folder / "bundle", ignore_errors=True)

    def _make_task(self, run: PlannedRun, checkpoints: Checkpoints, asked: list[int] | None = None) -> TrainingTask:
        who = run.candidate.teaching.teacher if run.candidate.teaching else " + ".join(b.name for b in run.candidate.backbones)

        def report_progress(done: int, total: int) -> None:
            if asked:
                raise KeyboardInterrupt  # what was asked so far is kept, but for a few blocks
            self.watch(ProgressEvent("features", who, done, total))

        taught = run.candidate.teaching is not None and bool(run.needs)
        return TrainingTask(
            candidate=run.candidate,
            split=run.split,
            dataset=run.image_set.dataset,
            pixels=self._load_pixels(run.image_set),
            device=self.device,
            cache=self.cache,
            weights_base=self.planned.question.base,
            checkpoints=checkpoints,
            progress=report_progress,
            teacher=self._make_teacher(run) if taught else None,
            member_bundles=tuple(self._ensure_bundle(key) for key in run.needs) if run.candidate.members else (),
        )

    def _make_teacher(self, run: PlannedRun) -> Teacher:
        key = run.needs[-1]
        planned = self.planned.by_key[key]
        recipe, hashes = planned.candidate.recipe, run.image_set.dataset.hashed_ids
        return Teacher(
            name=planned.candidate.name,
            identity=self.store.run(key).record["digests"]["classifier"],
            load_model=lambda: classifiers.load_classifier(self._ensure_bundle(key)),
            trained_on=hashes[planned.split.train] if recipe.phases else hashes[:0],
            dtype=resolve_autocast_dtype(recipe, self.device),
            keep_logits=self.planned.needs_full_logits(key),
        )

    def _ensure_bundle(self, key: str) -> Path:
        """The bundle of a finished run that others need; trained again, to the same bits, where it was not kept."""
        folder = self.store.run(key).folder / "bundle"
        with file_lock(self.store.folder / "locks" / f"{key}.bundle.lock"):
            if not folder.is_dir():
                planned = self.planned.by_key[key]
                self.watch(ProgressEvent("start", f"{planned.title}, again for what it teaches"))
                run_record.save_bundle(folder, planned, self._retrain_run(planned))
        return folder

    def _retrain_run(self, run: PlannedRun) -> TrainedRun:
        if can_batch(run.candidate):
            heads = self.batch_peers(run)
            start = heads.index(run) // MAX_BATCHED_HEADS * MAX_BATCHED_HEADS
            outcomes = self.train_batch(heads[start : start + MAX_BATCHED_HEADS])
            outcome = outcomes[heads.index(run) - start]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        work = self.store.work_folder(run.key)
        checkpoints = Checkpoints(work, self.checkpoint_s)
        with _defer_interrupt(checkpoints) as asked:
            fitted = self._drive_training(run, self._make_task(run, checkpoints, asked), work, asked)
        self.store.clear_work(run.key)
        return fitted

    def _drive_training(self, run: PlannedRun, task: TrainingTask, work: Path, asked: list[int]) -> TrainedRun:
        training = train_candidate(task)
        said = 0.0
        while True:
            try:
                step = next(training)
            except StopIteration as stop:
                fitted: TrainedRun = stop.value
                return fitted
            note = vars(step) if isinstance(step, StepProgress) else {**step, "epochs": task.candidate.recipe.total_epochs}
            self.watch(ProgressEvent("tick" if isinstance(step, StepProgress) else "epoch", run.title, note=note))
            if time.monotonic() - said >= STATUS_INTERVAL_S:
                said = time.monotonic()
                write_progress_note(work, {"candidate": run.candidate.name, "split": run.split.name, **note})
            if asked and not task.checkpoints.is_due():
                raise KeyboardInterrupt

    def _load_pixels(self, material: ImageSet) -> Pixels:
        name = digest(material.identity)
        if name not in self._held:
            self._held = {name: prepare_images(material, self.cache, self.watch)[1]}
        return self._held[name]

    def _record_speed(self, run: PlannedRun, cost: dict[str, Any]) -> None:
        """Tells the next plan how fast this machine is, by the runs that trained a backbone."""
        if self.device.type == "cpu" and not run.candidate.stores_features and cost["train_seconds"] > 1:
            macs = sum(estimate_macs(b.name, b.size or run.image_set.image_size) for b in run.candidate.backbones)
            shown = sum(p.epochs * (3 if p.train == "all" else 1) for p in run.candidate.recipe.phases) * len(run.split.train)
            update_measured_speed(self.cache, self.device.type, macs * shown / cost["train_seconds"])


@contextmanager
def _defer_interrupt(checkpoints: Checkpoints) -> Iterator[list[int]]:
    """The first Ctrl-C asks for a checkpoint and an orderly end (the list yielded gets an entry); a second one ends at once."""
    asked: list[int] = []

    def request_stop(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        checkpoints.request_save()

    try:
        before = signal.signal(signal.SIGINT, request_stop)
    except ValueError:  # not in the main thread: whoever started the thread handles the signal
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
