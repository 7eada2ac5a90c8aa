"""A worker: one process's work on a study, bound to its parent by a pipe.

The worker sends progress events and how it ended; the parent sends the task, which runs failed elsewhere, and when to stop. A
pipe that closes means that the parent is dead, on every system: the worker then saves a checkpoint and leaves, as on a request.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoropter.core.errors import PhoropterError
from phoropter.core.extensions import trust_code
from phoropter.study.spec import StudySpec
from phoropter.training.loop.stop_signals import StopRequest, handle_stop_signals, signal_main_thread

if TYPE_CHECKING:
    from phoropter.study.worker import ComputeOptions

EXIT_S = 8.0  # a worker that has not left so long after it was asked is ended from within, wherever it is


@dataclass(frozen=True)
class WorkerTask:
    """What a worker is to do: a study, its results folder, how to compute, and which runs are known to fail.

    environment: variables of the process, set when it starts
    """

    study: StudySpec
    out: Path
    options: ComputeOptions
    cache: Path | None
    trusted: Path | None = None
    failed: frozenset[str] = frozenset()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerError:
    """An exception that ended a worker, in a form that can be sent whatever it holds."""

    kind: type[BaseException]
    text: str
    trace: str

    @classmethod
    def from_exception(cls, error: BaseException) -> WorkerError:
        """One that phoropter does not raise itself becomes a RuntimeError with the traceback as its note."""
        if isinstance(error, PhoropterError):
            return cls(type(error), str(error), "")
        return cls(RuntimeError, f"a worker process ended with {type(error).__name__}: {error}", traceback.format_exc())

    def make_exception(self) -> BaseException:
        """The exception to raise in the parent."""
        error = self.kind.__new__(self.kind)  # some kinds take other arguments than their text
        error.args = (self.text,)
        if self.trace:
            error.add_note(self.trace)
        return error


def run_worker(link: Connection) -> None:
    """The main function of a worker. The first message is its task; it answers by ProgressEvents, then None or a WorkerError."""
    _leave_keyboard_to_parent()
    ending: WorkerError | None = None
    try:
        task: WorkerTask = link.recv()
        failed = set(task.failed)
        threading.Thread(target=_obey_parent, args=(link, failed), daemon=True).start()
        with handle_stop_signals(["SIGTERM"]):
            _compute_task(link, task, failed)
    except StopRequest as stop:  # a message may have been cut in the middle, so nothing more is sent
        os._exit(stop.exit_code)
    except BaseException as error:  # told to the parent, which raises it in its place
        ending = WorkerError.from_exception(error)
    _send_message(link, ending)


def _compute_task(link: Connection, task: WorkerTask, failed: set[str]) -> None:
    from phoropter.study.worker import compute_missing_runs

    with trust_code(task.trusted) if task.trusted else nullcontext():
        compute_missing_runs(
            task.study, task.out, lambda event: _send_message(link, event), task.options, task.cache, failed_elsewhere=failed
        )


def _leave_keyboard_to_parent() -> None:
    """Ctrl-C and a closed terminal reach the parent and all workers at once; the parent decides, and tells the workers."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # the parent blocked SIGINT while it started this process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _obey_parent(link: Connection, failed: set[str]) -> None:
    """Takes keys of failed runs until the parent says stop (None) or is dead; then ends the process, gently at first."""
    with suppress(EOFError, OSError):
        while (message := link.recv()) is not None:
            failed.add(message)
    signal_main_thread(signal.SIGTERM)
    time.sleep(EXIT_S)
    os._exit(128 + signal.SIGTERM)


def _send_message(link: Connection, message: Any) -> None:
    with suppress(OSError):  # the parent is dead: `_obey_parent` ends this process
        link.send(message)
