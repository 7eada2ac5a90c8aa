"""Executes a study in this process or in several at once: same study, same store, same bytes.

Processes share nothing but the results folder: each takes the next missing run that no other holds. So starting the same command
on another machine that sees the folder works just as well, and a process that dies loses only the run it was computing.
"""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import PhoropterError, SpecError
from phoropter.core.extensions import get_trusted_folder
from phoropter.core.files import cache_dir
from phoropter.results.running_commands import announce_command
from phoropter.results.store import Store
from phoropter.study.controls.control_folders import prepare_controls
from phoropter.study.processes.gpu_places import VARIABLE, assign_gpus, list_visible_gpus
from phoropter.study.progress import ProgressCallback
from phoropter.study.records.completion import record_completion
from phoropter.study.scheduling.time_budget import TimeBudget
from phoropter.study.screening import iterate_rungs
from phoropter.study.spec import StudySpec
from phoropter.study.treatments.kept_treatments import keep_treatments
from phoropter.training.loop.stop_signals import handle_stop_signals, stop_this_process

if TYPE_CHECKING:
    from phoropter.study.processes.worker_process import WorkerTask
    from phoropter.study.worker import ComputeOptions
    from phoropter.training.loop.parallel.training_group import TrainingGroup


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
    """Computes in `jobs` processes of this machine, which share its cores, and its GPUs where there are several.

    gpus: what each process is to see, as CUDA_VISIBLE_DEVICES spells it; empty: all see all, and take turns by their number
    """

    options: ComputeOptions
    jobs: int
    cache: Path | None = None
    gpus: tuple[str, ...] = ()

    def compute_study(self, study: StudySpec, out: Path, on_progress: ProgressCallback) -> None:
        from phoropter.study.processes.supervisor import Supervisor

        _check_picklable(study)
        Supervisor(lambda number: self.make_task(number, study, out), self.jobs, Store(out), on_progress).run_workers()

    def make_task(self, number: int, study: StudySpec, out: Path) -> WorkerTask:
        """What the worker of this number is to do, on which device."""
        from phoropter.study.processes.worker_process import WorkerTask

        environment = {VARIABLE: self.gpus[number]} if self.gpus else {}
        return WorkerTask(study, out, self._assign_device(number), self.cache, get_trusted_folder(), environment=environment)

    def _assign_device(self, number: int) -> ComputeOptions:
        import torch

        threads = self.options.threads or max(1, count_usable_cores() // self.jobs)
        if self.gpus:
            return replace(self.options, device="cuda:0", threads=threads)
        gpus = torch.cuda.device_count()
        device = f"cuda:{number % gpus}" if self.options.device in ("auto", "cuda") and gpus else self.options.device
        return replace(self.options, device=device, threads=threads)


@dataclass(frozen=True)
class Places:
    """Where runs are to be computed, as the options of `run` say.

    jobs: processes · devices: a process for each of these GPUs: `all`, or numbers and ranges as in `0-3,6` · per_device: so many
    for each GPU · executor: `local` or `ray` · address: of a Ray cluster; None: one of this machine · group: the processes of
    torchrun, which train networks together; None: it started none
    """

    jobs: int = 1
    devices: str | None = None
    per_device: int = 1
    executor: str = "local"
    address: str | None = None
    group: TrainingGroup | None = None


def make_executor(options: ComputeOptions, cache: Path | None, places: Places) -> Executor:
    """The executor of a choice. Raises SpecError for options that contradict each other, and for devices that are not there."""
    from phoropter.training.loop.devices import resolve_device

    jobs, devices, per_device = places.jobs, places.devices, places.per_device
    if jobs < 1:
        raise SpecError(f"jobs is {jobs}, expected at least 1")
    if places.group is not None:
        if jobs != 1 or devices is not None or per_device != 1 or places.executor != "local":
            raise SpecError(
                "torchrun starts the processes that train each network together: leave -j, --devices, --per-device and "
                "--executor out"
            )
        return _train_with_helpers(options, cache, places.group)
    if places.executor == "ray":
        return _make_ray_executor(options, cache, places)
    if places.address is not None:
        raise SpecError("--address names a Ray cluster: say --executor ray with it")
    if devices is not None:
        if jobs != 1:
            raise SpecError("-j and --devices both say how many processes compute: leave one of them out")
        if options.device not in ("auto", "cuda"):
            raise SpecError(f"--device {options.device} and --devices contradict each other: leave one of them out")
        gpus = assign_gpus(devices, per_device, list_visible_gpus())
        return WorkerProcesses(options, len(gpus), cache, gpus)
    if per_device != 1:
        raise SpecError("--per-device says how many processes share each GPU of --devices, which is not given: --devices all")
    resolve_device(options.device)  # refused here once, and not by each worker
    return InProcess(options, cache) if jobs == 1 else WorkerProcesses(options, jobs, cache)


def _train_with_helpers(options: ComputeOptions, cache: Path | None, group: TrainingGroup) -> Executor:
    from phoropter.study.processes.helper_process import SharedTraining

    return SharedTraining(options, cache or cache_dir(), group)


def _make_ray_executor(options: ComputeOptions, cache: Path | None, places: Places) -> Executor:
    from phoropter.study.clusters.ray_tasks import RayTasks, import_ray

    import_ray()  # refused before anything is read
    if places.devices is not None:
        raise SpecError("--devices names GPUs of this machine, and Ray assigns those of its cluster: leave one of them out")
    if options.device not in ("auto", "cpu", "cuda"):
        raise SpecError(f"--device {options.device} and --executor ray contradict each other: Ray assigns the devices")
    return RayTasks(options, cache, places.jobs, places.per_device, places.address)


def execute_study(
    study: StudySpec,
    out: Path,
    on_progress: ProgressCallback,
    jobs: int = 1,
    options: ComputeOptions | None = None,
    cache: Path | None = None,
    executor: Executor | None = None,
    budget: TimeBudget | None = None,
) -> Store:
    """Computes what is missing of a study in `out`, in this process or in `jobs` processes.

    A screening goes rung by rung, and negative controls come last.

    executor: where to compute, in place of `jobs` and `options` · budget: of time, after which it stops
    Raises what `compute_missing_runs` raises, SpecError for a study that cannot be sent to other processes and for a device that
    is not there, and StopRequest (a KeyboardInterrupt) after SIGINT, SIGTERM, SIGHUP or the budget: the same call goes on.
    """
    from phoropter.study.worker import ComputeOptions

    cache = cache or cache_dir(out)
    executor = executor or make_executor(options or ComputeOptions(), cache, Places(jobs))
    store = Store(out)
    store.read_earlier_study()  # a damaged one is renamed before anybody follows it
    watched = nullcontext(on_progress) if budget is None else budget.watch_study(on_progress)
    with handle_stop_signals(), announce_command(out, stop_this_process), watched as follow_event:
        for rung in iterate_rungs(study, store, cache):
            executor.compute_study(rung, out, follow_event)
        for control, folder in prepare_controls(rung, out, cache):  # of a screening, its last rung
            executor.compute_study(control, folder, follow_event)
        keep_treatments(study, store)
        record_completion(study, store, cache)
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
