"""A plan → its run folders. A failure leaves a note and the study goes on; a kill leaves a checkpoint and nothing half-made.

Several processes may work on one store: each takes the next missing run nobody holds, so no run is computed twice, and each
ends only when every run is done or has failed. A run waits for those it needs (a student for its teacher, a fusion for its
members), whoever computes them; where one of these fails, it fails with that reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from phoropter.core.errors import PhoropterError, RunError
from phoropter.core.files import cache_dir
from phoropter.data.pixels import Pixels
from phoropter.results.store import Store
from phoropter.study import record
from phoropter.study.audit import check_leakage, compared_by_features, plain
from phoropter.study.computation import Computation, heads_of, prepared
from phoropter.study.plan import Material, PlannedRun, plan
from phoropter.study.progress import Event, Watch
from phoropter.study.spec import Question
from phoropter.training.together import MOST, Outcome, fits_together

POLL_S = 1.0  # how often to look whether another process has finished a run we wait for


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
            prepared(material, cache, watch)
        planned = plan(question, cache)  # rows that could not be decoded are known, and left out, from here on

    def pixels_of(material: Material) -> Pixels:
        return prepared(material, cache, watch)[1]

    def audited() -> None:
        findings = check_leakage(planned, pixels_of, cache, out)
        store.describe(record.description(planned, device) | {"audit": plain(findings)})

    audited()
    compared = compared_by_features(planned, pixels_of, cache)
    _Worker(Computation(planned, store, cache, device, here.checkpoint_s, watch)).work()
    if compared_by_features(planned, pixels_of, cache) > compared:
        audited()  # by the features that are there now
    return store


class _Worker:
    """Takes one missing run after another until none is left."""

    def __init__(self, computation: Computation) -> None:
        self.computation = computation
        self.planned, self.store, self.watch = computation.planned, computation.store, computation.watch
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
                together.setdefault(heads_of(run), []).append(run)
        for run in missing:
            if not fits_together(run.candidate):
                yield [run]
            elif heads := together.pop(heads_of(run), None):
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
                compute = self.computation.average if ours[0].candidate.averages else self.computation.alone
                finished = self._finish(ours[0], lambda: compute(ours[0]), done, total)
            else:
                finished = self._compute_heads(ours, done, total)
        for run in ours:
            self.computation.release(run)
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
        heads = self.computation.kin(first)
        mine = {run.key for run in ours}
        finished = 0
        for start in range(0, len(heads), MOST):
            some = heads[start : start + MOST]
            if not mine.intersection(r.key for r in some):
                continue
            outcomes: list[Outcome | Exception]
            try:
                outcomes = list(self.computation.outcomes(some))
            except (PhoropterError, RuntimeError, ValueError, MemoryError) as error:
                outcomes = [error] * len(some)
            for run, outcome in zip(some, outcomes, strict=True):
                if run.key in mine:
                    finished += self._finish(run, partial(self.computation.keep, run, outcome, started), done + finished, total)
        return finished
