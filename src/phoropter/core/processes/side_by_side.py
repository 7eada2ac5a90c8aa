"""Tasks of a report by two processes, where there are two cores and a fork is safe: on Linux, without threads in the way.

The second process is a fork, so that it has everything that was read, without a copy. The tasks stand in a pipe, and each process
takes the next one when it is free, so the results do not depend on which of the two computed what. What the fork does not bring
back, because a task failed there, it was killed or it hangs, is computed here: an error appears as if there had been one process.

Left out: processes that start from nothing. They would read all runs again, and a figure's painter cannot be sent to one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from phoropter.core.cpu_count import count_default_threads

Result = TypeVar("Result")
MAX_TASKS = 255  # their numbers are single bytes: two readers of a pipe never share one
# How long the fork is waited for once nothing is left to do here: a lock that another library held at the fork is never released
PATIENCE_SECONDS, PATIENCE_FACTOR = 120.0, 3.0  # and so many times what the tasks took here
# These start threads of OpenMP, which a fork does not take along and waits for.
_THREADED_LIBRARIES = ("torch", "sklearn")


def call_side_by_side(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Calls every task once and returns their results, in order; the first task that fails raises. Long ones are best first."""
    found = _call_in_two_processes(tasks) if can_fork() and 1 < len(tasks) <= MAX_TASKS else {}
    return [found[number] if number in found else task() for number, task in enumerate(tasks)]


def can_fork() -> bool:
    """Whether a second process may help: there is a core for it, and nothing here that a fork would break."""
    alone = threading.active_count() == 1 and not any(name in sys.modules for name in _THREADED_LIBRARIES)
    return sys.platform == "linux" and count_default_threads() > 1 and alone


def _call_in_two_processes(tasks: Sequence[Callable[[], Result]]) -> dict[int, Result]:
    """Number of a task → its result, of those that did not fail."""
    waiting, end = os.pipe()
    os.write(end, bytes(range(len(tasks))))
    os.close(end)
    arriving, leaving = Pipe(duplex=False)
    sys.stdout.flush(), sys.stderr.flush()
    began, first, came = time.monotonic(), os.getpid(), False
    child = _fork_quietly()
    if child == 0:
        arriving.close()  # else the pipe had a reader after a kill of this process, and the fork would wait for it without end
        _answer_and_exit(tasks, waiting, leaving, first)
    leaving.close()
    try:
        found = dict(_take_tasks(tasks, waiting))
        if arriving.poll(PATIENCE_SECONDS + PATIENCE_FACTOR * (time.monotonic() - began)):
            with suppress(Exception):  # the fork died, or what it sent cannot be read back, with whatever error that has
                found |= arriving.recv()
            came = True
    finally:
        os.close(waiting)
        arriving.close()
        if child is not None:
            _end_fork(child, at_once=not came)
    return found


def _fork_quietly() -> int | None:
    """As os.fork; None where there can be no further process."""
    with warnings.catch_warnings(), suppress(OSError):
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: those of OpenBLAS, which prepares itself for a fork
        return os.fork()
    return None


def _end_fork(child: int, at_once: bool) -> None:
    """Waits for its end; where signals of children are ignored, it is forgotten as soon as it ends."""
    with suppress(ProcessLookupError):
        if at_once:
            os.kill(child, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)


def _take_tasks(tasks: Sequence[Callable[[], Result]], waiting: int) -> Iterator[tuple[int, Result]]:
    """Calls the next task until none is left; what fails is left out."""
    while number := os.read(waiting, 1):
        try:
            result = tasks[number[0]]()
        except Exception:
            continue
        yield number[0], result


def _answer_and_exit(tasks: Sequence[Callable[[], Any]], waiting: int, leaving: Connection, parent: int) -> None:
    """The whole life of the fork. It ends without the handlers of the process it came from, whose files they would remove.

    It takes no task more once that process was killed: nobody asks for the result, and some tasks write files.
    """
    found: dict[int, Any] = {}
    with suppress(BaseException):
        for number, result in _take_tasks(tasks, waiting):
            found[number] = result
            if os.getppid() != parent:
                os._exit(1)
        leaving.send(found)
        sys.stdout.flush(), sys.stderr.flush()
    os._exit(0)
