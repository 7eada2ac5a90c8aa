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

from phoropter.core.files import digest, lock
from phoropter.data.dataset import Dataset
from phoropter.data.pixels import Pixels, prepare
from phoropter.models import classifier as classifiers
from phoropter.results.store import Store, write_now
from phoropter.study import record
from phoropter.study.cost import backbone_macs, remember_speed
from phoropter.study.plan import Material, Plan, PlannedRun
from phoropter.study.progress import Event, Watch
from phoropter.training.checkpoint import Checkpoints
from phoropter.training.fit import Fitted, Task, fit
from phoropter.training.loop import Tick, precision_of
from phoropter.training.teacher import Teacher
from phoropter.training.together import MOST, Outcome, fit_together, fits_together, kin

POLL_S = 1.0  # how often what is under way is told to other processes


def heads_of(run: PlannedRun) -> str:
    """Equal for runs whose heads are trained together."""
    return digest([kin(run.candidate), run.material.identity])


def prepared(material: Material, cache: Path, watch: Watch) -> tuple[Dataset, Pixels]:
    """The dataset of a material with what could not be decoded left out, and its pictures; decoded now if they are not yet."""
    spec = material.data
    return prepare(
        material.dataset,
        material.side,
        fit=spec.fit,
        resample=spec.resample,
        cache=cache,
        on_bad_input=spec.on_bad_input,
        progress=lambda done, total: watch(Event("decoding", done=done, total=total)),
    )


