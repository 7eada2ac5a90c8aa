"""A study by Ray: each run is a task with declared CPUs and GPUs, in a process of its own (`max_calls=1`).

Every machine must see the results folder and the data; a cache that is not shared is filled once on each. This process
plans, hands out runs whose needs are done, and reports what appears in the results folder; a task computes what a worker process
would. Heads that are trained in one batch are one task.

Ray is bound to this machine and asks for a token where no address is given; it sends no usage statistics.
"""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import MissingExtraError, PhoropterError, RunError, SpecError, cut_message
from phoropter.core.extensions import get_trusted_folder, trust_code
from phoropter.results.remote_store import find_remote
from phoropter.results.store import Store
from phoropter.study.clusters.run_queue import RunQueue
from phoropter.study.plan import plan_study
from phoropter.study.progress import ProgressCallback
from phoropter.study.spec import StudySpec
from phoropter.study.worker import ComputeOptions, compute_missing_runs, select_asked_runs
from phoropter.training.loop.stop_signals import defer_stop

LEAVE_S = 9.0  # what tasks may take to leave with a checkpoint before they are killed
POLL_S = 0.5
_OBJECT_BYTES = 100 << 20  # shared memory of a cluster on this machine: a study and a few words pass through it


@dataclass(frozen=True)
class TaskOrder:
    """What a task is to do: these runs of a study, in this results folder. keys: empty: only prepare data and caches"""

    study: StudySpec
    out: Path
    options: ComputeOptions
    cache: Path | None
    trusted: Path | None
    keys: frozenset[str] = frozenset()


def compute_order(order: TaskOrder) -> None:
    """Computes the runs of an order, in the process of a task. Raises what `compute_missing_runs` raises."""
    options = replace(order.options, keys=order.keys)
    with trust_code(order.trusted) if order.trusted else nullcontext():
        compute_missing_runs(order.study, order.out, lambda event: None, options, order.cache)


