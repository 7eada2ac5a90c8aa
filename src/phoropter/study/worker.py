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
from phoropter.data.images.pixels import Pixels
from phoropter.results.store import Store
from phoropter.study import run_record
from phoropter.study.audit import check_leakage, count_datasets_with_features, findings_to_plain
from phoropter.study.compute import Computation, make_batch_key, prepare_images
from phoropter.study.plan import ImageSet, PlannedRun, plan_study
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.study.spec import StudyInput
from phoropter.training.frozen.batched_fit import MAX_BATCHED_HEADS, FitOutcome, can_batch

POLL_INTERVAL_S = 1.0  # how often to look whether another process has finished a run we wait for


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how runs are computed.

    device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` · threads: of torch on a processor, None: all cores ·
    checkpoint_s: how often a run under way is saved
    """

    device: str = "auto"
    threads: int | None = None
    checkpoint_s: float = 20.0

    def set_up_device(self) -> torch.device:
        """Sets the threads and names the device."""
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def compute_missing_runs(
    question: StudyInput, out: Path, watch: ProgressCallback, here: ComputeOptions | None = None, cache: Path | None = None
) -> Store:
    """Computes what is missing of a question in `out`. Raises what `plan` raises; a run that fails is noted and passed over.

    KeyboardInterrupt leaves at the next step with a checkpoint; the same call goes on from there.
    """
    here = here or ComputeOptions()
    device = here.set_up_device()
    cache = cache or cache_dir(out)
    store = Store(out)
    planned = plan_study(question, cache)
    if not all(m.decoded for m in planned.image_sets):
        for material in planned.image_sets:
            prepare_images(material, cache, watch)
        planned = plan_study(question, cache)  # rows that could not be decoded are known, and left out, from here on

    def pixels_of(material: ImageSet) -> Pixels:
        return prepare_images(material, cache, watch)[1]

    def write_audit() -> None:
        findings = check_leakage(planned, pixels_of, cache, out)
        store.write_study(run_record.describe_study(planned, device) | {"audit": findings_to_plain(findings)})

    write_audit()
    compared = count_datasets_with_features(planned, pixels_of, cache)
    _Worker(Computation(planned, store, cache, device, here.checkpoint_s, watch)).compute_all()
    if count_datasets_with_features(planned, pixels_of, cache) > compared:
        write_audit()  # by the features that are there now
    return store


class _Worker:
    """Takes one missing run after another until none is left."""

    def __init__(self, computation: Computation) -> None:
        self.computation = computation
        self.planned, self.store, self.watch = computation.planned, computation.store, computation.watch
        self.failed: set[str] = set()

    def compute_all(self) -> None:
        total = len(self.planned.runs)
        while True:
            missing = [r for r in self.planned.missing_runs(self.store) if r.key not in self.failed]
            if not missing:
                return
            done = total - len(missing)
            for runs in self._group_into_batches([r for r in missing if self._is_ready(r)]):
                done += self._compute_unheld(runs, done, total)
            for run in missing:
                self._fail_if_orphaned(run, done, total)
            if done == total - len(missing) and not self.failed.intersection(r.key for r in missing):
                self.watch(ProgressEvent("waiting", done=done, total=total))
                time.sleep(POLL_INTERVAL_S)

    def _is_ready(self, run: PlannedRun) -> bool:
        return all(key in self.store for key in run.needs)

    def _fail_if_orphaned(self, run: PlannedRun, done: int, total: int) -> None:
        """Notes a run as failed whose teacher or member has failed."""
        lost = next((key for key in run.needs if key in self.failed), None)
        if lost is None or run.key in self.failed:
            return
        title = self.planned.by_key[lost].title
        why = self.store.read_failures().get(lost, {}).get("error", "it left no note")
        error = RunError(f"what it needs, {title}, failed: {why}")
        self.failed.add(run.key)
        self.store.record_failure(run.key, run_record.describe_failure(run, error))
        self.watch(ProgressEvent("failed", run.title, done, total, {"error": str(error)}))

    def _group_into_batches(self, missing: list[PlannedRun]) -> Iterator[list[PlannedRun]]:
        """Runs that are computed at once: all missing heads of one frozen candidate, every other run by itself."""
        together: dict[str, list[PlannedRun]] = {}
        for run in missing:
            if can_batch(run.candidate):
                together.setdefault(make_batch_key(run), []).append(run)
        for run in missing:
            if not can_batch(run.candidate):
                yield [run]
            elif heads := together.pop(make_batch_key(run), None):
                yield heads

    def _compute_unheld(self, runs: list[PlannedRun], done: int, total: int) -> int:
        """Computes those of the runs that no other process holds; how many were ours and are done."""
        with ExitStack() as leases:
            ours = [run for run in runs if leases.enter_context(self.store.hold_lease(run.key))]
            if not ours:
                return 0
            self.watch(
                ProgressEvent(
                    "start", ours[0].title if len(ours) == 1 else f"{ours[0].candidate.name} · {len(ours)} heads", done, total
                )
            )
            if len(ours) == 1 and not can_batch(ours[0].candidate):
                compute = self.computation.average_members if ours[0].candidate.is_ensemble else self.computation.train_run
                finished = self._finish_run(ours[0], lambda: compute(ours[0]), done, total)
            else:
                finished = self._compute_heads(ours, done, total)
        for run in ours:
            self.computation.delete_unneeded_bundles(run)
        return finished

    def _finish_run(self, run: PlannedRun, compute: Callable[[], dict[str, Any]], done: int, total: int) -> int:
        """1 when `compute` leaves a run folder, 0 when it fails and a note is left instead."""
        try:
            note = compute()
        except (PhoropterError, RuntimeError, ValueError, MemoryError) as error:
            self.failed.add(run.key)
            self.store.record_failure(run.key, run_record.describe_failure(run, error))
            self.watch(ProgressEvent("failed", run.title, done, total, {"error": run_record.first_error_line(error)}))
            return 0
        self.watch(ProgressEvent("done", run.title, done + 1, total, note))
        return 1

    def _compute_heads(self, ours: list[PlannedRun], done: int, total: int) -> int:
        """All heads of the candidate are trained together, always the same ones in the same order, so that a resumed study ends
        with the same bits; those that are ours are kept."""
        started = datetime.now(UTC)
        first = ours[0]
        heads = self.computation.batch_peers(first)
        mine = {run.key for run in ours}
        finished = 0
        for start in range(0, len(heads), MAX_BATCHED_HEADS):
            some = heads[start : start + MAX_BATCHED_HEADS]
            if not mine.intersection(r.key for r in some):
                continue
            outcomes: list[FitOutcome | Exception]
            try:
                outcomes = list(self.computation.train_batch(some))
            except (PhoropterError, RuntimeError, ValueError, MemoryError) as error:
                outcomes = [error] * len(some)
            for run, outcome in zip(some, outcomes, strict=True):
                if run.key in mine:
                    finished += self._finish_run(
                        run, partial(self.computation.write_run_folder, run, outcome, started), done + finished, total
                    )
        return finished
