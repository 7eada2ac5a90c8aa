"""The parent of several workers: shows their progress, replaces those that die, and ends them when it is asked to stop.

Workers share nothing but the results folder. A worker that dies (the kernel's out-of-memory killer, a fault in a driver) loses
only the run it was computing, which is begun again from its last checkpoint; a run that has cost MAX_LOSSES workers fails.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from phoropter.core.errors import RunError
from phoropter.results.store import Store
from phoropter.study.processes.worker_process import WorkerError, WorkerTask, run_worker
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.training.loop.stop_signals import defer_stop

MAX_LOSSES = 3  # workers that a run may cost: it is begun again twice
LEAVE_S = 9.0  # what workers may take to leave before they are killed
POLL_S = 0.5


@dataclass(eq=False)
class _Worker:
    """A running worker. keys: of the runs it is computing · was_heard: it has sent something · ended: it said that all is done"""

    number: int
    process: multiprocessing.process.BaseProcess
    link: Connection
    keys: set[str] = field(default_factory=set)
    was_heard: bool = False
    ended: bool = False


class Supervisor:
    """Runs workers on one study until all runs are done or have failed.

    make_task: the number of a worker → its task
    """

    def __init__(self, make_task: Callable[[int], WorkerTask], jobs: int, store: Store, on_progress: ProgressCallback) -> None:
        self.make_task, self.jobs, self.store, self.on_progress = make_task, jobs, store, on_progress
        self.workers: list[_Worker] = []
        self.known_done: set[str] = set()
        self.failed: set[str] = set()
        self.losses: Counter[str] = Counter()
        self.idle_losses = self.n_done = self.n_planned = 0
        self.looked = 0.0

    def run_workers(self) -> None:
        """Starts the workers and returns when all have ended.

        Raises StopRequest after the workers have left, what a worker raised, and RunError where workers cannot start.
        """
        with defer_stop(lambda: None, grace_s=None) as requests:
            self._look_at_store(lambda event: None)  # what earlier calls have finished is no news
            try:
                for number in range(self.jobs):
                    self._start_worker(number)
                while self.workers and not requests:
                    self._handle_messages()
                    if time.monotonic() - self.looked >= POLL_S:  # events may come much faster
                        self._look_at_store(self.on_progress)
                if not requests:
                    self._look_at_store(self.on_progress)
            finally:
                self._end_workers()

    def _start_worker(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        task = replace(self.make_task(number), failed=frozenset(self.failed))
        # Named and not a daemon, so that a worker may have processes of its own
        process = context.Process(target=run_worker, args=(theirs,), name=f"phoropter-{number}")
        with _block_interrupts(), _set_environment(task.environment):
            process.start()
        theirs.close()
        self.workers.append(_Worker(number, process, ours))
        with suppress(OSError):  # it died at once, which the end of its pipe says
            ours.send(task)

    def _handle_messages(self) -> None:
        by_link: dict[Any, _Worker] = {worker.link: worker for worker in self.workers}
        for link in connection.wait(list(by_link), POLL_S):
            worker = by_link[link]
            try:
                message = worker.link.recv()
            except (EOFError, OSError):  # it has ended, or died, possibly in the middle of a message
                self._handle_end(worker)
                continue
            worker.was_heard = True
            if isinstance(message, ProgressEvent):
                self._handle_event(worker, message)
            elif isinstance(message, WorkerError):
                raise message.make_exception()
            else:
                worker.ended = True

    def _handle_event(self, worker: _Worker, event: ProgressEvent) -> None:
        if event.kind == "start" and event.keys:
            worker.keys, self.idle_losses = set(event.keys), 0
        elif event.kind == "waiting":
            worker.keys.clear()
        elif event.kind == "done":
            worker.keys.difference_update(event.keys)
            return  # what is done is read from the store, where other commands' runs appear too
        elif event.kind == "failed":
            worker.keys.difference_update(event.keys)
            if self.failed.issuperset(event.keys):
                return
            self._tell_failed(event.keys)
        event = replace(event, worker=worker.number + 1)
        if event.kind not in ("decoding", "features", "forecast"):
            event = replace(event, done=self.n_done, total=self.n_planned)
        self.on_progress(event)

    def _tell_failed(self, keys: tuple[str, ...]) -> None:
        """Other workers need not try a run that has failed in one."""
        self.failed.update(keys)
        for worker in self.workers:
            for key in keys:
                with suppress(OSError):  # one that has just died
                    worker.link.send(key)

    def _handle_end(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.process.join(LEAVE_S)
        if worker.process.is_alive():  # it closed its pipe and goes on
            worker.process.kill()
            worker.process.join()
        worker.link.close()
        code = worker.process.exitcode
        if worker.ended:
            return
        if code == 1 and not worker.was_heard:
            raise RunError(
                "a worker process could not start, for the reason printed above; a Python script that runs a study with several "
                "jobs does so under `if __name__ == '__main__':`"
            )
        self._replace_worker(worker, _describe_exit(code))

    def _replace_worker(self, worker: _Worker, how: str) -> None:
        lost = sorted(key for key in worker.keys if key not in self.store)
        self.idle_losses += not lost
        if self.idle_losses == MAX_LOSSES:
            raise RunError(f"a worker process {how} {MAX_LOSSES} times before it began a run; use fewer of them (-j)")
        self.losses.update(lost)
        given_up = [key for key in lost if self.losses[key] >= MAX_LOSSES]
        for key in given_up:
            self._fail_run(key, f"the process that computed it {how}, {MAX_LOSSES} times")
        titles = [self._describe_run(key) for key in lost if key not in given_up]
        what = f"{titles[0]}{f' and {len(titles) - 1} more' if len(titles) > 1 else ''}: begun again" if titles else "replaced"
        words = {"error": f"a worker process {how}; {what}"}
        lost_title = titles[0] if titles else ""
        self.on_progress(ProgressEvent("lost", lost_title, self.n_done, self.n_planned, words, worker=worker.number + 1))
        self._start_worker(worker.number)

    def _fail_run(self, key: str, words: str) -> None:
        row = self._plan_row(key)
        note = {"candidate": row["candidate"], "split": row["split"], "seed": row["seed"], "error": words}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        self.store.record_failure(key, {**note, "kind": RunError.__name__, "trace": [], "when": when})
        self._tell_failed((key,))
        self.on_progress(ProgressEvent("failed", self._describe_run(key), self.n_done, self.n_planned, {"error": words}, (key,)))

    def _plan_row(self, key: str) -> dict[str, Any]:
        return next(dict(row) for row in self.store.planned_rows if row["key"] == key)

    def _describe_run(self, key: str) -> str:
        row = self._plan_row(key)
        return f"{row['candidate']} · {row['split']}"

    def _look_at_store(self, report: ProgressCallback) -> None:
        """Reports what has appeared in the store, whoever computed it."""
        if not (self.store.folder / "study.json").exists():
            return
        keys = self.store.planned_keys
        there = self.store.list_run_folders() - self.known_done  # a look at each of thousands would take longer than the runs
        fresh = [self.store.run(key) for key in keys if key in there and key in self.store]
        self.looked = time.monotonic()
        self.known_done.update(run.key for run in fresh)
        self.n_planned, self.n_done = len(keys), len(self.known_done)
        for place, run in enumerate(fresh, self.n_done - len(fresh) + 1):
            record = run.record
            title = f"{record['candidate']['name']} · {record['split']['name']}"
            report(ProgressEvent("done", title, place, self.n_planned, record["metrics"], (run.key,)))

    def _end_workers(self) -> None:
        """Asks all workers to leave, and kills those that have not left after LEAVE_S, or at once on a second signal."""
        try:
            for worker in self.workers:
                with suppress(OSError):
                    worker.link.send(None)
            deadline = time.monotonic() + LEAVE_S
            while time.monotonic() < deadline and any(w.process.is_alive() for w in self.workers):
                self._drop_messages()
        finally:
            for worker in self.workers:
                worker.process.kill()
                worker.process.join()
                worker.link.close()
            self.workers.clear()

    def _drop_messages(self) -> None:
        """Empties the pipes, as a worker whose pipe is full could not leave."""
        open_links = {worker.link: worker for worker in self.workers if worker.process.is_alive()}
        for link in connection.wait(list(open_links), 0.1):
            try:
                link.recv_bytes()  # type: ignore[union-attr]
            except (EOFError, OSError):
                open_links[link].process.join(0.1)  # type: ignore[index]


@contextmanager
def _set_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Within it, a process that is started inherits these variables: libraries read them when they are loaded."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _block_interrupts() -> Iterator[None]:
    """A process that is started within it does not see Ctrl-C before it has chosen to; this one sees it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _describe_exit(code: int | None) -> str:
    """An exit code of a process in words that follow 'a worker process'."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        hints = {"SIGKILL": " (the system does that when memory is full)", "SIGBUS": " (the disk may be full)"}
        return f"was killed by {name}{hints.get(name, '')}"
    return f"was killed by signal {-code}"
