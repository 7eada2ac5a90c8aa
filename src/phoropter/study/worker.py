"""One process's work on a study: load → decode → plan → audit → run → audit by features.

A run that fails leaves a note and the study goes on; a kill leaves a checkpoint and no half-written folder. Several processes
may work on one store: each takes the next missing run that no other holds, so no run is computed twice, and each ends only when
every run is done or has failed. A run waits for those it needs (a student for its teacher, a fusion for its members), whoever
computes them; where one of these fails, it fails with that reason.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from phoropter.core.cpu_count import count_default_threads
from phoropter.core.errors import RunError
from phoropter.core.files import cache_dir, require_writable
from phoropter.data.subgroups import read_stated_subgroups
from phoropter.results.metrics.custom import Metric
from phoropter.results.preparation import PreparationNote
from phoropter.results.store import Store
from phoropter.results.subgroup_file import write_subgroups
from phoropter.study.audit import check_leakage, count_datasets_with_features, findings_to_plain
from phoropter.study.compute import Computation, decode_images, is_batched, make_batch_key, open_pixels
from phoropter.study.cost import follow_pace
from phoropter.study.finished.complete_shifts import complete_shifts
from phoropter.study.load import check_feature_engines, load_study
from phoropter.study.measuring.first_batches import learn_unknown_speeds
from phoropter.study.plan import Plan, PlannedRun, make_plan
from phoropter.study.progress import ProgressCallback, ProgressEvent, name_preparation
from phoropter.study.records.extensions_used import describe_extensions
from phoropter.study.records.other_study import raise_on_other_study
from phoropter.study.records.run_record import describe_failure, first_error_line
from phoropter.study.records.study_record import describe_study, find_relative_base
from phoropter.study.scheduling.run_order import order_by_folds
from phoropter.study.side_runs.tuned_run import settle_tuned_run
from phoropter.study.spec import StudySpec
from phoropter.study.variants.imported_candidates import add_imported
from phoropter.training.frozen.batched_fit import FitOutcome
from phoropter.training.loop.devices import resolve_device
from phoropter.training.loop.fatal_errors import MemoryWatch, find_disk_error, is_out_of_memory
from phoropter.training.loop.parallel.training_group import TrainingGroup

POLL_INTERVAL_S = 1.0  # how often to check whether another process has finished a run that others here wait for
MAX_ATTEMPTS = 2  # computations of a run, none of which leaves it in the store, after which it fails


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how runs are computed; none of it decides a number.

    device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` · threads: torch's CPU threads, None for all usable cores ·
    checkpoint_s: seconds between checkpoints of a run · add: whether the folder may hold another study, whose runs stay
    only: candidates to compute now, the others of the plan stay missing; empty for all
    keys: runs to compute now, with those they need; None for all
    group: the processes that train networks together, of which this is the first; None: this one alone
    folds_first: whether every candidate gets its first fold before any gets its second, for a study that may not end
    """

    device: str = "auto"
    threads: int | None = None
    checkpoint_s: float = 20.0
    add: bool = False
    only: tuple[str, ...] = ()
    keys: frozenset[str] | None = None
    group: TrainingGroup | None = None
    folds_first: bool = False

    def set_up_device(self) -> torch.device:
        """Sets the number of threads and returns the device. Raises SpecError for a device that is not there."""
        # torch knows which cores it is bound to, but neither the quota of a container nor what a job of SLURM has asked for
        torch.set_num_threads(self.threads or min(torch.get_num_threads(), count_default_threads()))
        return resolve_device(self.device)


def compute_missing_runs(
    study: StudySpec,
    out: Path,
    on_progress: ProgressCallback,
    options: ComputeOptions | None = None,
    cache: Path | None = None,
    failed_elsewhere: AbstractSet[str] = frozenset(),
) -> Store:
    """Computes what is missing of a study in `out`, in this process. A run that fails is noted and passed over.

    failed_elsewhere: keys of runs that failed in other processes of the same call; it may grow meanwhile
    Raises what `load_study` raises, DataError for images that cannot be decoded, and LeakageError; DiskError and
    MemoryShortageError where no later run could be computed either. StopRequest, a KeyboardInterrupt, ends it at the next step
    with a checkpoint; the same call resumes there.
    """
    note = PreparationNote(out)

    def notify(event: ProgressEvent) -> None:
        if event.kind == "decoding" or (event.kind == "features" and event.done < event.total):
            note.write_progress(name_preparation(event), event.done, event.total)
        elif event.kind not in ("settled", "forecast"):  # of a run, which `status` counts itself
            note.remove()
        on_progress(event)

    try:
        note.write_progress("reading the data")
        options = options or ComputeOptions()
        return _compute_study(study, Store(out), notify, note, options, cache or cache_dir(out), failed_elsewhere)
    finally:
        note.clear()


