"""Executes a study in this process or in several at once: same study, same store, same bytes.

Processes share nothing but the results folder: each takes the next missing run that no other holds. So starting the same command
on another machine that sees the folder works just as well, and a process that dies loses only the run it was computing.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import PhoropterError, SpecError
from phoropter.core.extensions import get_trusted_folder
from phoropter.results.store import Store
from phoropter.study.progress import ProgressCallback
from phoropter.study.screening import iterate_rungs
from phoropter.study.spec import StudySpec
from phoropter.training.loop.stop_signals import handle_stop_signals

if TYPE_CHECKING:
    from phoropter.study.worker import ComputeOptions


class Executor(Protocol):
    """Where runs are computed. Another place is another class with this one method; the store does the rest."""

    def compute_study(self, study: StudySpec, out: Path, on_progress: ProgressCallback) -> None:
        """Returns when every run of `study` is in the store of `out` or has a note why it failed.

        Raises what `compute_missing_runs` raises, and StopRequest when it was asked to stop.
        """


@dataclass(frozen=True)
class InProcess:
    """Computes in this process, one run after another."""

    options: ComputeOptions
    cache: Path | None = None

    def compute_study(self, study: StudySpec, out: Path, on_progress: ProgressCallback) -> None:
        from phoropter.study.worker import compute_missing_runs

        compute_missing_runs(study, out, on_progress, self.options, self.cache)


@dataclass(frozen=True)
class WorkerProcesses:
    """Computes in `jobs` processes of this machine, which share its cores, and its GPUs where there are several."""

    options: ComputeOptions
    jobs: int
    cache: Path | None = None

    def compute_study(self, study: StudySpec, out: Path, on_progress: ProgressCallback) -> None:
        from phoropter.study.processes.supervisor import Supervisor
        from phoropter.study.processes.worker_process import WorkerTask

        _check_picklable(study)
        trusted = get_trusted_folder()

        def make_task(number: int) -> WorkerTask:
            return WorkerTask(study, out, self._assign_device(number), self.cache, trusted)

        Supervisor(make_task, self.jobs, Store(out), on_progress).run_workers()

    def _assign_device(self, number: int) -> ComputeOptions:
        import torch

        threads = self.options.threads or max(1, count_usable_cores() // self.jobs)
        gpus = torch.cuda.device_count()
        device = f"cuda:{number % gpus}" if self.options.device in ("auto", "cuda") and gpus else self.options.device
        return replace(self.options, device=device, threads=threads)


def execute_study(
    study: StudySpec,
    out: Path,
    on_progress: ProgressCallback,
    jobs: int = 1,
    options: ComputeOptions | None = None,
    cache: Path | None = None,
) -> Store:
    """Computes what is missing of a study in `out`, in this process or in `jobs` processes; a screening rung by rung.

    Raises what `compute_missing_runs` raises, SpecError for a study that cannot be sent to other processes and for a device that
    is not there, and StopRequest (a KeyboardInterrupt) after SIGINT, SIGTERM or SIGHUP: the same call goes on from there.
    """
    from phoropter.study.worker import ComputeOptions
    from phoropter.training.loop.devices import resolve_device

    options = options or ComputeOptions()
    if jobs < 1:
        raise SpecError(f"jobs is {jobs}, expected at least 1")
    resolve_device(options.device)  # refused here once, and not by each worker
    executor: Executor = InProcess(options, cache) if jobs == 1 else WorkerProcesses(options, jobs, cache)
    store = Store(out)
    store.read_earlier_study()  # a damaged one is renamed before anybody follows it
    with handle_stop_signals():
        for rung in iterate_rungs(study, store, cache):
            executor.compute_study(rung, out, on_progress)
    return store


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
