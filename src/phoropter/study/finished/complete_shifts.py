"""Evaluates finished runs on corrupted test rows that they have not met yet: `shift` was asked for after they were trained.

A model that was kept is loaded, any other trained again to the same bits; baselines are fitted again, averages averaged.
"""

from __future__ import annotations

from collections.abc import Collection

import filelock

from phoropter.core.extensions import collect_extensions
from phoropter.core.files import file_lock
from phoropter.data.images.pixels import Pixels
from phoropter.models.classifier import load_classifier
from phoropter.models.weights.bundle_files import set_aside_damaged_bundle
from phoropter.study.compute import Computation, follow_training, is_batched
from phoropter.study.plan import PlannedRun
from phoropter.study.progress import ProgressEvent
from phoropter.study.records.run_record import first_error_line
from phoropter.study.side_runs.tuned_run import settle_tuned_run
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.fit import TrainedRun, TrainingTask
from phoropter.training.loop.fatal_errors import find_disk_error
from phoropter.training.tables.signal_fit import fit_signal_network
from phoropter.training.tables.table_fit import FittedTable, fit_table


def complete_shifts(computation: Computation, failed: Collection[str]) -> None:
    """Evaluates every finished run of the plan that lacks answers, members before their averages.

    failed: keys of runs that failed in this call. A run that cannot be evaluated is told as failed and passed over. Runs that
    another process evaluates are waited for last. Raises DiskError where nothing more can be written.
    """
    asked, store = computation.shifts.asked, computation.store
    waiting = [r for r in computation.planned.runs if r.key not in failed and r.key in store and asked.is_incomplete(r)]
    held = [run for run in waiting if not _evaluate_unheld(computation, run, wait_s=0)]
    for run in held:
        _evaluate_unheld(computation, run, wait_s=-1)


def _evaluate_unheld(computation: Computation, run: PlannedRun, wait_s: int) -> bool:
    """Whether no other process held the run, or has let go of it. wait_s: at most so many seconds; -1: as long as it takes"""
    title, total = f"{run.title}, on corrupted rows", len(computation.planned.runs)
    lock = file_lock(computation.store.folder / "locks" / f"{run.key}.shift.lock")
    try:
        with lock.acquire(timeout=wait_s):
            if computation.shifts.asked.is_incomplete(run):
                computation.on_progress(ProgressEvent("start", title, total, total))
                _evaluate_run(computation, run)
    except filelock.Timeout:
        return False
    except Exception as error:  # also of the user's own code: whatever it raises, the other runs go on
        if disk_error := find_disk_error(error):
            raise disk_error from error
        computation.on_progress(ProgressEvent("failed", title, total, total, {"error": first_error_line(error)}))
    return True


def _evaluate_run(computation: Computation, run: PlannedRun) -> None:
    run = settle_tuned_run(run, computation.store, computation.planned.study)
    folder = computation.store.run(run.key).folder
    if run.candidate.is_ensemble:
        computation.shifts.evaluate_average(run, folder)
        return
    pixels = computation.load_pixels(run.image_set)
    if (table := run.candidate.table) is not None:
        computation.shifts.evaluate_table(run, folder, _fit_again(computation, run, table, pixels), pixels)
        return
    set_aside_damaged_bundle(folder / "bundle")
    if (folder / "bundle").is_dir():
        model = load_classifier(folder / "bundle", list(collect_extensions(run.candidate))).to(computation.device)
        computation.shifts.evaluate_network(run, folder, model, (), pixels)
        return
    for each, fitted in _train_again(computation, run):
        if each.key in computation.store:
            of_run = computation.store.run(each.key).folder
            computation.shifts.evaluate_network(each, of_run, fitted.model, fitted.initial_weight_digests, pixels)


def _fit_again(computation: Computation, run: PlannedRun, table: TableSpec, pixels: Pixels) -> FittedTable:
    """The classifier of a baseline, or its network on samples, whose models are never kept."""
    dataset = run.image_set.dataset
    if not table.is_signal_network:
        return fit_table(table, computation.table_inputs.load_features(run, pixels), dataset, run.split)
    task = TrainingTask(run.candidate, run.split, dataset, pixels, computation.device, computation.cache)
    return follow_training(fit_signal_network(task), task, run.title, computation.on_progress)


def _train_again(computation: Computation, run: PlannedRun) -> list[tuple[PlannedRun, TrainedRun]]:
    """A finished run trained again; of heads that are trained together, all of them."""
    if not is_batched(run):
        return [(run, computation.retrain_run(run))]
    batch = computation.find_batch(run)
    return [(each, o) for each, o in zip(batch, computation.train_batch(batch), strict=True) if isinstance(o, TrainedRun)]