def _compute_study(
    study: StudySpec,
    store: Store,
    on_progress: ProgressCallback,
    note: PreparationNote,
    options: ComputeOptions,
    cache: Path,
    failed_elsewhere: AbstractSet[str],
) -> Store:
    device = options.set_up_device()
    require_writable(store.folder)
    study = add_imported(study, store.folder)
    planned, extensions = _plan_decoded(study, store, device, options, cache, on_progress)
    open_images = partial(open_pixels, cache=cache, on_progress=on_progress)

    def write_audit() -> None:
        note.write_progress("checking for leakage")
        findings = check_leakage(planned, cache, open_images, store.folder)
        record = describe_study(planned, device) | {"audit": findings_to_plain(findings)}
        own_metrics = [m.describe() for m in study.metrics if isinstance(m, Metric)]
        record |= {"custom_metrics": own_metrics} if own_metrics else {}
        record |= {"extensions": extensions} if extensions else {}
        record |= find_relative_base(study.base, store.folder)
        # Where report, compare and predict look for the modules of these extensions, if they are told to trust code
        record |= {"study_folder": str(study.base.resolve())} if extensions and study.base else {}
        store.write_study(record)
        note.remove()

    write_audit()
    own = planned.image_sets[0]
    write_subgroups(store.folder, own.dataset.ids, read_stated_subgroups(own.data, study.base, own.dataset))
    with_features = count_datasets_with_features(planned, cache, open_images)
    asked = replace(planned, runs=select_asked_runs(planned, options))
    expected = learn_unknown_speeds(asked, store, cache, device, open_images)
    with follow_pace(asked, expected, cache, device.type, torch.get_num_threads(), on_progress) as notify:
        computation = Computation(asked, store, cache, device, options.checkpoint_s, notify, options.group)
        failed = _Worker(computation, failed_elsewhere, options.folds_first).compute_all()
    complete_shifts(computation, failed)
    if count_datasets_with_features(planned, cache, open_images) > with_features:
        write_audit()
    return store


