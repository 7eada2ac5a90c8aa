"""One run → one run folder. A failure leaves a note and the study goes on; a kill leaves a checkpoint and nothing half-made.

Several processes may work on one store: each takes the next missing run nobody holds, so no run is computed twice, and each
ends only when every run is done or has failed. A run waits for those it needs (a student for its teacher, a fusion for its
members), whoever computes them; where one of these fails, it fails with that reason. What others need of a run is its bundle: it
stays until they are done.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from phoropter.core.errors import PhoropterError, RunError
from phoropter.core.files import cache_dir, digest, lock
from phoropter.data.dataset import Dataset
from phoropter.data.pixels import Pixels, prepare
from phoropter.models import classifier as classifiers
from phoropter.results.store import Store, write_now
from phoropter.study import record
from phoropter.study.audit import check_leakage, compared_by_features, plain
from phoropter.study.cost import backbone_macs, remember_speed
from phoropter.study.plan import Material, Plan, PlannedRun, plan
from phoropter.study.progress import Event, Watch
from phoropter.study.spec import Question
from phoropter.training.checkpoint import Checkpoints
from phoropter.training.fit import Fitted, Task, fit
from phoropter.training.loop import Tick, precision_of
from phoropter.training.teacher import Teacher
from phoropter.training.together import MOST, Outcome, fit_together, fits_together, kin

POLL_S = 1.0  # how often to look whether another process has finished a run we wait for


def _heads(run: PlannedRun) -> str:
    """Equal for runs whose heads are trained together."""
    return digest([kin(run.candidate), run.material.identity])


@dataclass(frozen=True)
class Here:
    """Where and how runs are computed.

    device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` · threads: of torch on a processor, None: all cores ·
    checkpoint_s: how often a run under way is saved
    """

    device: str = "auto"
    threads: int | None = None
    checkpoint_s: float = 20.0

    def settle(self) -> torch.device:
        """Sets the threads and names the device."""
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def run_study(question: Question, out: Path, watch: Watch, here: Here | None = None, cache: Path | None = None) -> Store:
    """Computes what is missing of a question in `out`. Raises what `plan` raises; a run that fails is noted and passed over.

    KeyboardInterrupt leaves at the next step with a checkpoint; the same call goes on from there.
    """
    here = here or Here()
    device = here.settle()
    cache = cache or cache_dir(out)
    store = Store(out)
    planned = plan(question, cache)
    if not all(m.decoded for m in planned.materials):
        for material in planned.materials:
            _pixels(material, cache, watch)
        planned = plan(question, cache)  # rows that could not be decoded are known, and left out, from here on

    def pixels_of(material: Material) -> Pixels:
        return _pixels(material, cache, watch)[1]

    def audited() -> None:
        findings = check_leakage(planned, pixels_of, cache, out)
        store.describe(record.description(planned, device) | {"audit": plain(findings)})

    audited()
    compared = compared_by_features(planned, pixels_of, cache)
    worker = _Worker(planned, store, cache, device, here, watch)
    worker.work()
    if compared_by_features(planned, pixels_of, cache) > compared:
        audited()  # by the features that are there now
    return store


def _pixels(material: Material, cache: Path, watch: Watch) -> tuple[Dataset, Pixels]:
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


class _Worker:
    """Takes one missing run after another until none is left."""

    def __init__(self, planned: Plan, store: Store, cache: Path, device: torch.device, here: Here, watch: Watch) -> None:
        self.planned, self.store, self.cache, self.device, self.here, self.watch = planned, store, cache, device, here, watch
        self.pixels: dict[str, Pixels] = {}
        self.failed: set[str] = set()

    def work(self) -> None:
        total = len(self.planned.runs)
        while True:
            missing = [r for r in self.planned.missing(self.store) if r.key not in self.failed]
            if not missing:
                return
            done = total - len(missing)
            for runs in self._portions([r for r in missing if self._ready(r)]):
                done += self._take(runs, done, total)
            for run in missing:
                self._orphaned(run, done, total)
            if done == total - len(missing) and not self.failed.intersection(r.key for r in missing):
                self.watch(Event("waiting", done=done, total=total))
                time.sleep(POLL_S)

    def _ready(self, run: PlannedRun) -> bool:
        return all(key in self.store for key in run.needs)

    def _orphaned(self, run: PlannedRun, done: int, total: int) -> None:
        """Notes a run as failed whose teacher or member has failed."""
        lost = next((key for key in run.needs if key in self.failed), None)
        if lost is None or run.key in self.failed:
            return
        title = self.planned.by_key[lost].title
        why = self.store.failures().get(lost, {}).get("error", "it left no note")
        error = RunError(f"what it needs, {title}, failed: {why}")
        self.failed.add(run.key)
        self.store.fail(run.key, record.failure(run, error))
        self.watch(Event("failed", run.title, done, total, {"error": str(error)}))

    def _portions(self, missing: list[PlannedRun]) -> Iterator[list[PlannedRun]]:
        """Runs that are computed at once: all missing heads of one frozen candidate, every other run by itself."""
        together: dict[str, list[PlannedRun]] = {}
        for run in missing:
            if fits_together(run.candidate):
                together.setdefault(_heads(run), []).append(run)
        for run in missing:
            if not fits_together(run.candidate):
                yield [run]
            elif heads := together.pop(_heads(run), None):
                yield heads

    def _take(self, runs: list[PlannedRun], done: int, total: int) -> int:
        """Computes those of the runs that no other process holds; how many were ours and are done."""
        with ExitStack() as leases:
            ours = [run for run in runs if leases.enter_context(self.store.lease(run.key))]
            if not ours:
                return 0
            self.watch(
                Event("start", ours[0].title if len(ours) == 1 else f"{ours[0].candidate.name} · {len(ours)} heads", done, total)
            )
            if len(ours) == 1 and not fits_together(ours[0].candidate):
                compute = self._average if ours[0].candidate.averages else self._compute
                finished = self._finish(ours[0], lambda: compute(ours[0]), done, total)
            else:
                finished = self._compute_heads(ours, done, total)
        for run in ours:
            self._release(run)
        return finished

    def _finish(self, run: PlannedRun, compute: Callable[[], dict[str, Any]], done: int, total: int) -> int:
        """1 when `compute` leaves a run folder, 0 when it fails and a note is left instead."""
        try:
            note = compute()
        except (PhoropterError, RuntimeError, ValueError, MemoryError) as error:
            self.failed.add(run.key)
            self.store.fail(run.key, record.failure(run, error))
            self.watch(Event("failed", run.title, done, total, {"error": record.sentence(error)}))
            return 0
        self.watch(Event("done", run.title, done + 1, total, note))
        return 1

    def _compute_heads(self, ours: list[PlannedRun], done: int, total: int) -> int:
        """All heads of the candidate are trained together, always the same ones in the same order, so that a resumed study ends
        with the same bits; those that are ours are kept."""
        started = datetime.now(UTC)
        first = ours[0]
        heads = self._kin(first)
        mine = {run.key for run in ours}
        finished = 0
        for start in range(0, len(heads), MOST):
            some = heads[start : start + MOST]
            if not mine.intersection(r.key for r in some):
                continue
            outcomes: list[Outcome | Exception]
            try:
                outcomes = list(fit_together([self._task(r, Checkpoints(None)) for r in some]))
            except (PhoropterError, RuntimeError, ValueError, MemoryError) as error:
                outcomes = [error] * len(some)
            for run, outcome in zip(some, outcomes, strict=True):
                if run.key in mine:
                    finished += self._finish(run, partial(self._keep, run, outcome, started), done + finished, total)
        return finished

    def _kin(self, run: PlannedRun) -> list[PlannedRun]:
        """The planned runs whose heads share a program with this one's, in the order of the plan."""
        heads = _heads(run)
        return [r for r in self.planned.runs if fits_together(r.candidate) and _heads(r) == heads]

    def _compute(self, run: PlannedRun) -> dict[str, Any]:
        started = datetime.now(UTC)
        work = self.store.work(run.key)
        checkpoints = Checkpoints(work, self.here.checkpoint_s)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with _interruptible(checkpoints) as asked:
            fitted = self._train(run, self._task(run, checkpoints, asked), work, asked)
            note = self._keep(run, fitted, started)
            if asked:
                raise KeyboardInterrupt
        return note

    def _average(self, run: PlannedRun) -> dict[str, Any]:
        """The mean of its members' probabilities, from their predictions."""
        started = datetime.now(UTC)
        members = [self.store.run(key) for key in run.needs]
        with self.store.writing(run.key) as folder:
            made = record.write_average(
                folder, run, members, self._pixels(run.material), self.planned.question.study.metrics, started
            )
        return dict(made["metrics"])

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
            heads = self._kin(run)
            start = heads.index(run) // MOST * MOST
            outcomes = fit_together([self._task(r, Checkpoints(None)) for r in heads[start : start + MOST]])
            outcome = outcomes[heads.index(run) - start]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        work = self.store.work(run.key)
        checkpoints = Checkpoints(work, self.here.checkpoint_s)
        with _interruptible(checkpoints) as asked:
            fitted = self._train(run, self._task(run, checkpoints, asked), work, asked)
        self.store.clear_work(run.key)
        return fitted

    def _release(self, run: PlannedRun) -> None:
        """Removes the bundles only this run and others like it needed, once all of them are done."""
        for key in (run.key, *run.needs):
            planned, heirs = self.planned.by_key[key], self.planned.heirs.get(key, [])
            if heirs and not planned.keep_bundle and all(heir.key in self.store for heir in heirs):
                shutil.rmtree(self.store.run(key).folder / "bundle", ignore_errors=True)

    def _keep(self, run: PlannedRun, outcome: Outcome | Exception, started: datetime) -> dict[str, Any]:
        """Writes the run folder; its metrics. Raises what the outcome is when it is an error."""
        if isinstance(outcome, Exception):
            raise outcome
        with self.store.writing(run.key) as folder:
            lends = run.key in self.planned.heirs
            made = record.write(folder, run, outcome, self.planned.question.study.metrics, started, lends=lends)
        self.store.clear_work(run.key)
        self._measure(run, made["cost"])
        return dict(made["metrics"])

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
        if name not in self.pixels:
            self.pixels = {name: _pixels(material, self.cache, self.watch)[1]}
        return self.pixels[name]

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
