"""Executes a study in this process or in several at once: same study, same store, same bytes.

Processes share nothing but the results folder: each takes the next missing run that no other holds. So starting the same command
on another machine that sees the folder works just as well, and a process that dies loses only the run it was computing.
"""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import PhoropterError, SpecError
from phoropter.core.extensions import get_trusted_folder, trust_code
from phoropter.results.store import Store
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.study.screening import iterate_rungs
from phoropter.study.spec import StudySpec

if TYPE_CHECKING:
    from phoropter.study.worker import ComputeOptions


def execute_study(
    study: StudySpec,
    out: Path,
    on_progress: ProgressCallback,
    jobs: int = 1,
    options: ComputeOptions | None = None,
    cache: Path | None = None,
) -> Store:
    """Computes what is missing of a study in `out`, in this process or in `jobs` processes; a screening rung by rung.

    Raises what `compute_missing_runs` raises, and SpecError for a study that cannot be sent to other processes.
    """
    from phoropter.study.worker import ComputeOptions, compute_missing_runs

    options = options or ComputeOptions()
    if jobs < 1:
        raise SpecError(f"jobs is {jobs}, expected at least 1")
    store = Store(out)
    for rung in iterate_rungs(study, store, cache):
        if jobs == 1:
            compute_missing_runs(rung, out, on_progress, options, cache)
        else:
            _run_workers(rung, out, on_progress, jobs, options, cache)
    return store


def _run_workers(
    study: StudySpec, out: Path, on_progress: ProgressCallback, jobs: int, options: ComputeOptions, cache: Path | None
) -> None:
    _check_picklable(study)
    threads = options.threads or max(1, count_usable_cores() // jobs)
    trusted = get_trusted_folder()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        workers = [pool.submit(_run_worker, study, out, _assign_device(options, n, threads), cache, trusted) for n in range(jobs)]
        try:
            _follow_store(Store(out), on_progress, lambda: all(w.done() for w in workers))
        except KeyboardInterrupt:
            for worker in workers:
                worker.cancel()
            raise
        for worker in workers:
            worker.result()


def _check_picklable(study: StudySpec) -> None:
    """Raises SpecError where a study holds an object that other processes cannot be sent."""
    try:
        pickle.dumps(study)
    except PhoropterError:
        raise
    except Exception as error:  # what pickling raises is up to the object
        raise SpecError(
            f"study '{study.name}' holds an object that other processes cannot be sent ({error}); define it in a module of its "
            "own, by `def` or `class` at the top level, or use one process (jobs=1)"
        ) from None


def _assign_device(options: ComputeOptions, number: int, threads: int) -> ComputeOptions:
    """Worker `number` gets its own share of the cores, and its own GPU where there are several."""
    import torch

    gpus = torch.cuda.device_count()
    device = f"cuda:{number % gpus}" if options.device in ("auto", "cuda") and gpus else options.device
    return replace(options, device=device, threads=threads)


def _run_worker(study: StudySpec, out: Path, options: ComputeOptions, cache: Path | None, trusted: Path | None) -> None:
    from phoropter.study.worker import compute_missing_runs

    with trust_code(trusted) if trusted else nullcontext():
        compute_missing_runs(study, out, lambda event: None, options, cache)


def _follow_store(store: Store, on_progress: ProgressCallback, finished: Callable[[], bool]) -> None:
    """Reports what appears in the store, until every worker has ended."""
    seen: set[str] = set()
    total = 0
    while not finished():
        time.sleep(0.5)
        if not (store.folder / "study.json").exists():
            continue
        total = total or len(store.study["plan"])
        for note in list(store.read_progress_notes().values())[:1]:
            title = f"{note['candidate']} · {note['split']}"
            on_progress(ProgressEvent("tick" if "step" in note else "epoch", title, len(seen), total, note))
        for run in store.runs():
            if run.key not in seen:
                seen.add(run.key)
                record = run.record
                title = f"{record['candidate']['name']} · {record['split']['name']}"
                on_progress(ProgressEvent("done", title, len(seen), total, record["metrics"]))