class Computation:
    """Computes the runs of a plan, in one process."""

    def __init__(self, planned: Plan, store: Store, cache: Path, device: torch.device, checkpoint_s: float, watch: Watch) -> None:
        self.planned, self.store, self.cache, self.device, self.watch = planned, store, cache, device, watch
        self.checkpoint_s = checkpoint_s
        self._held: dict[str, Pixels] = {}

    def alone(self, run: PlannedRun) -> dict[str, Any]:
        """Trains what belongs to one run and writes its folder; its metrics. Raises KeyboardInterrupt where one is asked for."""
        started = datetime.now(UTC)
        work = self.store.work(run.key)
        checkpoints = Checkpoints(work, self.checkpoint_s)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with _interruptible(checkpoints) as asked:
            fitted = self._train(run, self._task(run, checkpoints, asked), work, asked)
            note = self.keep(run, fitted, started)
            if asked:
                raise KeyboardInterrupt
        return note

    def average(self, run: PlannedRun) -> dict[str, Any]:
        """The mean of its members' probabilities, from their predictions."""
        started = datetime.now(UTC)
        members = [self.store.run(key) for key in run.needs]
        with self.store.writing(run.key) as folder:
            made = record.write_average(
                folder, run, members, self._pixels(run.material), self.planned.question.study.metrics, started
            )
        return dict(made["metrics"])

    def outcomes(self, some: list[PlannedRun]) -> list[Outcome]:
        """Of runs whose heads are trained together, at most MOST."""
        return fit_together([self._task(r, Checkpoints(None)) for r in some])

    def kin(self, run: PlannedRun) -> list[PlannedRun]:
        """The planned runs whose heads share a program with this one's, in the order of the plan."""
        heads = heads_of(run)
        return [r for r in self.planned.runs if fits_together(r.candidate) and heads_of(r) == heads]

    def keep(self, run: PlannedRun, outcome: Outcome | Exception, started: datetime) -> dict[str, Any]:
        """Writes the run folder; its metrics. Raises what the outcome is when it is an error."""
        if isinstance(outcome, Exception):
            raise outcome
        with self.store.writing(run.key) as folder:
            lends = run.key in self.planned.heirs
            made = record.write(folder, run, outcome, self.planned.question.study.metrics, started, lends=lends)
        self.store.clear_work(run.key)
        self._measure(run, made["cost"])
        return dict(made["metrics"])

    def release(self, run: PlannedRun) -> None:
        """Removes the bundles only this run and others like it needed, once all of them are done."""
        for key in (run.key, *run.needs):
            planned, heirs = self.planned.by_key[key], self.planned.heirs.get(key, [])
            if heirs and not planned.keep_bundle and all(heir.key in self.store for heir in heirs):
                shutil.rmtree(self.store.run(key).folder / "bundle", ignore_errors=True)

    def _task(self, run: PlannedRun, checkpoints: Checkpoints, asked: list[int] | None = None) -> Task:
        who = run.candidate.teaching.teacher if run.candidate.teaching else " + ".join(b.name for b in run.candidate.backbones)

        def progress(done: int, total: int) -> None:
            if asked:
                raise KeyboardInterrupt  # what was asked so far is kept, but for a few blocks
            self.watch(Event("features", who, done, total))

        taught = run.candidate.teaching is not None and bool(run.needs)
        return Task(
            candidate=run.candidate,
            split=run.split,
            dataset=run.material.dataset,
            pixels=self._pixels(run.material),
            device=self.device,
            cache=self.cache,
            base=self.planned.question.base,
            checkpoints=checkpoints,
            progress=progress,
            teacher=self._teacher(run) if taught else None,
            members=tuple(self._bundle(key) for key in run.needs) if run.candidate.members else (),
        )

    def _teacher(self, run: PlannedRun) -> Teacher:
        key = run.needs[-1]
        planned = self.planned.by_key[key]
        recipe, hashes = planned.candidate.recipe, run.material.dataset.hashes
        return Teacher(
            name=planned.candidate.name,
            identity=self.store.run(key).record["digests"]["classifier"],
            load=lambda: classifiers.load(self._bundle(key)),
            trained_on=hashes[planned.split.train] if recipe.phases else hashes[:0],
            dtype=precision_of(recipe, self.device),
            whole=self.planned.asks_logits(key),
        )

    def _bundle(self, key: str) -> Path:
        """The bundle of a finished run that others need; trained again, to the same bits, where it was not kept."""
        folder = self.store.run(key).folder / "bundle"
        with lock(self.store.folder / "locks" / f"{key}.bundle.lock"):
            if not folder.is_dir():
                planned = self.planned.by_key[key]
                self.watch(Event("start", f"{planned.title}, again for what it teaches"))
                record.save_bundle(folder, planned, self._again(planned))
        return folder

    def _again(self, run: PlannedRun) -> Fitted:
        if fits_together(run.candidate):
            heads = self.kin(run)
            start = heads.index(run) // MOST * MOST
            outcomes = self.outcomes(heads[start : start + MOST])
            outcome = outcomes[heads.index(run) - start]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        work = self.store.work(run.key)
        checkpoints = Checkpoints(work, self.checkpoint_s)
        with _interruptible(checkpoints) as asked:
            fitted = self._train(run, self._task(run, checkpoints, asked), work, asked)
        self.store.clear_work(run.key)
        return fitted

    def _train(self, run: PlannedRun, task: Task, work: Path, asked: list[int]) -> Fitted:
        training = fit(task)
        said = 0.0
        while True:
            try:
                step = next(training)
            except StopIteration as stop:
                fitted: Fitted = stop.value
                return fitted
            note = vars(step) if isinstance(step, Tick) else {**step, "epochs": task.candidate.recipe.epochs}
            self.watch(Event("tick" if isinstance(step, Tick) else "epoch", run.title, note=note))
            if time.monotonic() - said >= POLL_S:
                said = time.monotonic()
                write_now(work, {"candidate": run.candidate.name, "split": run.split.name, **note})
            if asked and not task.checkpoints.due():
                raise KeyboardInterrupt

    def _pixels(self, material: Material) -> Pixels:
        name = digest(material.identity)
        if name not in self._held:
            self._held = {name: prepared(material, self.cache, self.watch)[1]}
        return self._held[name]

    def _measure(self, run: PlannedRun, cost: dict[str, Any]) -> None:
        """Tells the next plan how fast this machine is, by the runs that trained a backbone."""
        if self.device.type == "cpu" and not run.candidate.stores_features and cost["train_seconds"] > 1:
            macs = sum(backbone_macs(b.name, b.size or run.material.side) for b in run.candidate.backbones)
            shown = sum(p.epochs * (3 if p.train == "all" else 1) for p in run.candidate.recipe.phases) * len(run.split.train)
            remember_speed(self.cache, self.device.type, macs * shown / cost["train_seconds"])


@contextmanager
def _interruptible(checkpoints: Checkpoints) -> Iterator[list[int]]:
    """The first Ctrl-C asks for a checkpoint and an orderly end (the list yielded gets an entry); a second one ends at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        checkpoints.ask()

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread: whoever started the thread handles the signal
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
