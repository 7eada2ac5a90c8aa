"""Tasks of one report by two processes, where there are two cores and a fork is safe: on Linux, without threads in the way.

The second process is a fork, so that it has everything that was read, without a copy. The tasks stand in a pipe, and each process
takes the next one when it is free, so the results do not depend on which of the two computed what. What the fork does not bring
back, because a task failed there or it was killed, is computed here: an error appears as if there had been one process.

Left out: processes that start from nothing. They would read all runs again, and a figure's painter cannot be sent to one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from phoropter.core.cpu_count import count_default_threads

Result = TypeVar("Result")
MAX_TASKS = 255  # their numbers are single bytes: two readers of a pipe never share one
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: those of OpenBLAS, which prepares itself for a fork
        child = os.fork()
    if child == 0:
        _answer_and_exit(tasks, waiting, leaving)
    leaving.close()
    try:
        found = dict(_take_tasks(tasks, waiting))
        with suppress(EOFError, OSError):
            found |= arriving.recv()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.close(waiting)
        arriving.close()
        os.waitpid(child, 0)
    return found


def _take_tasks(tasks: Sequence[Callable[[], Result]], waiting: int) -> Iterator[tuple[int, Result]]:
    """Calls the next task until none is left; what fails is left out."""
    while number := os.read(waiting, 1):
        try:
            result = tasks[number[0]]()
        except Exception:
            continue
        yield number[0], result


def _answer_and_exit(tasks: Sequence[Callable[[], Any]], waiting: int, leaving: Connection) -> None:
    """The whole life of the fork. It ends without the handlers of the process it came from, whose files they would remove."""
    with suppress(BaseException):
        leaving.send(dict(_take_tasks(tasks, waiting)))
        sys.stdout.flush(), sys.stderr.flush()
    os._exit(0)
