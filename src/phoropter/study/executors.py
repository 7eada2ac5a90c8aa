"""Where runs are computed: here, or in several processes at once. Same question, same store, same bytes.

Processes share nothing but the results folder: each takes the next missing run nobody holds. So starting the same command on
another machine that sees the folder works just as well, and a dying worker loses only what it was doing.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from phoropter.core.cores import count_usable_cores
from phoropter.core.errors import SpecError
from phoropter.results.store import Store
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.study.screening import needs_screening, run_screening
from phoropter.study.spec import StudyInput

if TYPE_CHECKING:
    from phoropter.study.worker import ComputeOptions


def execute_study(
    question: StudyInput,
    out: Path,
    watch: ProgressCallback,
    jobs: int = 1,
    here: ComputeOptions | None = None,
    cache: Path | None = None,
) -> Store:
    """Computes what is missing of a question, in this process or in `jobs` processes. Raises what `run_study` raises."""
    from phoropter.study.worker import ComputeOptions, compute_missing_runs

    if needs_screening(question):
        return run_screening(question, lambda rung: execute_study(rung, out, watch, jobs, here, cache), cache)
    here = here or ComputeOptions()
    if jobs == 1:
        return compute_missing_runs(question, out, watch, here, cache)
    if jobs < 1:
        raise SpecError(f"jobs is {jobs}, expected at least 1")
    threads = here.threads or max(1, count_usable_cores() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        working = [pool.submit(_run_worker, question, out, _assign_device(here, n, threads), cache) for n in range(jobs)]
        try:
            _follow_store(Store(out), watch, lambda: all(w.done() for w in working))
        except KeyboardInterrupt:
            for worker in working:
                worker.cancel()
            raise
        for worker in working:
            worker.result()
    return Store(out)


def _assign_device(here: ComputeOptions, number: int, threads: int) -> ComputeOptions:
    """Worker `number` gets its own share of the cores, and its own GPU where there are several."""
    import torch

    gpus = torch.cuda.device_count()
    device = f"cuda:{number % gpus}" if here.device in ("auto", "cuda") and gpus else here.device
    return replace(here, device=device, threads=threads)


def _run_worker(question: StudyInput, out: Path, here: ComputeOptions, cache: Path | None) -> None:
    from phoropter.study.worker import compute_missing_runs

    compute_missing_runs(question, out, lambda event: None, here, cache)


def _follow_store(store: Store, watch: ProgressCallback, finished: Callable[[], bool]) -> None:
    """Tells the watcher what appears in the store, until every worker has ended."""
    seen: set[str] = set()
    total = 0
    while not finished():
        time.sleep(0.5)
        if not (store.folder / "study.json").exists():
            continue
        total = total or len(store.study["plan"])
        for note in list(store.read_progress_notes().values())[:1]:
            title = f"{note['candidate']} · {note['split']}"
            watch(ProgressEvent("tick" if "step" in note else "epoch", title, len(seen), total, note))
        for run_done in store.runs():
            if run_done.key not in seen:
                seen.add(run_done.key)
                record = run_done.record
                title = f"{record['candidate']['name']} · {record['split']['name']}"
                watch(ProgressEvent("done", title, len(seen), total, record["metrics"]))