def _plan_decoded(
    study: StudySpec, store: Store, device: torch.device, options: ComputeOptions, cache: Path, on_progress: ProgressCallback
) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan of a study, whose images are decoded now, and its extensions. Raises where the folder holds another study."""
    check_feature_engines(loaded := load_study(study, cache), device.type)
    earlier = store.read_earlier_study()
    extensions = describe_extensions(study, loaded, earlier.get("extensions", ()))
    if earlier and not options.add:  # before an image is decoded
        raise_on_other_study(earlier, make_plan(study, loaded), store)
    planned = make_plan(study, decode_images(loaded, cache, on_progress))
    if not options.add:
        raise_on_other_study(earlier, planned, store)
    return planned, extensions


def select_asked_runs(planned: Plan, options: ComputeOptions) -> list[PlannedRun]:
    """The runs to compute now, in the order of the plan."""
    runs = [r for r in planned.runs if not options.only or r.candidate.name in options.only]
    if options.keys is None:
        return runs
    wanted = {key for key in options.keys if key in planned.by_key}
    while more := {key for name in wanted for key in planned.by_key[name].waits_for} - wanted:
        wanted |= more
    return [r for r in runs if r.key in wanted]


class _Worker:
    """Takes one missing run after another until none is left."""

    def __init__(self, computation: Computation, failed_elsewhere: AbstractSet[str], folds_first: bool = False) -> None:
        self.computation, self.folds_first = computation, folds_first
        self.planned, self.store = computation.planned, computation.store
        self.on_progress = computation.on_progress
        self.failed: set[str] = set()
        self.failed_elsewhere = failed_elsewhere
        self.attempts: Counter[str] = Counter()
        self.memory = MemoryWatch()

    def compute_all(self) -> set[str]:
        """Returns the keys of the runs that failed, once all others are done."""
        total = len(self.planned.runs)
        while True:
            self.failed |= self.failed_elsewhere
            missing = [r for r in self.planned.missing_runs(self.store) if r.key not in self.failed]
            if self.folds_first:
                missing = order_by_folds(self.planned, missing)
            if not missing:
                return self.failed
            done = total - len(missing)
            for runs in self._group_into_batches([r for r in missing if self._is_ready(r)]):
                done += self._compute_unheld(runs, done, total)
            for run in missing:
                self._fail_if_orphaned(run, done, total)
            if done == total - len(missing) and not self.failed.intersection(r.key for r in missing):
                self.on_progress(ProgressEvent("waiting", done=done, total=total))
                time.sleep(POLL_INTERVAL_S)

    def _is_ready(self, run: PlannedRun) -> bool:
        return all(key in self.store for key in run.waits_for)

    def _fail_if_orphaned(self, run: PlannedRun, done: int, total: int) -> None:
        """Records a run as failed when its teacher or a member of it has failed."""
        failed = next((key for key in run.waits_for if key in self.failed), None)
        if failed is None or run.key in self.failed:
            return
        title = self.planned.by_key[failed].title
        reason = self.store.read_failures().get(failed, {}).get("error", "it left no note")
        self._note_failure(run, RunError(f"what it needs, {title}, failed: {reason}"), done, total)

    def _note_failure(self, run: PlannedRun, error: Exception, done: int, total: int) -> None:
        self.failed.add(run.key)
        self.store.record_failure(run.key, describe_failure(run, error))
        self.on_progress(ProgressEvent("failed", run.title, done, total, {"error": first_error_line(error)}, (run.key,)))

    def _group_into_batches(self, missing: list[PlannedRun]) -> Iterator[list[PlannedRun]]:
        """Groups runs to compute at once: all missing heads of one frozen candidate, every other run by itself."""
        batches: dict[str, list[PlannedRun]] = {}
        for run in missing:
            if is_batched(run):
                batches.setdefault(make_batch_key(run), []).append(run)
        for run in missing:
            if not is_batched(run):
                yield [run]
            elif heads := batches.pop(make_batch_key(run), None):
                yield heads

    def _compute_unheld(self, runs: list[PlannedRun], done: int, total: int) -> int:
        """Computes those of the runs that no other process holds; returns how many it finished."""
        with ExitStack() as leases:
            ours = [run for run in runs if leases.enter_context(self.store.hold_lease(run.key))]
            if not ours:
                return 0
            title = ours[0].title if len(ours) == 1 else f"{ours[0].candidate.name} · {len(ours)} heads"
            self.on_progress(ProgressEvent("start", title, done, total, keys=tuple(run.key for run in ours)))
            if len(ours) == 1 and not is_batched(ours[0]):
                compute = self.computation.find_way(ours[0])
                settle = partial(settle_tuned_run, ours[0], self.store, self.planned.study)
                finished = self._finish_run(ours[0], lambda: compute(settle()), done, total)
            else:
                finished = self._compute_heads(ours, done, total)
        for run in ours:
            self.computation.delete_unneeded_bundles(run)
        return finished

    def _finish_run(self, run: PlannedRun, compute: Callable[[], dict[str, Any]], done: int, total: int) -> int:
        """Returns 1 when `compute` writes the run folder, 0 when it fails and a note is left instead."""
        try:
            note = compute()
        except Exception as error:  # also of the user's own code: whatever it raises, the other runs go on
            if disk_error := find_disk_error(error):
                raise disk_error from error
            self._note_failure(run, error, done, total)
            if not is_out_of_memory(error):
                return 0
        else:
            self.memory.note_success()
            return self._confirm_finished(run, note, done, total)
        self.memory.note_shortage(run.candidate.name, self._untried_candidates())
        self.memory.release_memory()  # here, where the error no longer holds the frames of the run
        return 0

    def _untried_candidates(self) -> list[str]:
        return [r.candidate.name for r in self.planned.missing_runs(self.store) if r.key not in self.failed]

    def _confirm_finished(self, run: PlannedRun, note: dict[str, Any], done: int, total: int) -> int:
        """Returns 1 for a run that is in the store, else 0; it fails when that is so again, or it would be computed for ever."""
        if run.key in self.store:
            self.on_progress(ProgressEvent("done", run.title, done + 1, total, note, (run.key,)))
            return 1
        self.attempts[run.key] += 1
        if self.attempts[run.key] >= MAX_ATTEMPTS:
            folder = self.store.run(run.key).folder
            words = f"it was computed {MAX_ATTEMPTS} times and {folder} is not whole; delete that folder and run the study again"
            self._note_failure(run, RunError(words), done, total)
        return 0

    def _compute_heads(self, ours: list[PlannedRun], done: int, total: int) -> int:
        """Trains the heads of a candidate in batches and keeps those in `ours`; returns how many were finished.

        A batch always holds the same heads in the same order, so that a resumed study gives the same bits.
        """
        started = datetime.now(UTC)
        our_keys = {run.key for run in ours}
        finished = 0
        for batch in self.computation.list_batches(ours[0]):
            if not our_keys.intersection(r.key for r in batch):
                continue
            outcomes: list[FitOutcome | Exception]
            try:
                outcomes = list(self.computation.train_batch(batch))
            except Exception as error:  # also of the user's own code: whatever it raises, the other runs go on
                outcomes = [error] * len(batch)
            for run, outcome in zip(batch, outcomes, strict=True):
                if run.key in our_keys:
                    finished += self._finish_run(
                        run, partial(self.computation.write_run_folder, run, outcome, started), done + finished, total
                    )
        return finished
