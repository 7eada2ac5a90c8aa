"""Tasks by two processes: in order, each once, and nothing lost where the second process fails or dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.processes import side_by_side
from phoropter.core.processes.side_by_side import call_side_by_side, can_fork

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "can_fork", lambda: True)


def meet(mine: Path, other: Path) -> int:
    """Returns once the other task is at work, too: one process alone would wait in vain."""
    mine.touch()
    began = time.monotonic()
    while not other.exists() and time.monotonic() - began < 60:
        time.sleep(0.01)
    return os.getpid() if other.exists() else 0


@linux
@pytest.mark.usefixtures("two_processes")
def test_two_processes_take_the_tasks_and_results_stay_in_order(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    tasks: list[Callable[[], int]] = [lambda: meet(a, b), lambda: meet(b, a), *(lambda n=n: n for n in range(20))]  # type: ignore[misc]
    first, second, *rest = call_side_by_side(tasks)
    assert os.getpid() in (first, second) and first != second and 0 not in (first, second)
    assert rest == list(range(20))


@linux
@pytest.mark.usefixtures("two_processes")
def test_what_the_second_process_does_not_bring_back_is_computed_here() -> None:
    here = os.getpid()

    def die_elsewhere() -> str:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)  # so that the other takes a task
        return "here"

    assert call_side_by_side([die_elsewhere] * 3) == ["here"] * 3
    unsendable = call_side_by_side([lambda: lambda: 1] * 4)  # a function cannot be sent
    assert [made() for made in unsendable] == [1] * 4

    class Unreadable:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    made_here = call_side_by_side([lambda: 1 if os.getpid() == here else Unreadable()] * 4)  # sent, but not read back
    assert made_here == [1] * 4


@linux
@pytest.mark.parametrize("when", ["in a task", "while it sends"])
def test_a_second_process_ends_where_the_first_was_killed(tmp_path: Path, when: str) -> None:
    script = f"""
import os, pathlib, signal, time
from phoropter.core.processes import side_by_side
side_by_side.can_fork = lambda: True
first = os.getpid()
def kill_first():
    os.kill(first, signal.SIGKILL)
    while os.getppid() == first:
        time.sleep(0.01)
class Long:
    def __reduce__(self):
        kill_first()
        return bytes, (bytes(1_000_000),)  # more than a pipe holds
def answer():
    if os.getpid() == first:
        time.sleep(600)
    with open({str(tmp_path / "taken")!r}, "a") as file:
        print(os.getpid(), file=file)
    {"kill_first()" if when == "in a task" else ""}
    return Long()
side_by_side.call_side_by_side([answer] * 4)
"""
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    began = time.monotonic()
    taken = (tmp_path / "taken").read_text().split()
    second = Path("/proc", taken[0])
    while _is_at_work(second) and time.monotonic() - began < 30:
        time.sleep(0.02)
    assert not _is_at_work(second)
    taken = (tmp_path / "taken").read_text().split()
    assert len(taken) in ((1,) if when == "in a task" else (3, 4)), "no task more is taken for nobody"


def _is_at_work(process: Path) -> bool:
    """Whether a process is there, and not an ended one that nobody waits for."""
    try:
        return ") Z" not in (process / "stat").read_text()
    except OSError:
        return False


@linux
@pytest.mark.usefixtures("two_processes")
def test_a_second_process_that_hangs_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.getpid()
    monkeypatch.setattr(side_by_side, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(side_by_side, "PATIENCE_FACTOR", 0.0)

    def hang_elsewhere() -> str:
        if os.getpid() != here:
            signal.pause()
        time.sleep(0.2)  # so that the other takes a task
        return "here"

    forked: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: forked.append(child := fork()) or child)  # type: ignore[func-returns-value]
    assert call_side_by_side([hang_elsewhere] * 3) == ["here"] * 3
    with pytest.raises(ProcessLookupError):
        os.kill(forked[0], 0)


@linux
@pytest.mark.usefixtures("two_processes")
def test_results_come_where_no_process_can_be_made_and_where_the_ends_of_children_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks: list[Callable[[], int]] = [lambda n=n: n for n in range(5)]  # type: ignore[misc]
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert call_side_by_side(tasks) == list(range(5))
    finally:
        signal.signal(signal.SIGCHLD, before)

    def fail() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", fail)
    files = len(os.listdir("/proc/self/fd"))
    assert call_side_by_side(tasks) == list(range(5)) and len(os.listdir("/proc/self/fd")) == files


@linux
@pytest.mark.usefixtures("two_processes")
def test_a_task_that_fails_raises_what_it_raises_in_one_process() -> None:
    def fail() -> Any:
        raise SpecError("no such thing")

    with pytest.raises(SpecError, match="no such thing"):
        call_side_by_side([lambda: 1, fail, lambda: 2])


def test_a_fork_is_made_only_where_a_core_is_free_and_nothing_is_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "count_default_threads", lambda: 2)
    monkeypatch.setattr(side_by_side, "_THREADED_LIBRARIES", ())
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert can_fork() == (sys.platform == "linux")
    monkeypatch.setattr(side_by_side, "_THREADED_LIBRARIES", ("json",))
    assert "json" in sys.modules and not can_fork()
    monkeypatch.setattr(side_by_side, "_THREADED_LIBRARIES", ())
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert not can_fork()
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(side_by_side, "count_default_threads", lambda: 1)
    assert not can_fork()