@dataclass(frozen=True)
class TaskShare:
    """What a task declares: CPUs, which are also its threads, and GPUs."""

    cpus: int
    gpus: float

    @classmethod
    def of_nodes(cls, nodes: list[dict[str, float]], jobs: int, per_device: int, device: str) -> TaskShare:
        """The share by which `jobs` tasks fill the smallest node, or `per_device` tasks each GPU where there are GPUs.

        nodes: of each machine, its resources as Ray names them. Raises SpecError for GPUs that were asked for and are not there,
        and for `jobs` where GPUs say how many tasks there are.
        """
        with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
        if device.startswith("cuda") and not with_gpu:
            raise SpecError(f"--device {device}: no machine of this Ray cluster has a GPU; use --device cpu")
        if with_gpu and device != "cpu":
            if jobs != 1:
                raise SpecError("-j counts tasks of machines without a GPU, and this Ray cluster has GPUs: use --per-device")
            cpus = min(node.get("CPU", 1) / (node["GPU"] * per_device) for node in with_gpu)
            return cls(max(1, int(cpus)), 1 / per_device)
        if per_device != 1:
            raise SpecError(f"--per-device {per_device}: no task of this study gets a GPU of this Ray cluster; use -j")
        return cls(max(1, int(min(node.get("CPU", 1) for node in nodes) // jobs)), 0)


@dataclass(frozen=True)
class RayTasks:
    """Computes by Ray: in a cluster at `address`, or in one of this machine that lasts as long as the study.

    jobs: tasks at once on each machine without a GPU · per_device: tasks at once on each GPU
    """

    options: ComputeOptions
    cache: Path | None = None
    jobs: int = 1
    per_device: int = 1
    address: str | None = None

    def compute_study(self, study: StudySpec, out: Path, on_progress: ProgressCallback) -> None:
        ray = import_ray()
        if self.address is not None and find_remote(out) is not None:
            raise SpecError(
                "--address and s3:// contradict each other: tasks on other machines need a results folder that all see"
            )
        order = TaskOrder(study, out.resolve(), self.options, self.cache and self.cache.resolve(), get_trusted_folder())
        with connect_cluster(ray, self.address), defer_stop(lambda: None, grace_s=None) as requests:
            nodes = [node for node in ray.nodes() if node["Alive"]]
            share = TaskShare.of_nodes([node["Resources"] for node in nodes], self.jobs, self.per_device, self.options.device)
            device = "cpu" if not share.gpus else "cuda:0"
            order = replace(order, options=replace(self.options, device=device, threads=self.options.threads or share.cpus))
            launcher = RayLauncher(ray, share, order)
            try:
                preparing = [launcher.prepare_node(node["NodeID"]) for node in nodes]
                while preparing and not requests:
                    for task in launcher.wait_for_any(preparing):
                        preparing.remove(task)
                        if loss := launcher.collect_loss(task):
                            raise RunError(f"a task of Ray that reads the data was lost: {loss}")
                if not requests:
                    planned = plan_study(study, self.cache)
                    planned = replace(planned, runs=select_asked_runs(planned, self.options))
                    queue = RunQueue(planned, Store(out), launcher, on_progress, self.options.folds_first)
                    queue.compute_all(requests)
            finally:
                launcher.leave()


def import_ray() -> Any:
    """The module, with its usage statistics off. Raises MissingExtraError."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "--executor ray") from None
    return ray


@contextmanager
def connect_cluster(ray: Any, address: str | None) -> Iterator[None]:
    """Within it, this process is connected to a cluster; without an address, to one of its own on loopback, with a token.

    Raises RunError where the cluster does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="phr-", ignore_cleanup_errors=True) as folder, _use_token(Path(folder), address):
        before = signal.getsignal(signal.SIGTERM)  # which `init` replaces by a handler that ends the process at once
        try:
            if address is None:
                ray.init(
                    address="local",
                    num_cpus=count_usable_cores(),
                    include_dashboard=False,
                    object_store_memory=_OBJECT_BYTES,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=folder,
                )
            else:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"no cluster answers at {address}" if address else "no cluster could be started here"
            raise RunError(f"--executor ray: {where}: {cut_message(error, most=200)}") from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _use_token(folder: Path, address: str | None) -> Iterator[None]:
    """A cluster of this process asks for a token that only this user can read; one that is there already has its own."""
    variables = {}
    if address is None:
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="ascii")
        variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    before = {name: os.environ.pop(name, None) for name in variables}
    os.environ.update(variables)
    if variables:
        raylet: Any = importlib.import_module("ray._raylet")  # whose type stubs lack these two
        raylet.Config.initialize("")  # Ray read mode and token when it was imported
        raylet.AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class RayLauncher:
    """Starts tasks with their share of a machine, and ends those that run: the launcher of a RunQueue."""

    def __init__(self, ray: Any, share: TaskShare, order: TaskOrder) -> None:
        self.ray, self.order = ray, order
        # A process of its own for each: what a run leaves in memory, or a fault in a driver, is nobody else's
        self.task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_calls=1, max_retries=0)(compute_order)
        self.running: list[Any] = []

    def prepare_node(self, node: str) -> Any:
        """Starts a task that reads the data on one machine and fills its cache."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = self.task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        self.running.append(here.remote(self.order))
        return self.running[-1]

    def start_task(self, keys: frozenset[str]) -> Any:
        """Starts a task that computes these runs, on any machine that has room for it."""
        self.running.append(self.task.remote(replace(self.order, keys=keys)))
        return self.running[-1]

    def wait_for_any(self, tasks: list[Any]) -> list[Any]:
        """Those of the tasks that have ended; returns within POLL_S."""
        return list(self.ray.wait(tasks, timeout=POLL_S)[0])

    def collect_loss(self, task: Any) -> str | None:
        """How the process of an ended task was lost, in words; None where it was not. Raises what the task raised."""
        self.running.remove(task)
        try:
            self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PhoropterError):
                raise error.cause from None
            raise RunError(f"a task of Ray ended with {error.cause!r}") from error
        except self.ray.exceptions.RayError as error:
            return cut_message(error, most=200)
        return None

    def leave(self) -> None:
        """Asks running tasks to leave with a checkpoint, and waits LEAVE_S; the cluster's end kills the rest."""
        for reference in self.running:
            with suppress(Exception):  # it has ended, or its machine is gone
                self.ray.cancel(reference)
        if self.running:
            self.ray.wait(self.running, num_returns=len(self.running), timeout=LEAVE_S)
