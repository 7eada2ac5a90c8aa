"""Tasks by two processes: in order, each once, the same page, and nothing lost where the second process fails or dies."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_study import Made, make_study

from phoropter.core.errors import SpecError
from phoropter.report import page
from phoropter.report.page import create_report, read_report_input
from phoropter.report.render import side_by_side
from phoropter.report.render.side_by_side import call_side_by_side, can_fork

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "can_fork", lambda: True)
    monkeypatch.setattr(page, "can_fork", lambda: True)


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


@linux
def test_the_report_is_the_same_bytes_and_every_section_can_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(accuracies={"a": 0.9, "b": 0.7}, classes=("x", "y"), rows=80, folds=3, seeds=(0, 1))
    inputs = read_report_input(make_study(tmp_path / "study", made).folder)
    create_report(inputs, tmp_path / "one")
    found: list[dict[int, object]] = []
    call = side_by_side._call_in_two_processes

    def note_calls(tasks: Any) -> dict[int, Any]:
        found.append(call(tasks))
        assert len(found[-1]) == len(tasks)
        return found[-1]

    monkeypatch.setattr(side_by_side, "_call_in_two_processes", note_calls)
    for module in (side_by_side, page):
        monkeypatch.setattr(module, "can_fork", lambda: True)
    create_report(inputs, tmp_path / "two")
    one, two = ({p.relative_to(at): p.read_bytes() for p in at.rglob("*.*")} for at in (tmp_path / "one", tmp_path / "two"))
    assert found and one == two and Path("tables/mistakes.csv") in one and len(one) > 20
