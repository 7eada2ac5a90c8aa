"""Commands that compute in a results folder are found while they live, and hear a request that is made while they run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from phoropter.results import running_commands
from phoropter.results.running_commands import announce_command, list_running_commands, request_stop


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_commands, "LOOK_INTERVAL_S", 0.01)


def ignore() -> None:
    pass


def test_a_command_is_listed_while_it_runs_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with announce_command(folder, ignore):
        (name,) = list_running_commands(folder)
        assert name.endswith(f"-{os.getpid()}")
        with announce_command(folder, ignore):
            assert len(list_running_commands(folder)) == 2
    assert list_running_commands(folder) == [] and not folder.exists()


def test_a_folder_with_results_stays(tmp_path: Path) -> None:
    with announce_command(tmp_path, ignore):
        (tmp_path / "study.json").write_text("{}")
    assert [p.name for p in tmp_path.iterdir()] == ["study.json"]


def test_all_who_run_hear_a_request_and_those_who_come_later_do_not(tmp_path: Path) -> None:
    heard = [threading.Event(), threading.Event()]
    request_stop(tmp_path)  # of yesterday
    with announce_command(tmp_path, heard[0].set), announce_command(tmp_path, heard[1].set):
        assert not heard[0].wait(0.2)
        request_stop(tmp_path)
        assert all(h.wait(60) for h in heard)
    later = threading.Event()
    with announce_command(tmp_path, later.set):
        assert not later.wait(0.2)


def hold_for_ever(folder: str, ready: multiprocessing.synchronize.Event) -> None:
    with announce_command(Path(folder), ignore):
        ready.set()
        threading.Event().wait()


def test_a_killed_command_is_not_running(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold_for_ever, args=(str(tmp_path), ready))
    process.start()
    assert ready.wait(60) and len(list_running_commands(tmp_path)) == 1
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert list_running_commands(tmp_path) == []
    assert list((tmp_path / "locks" / "commands").iterdir()) == []
