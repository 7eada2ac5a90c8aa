"""What passes between a worker and its parent: exceptions of every kind, the parent's death, and a request to stop."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from phoropter.core.errors import DiskError, MissingExtraError, PhoropterError
from phoropter.data.spec import DataSpec
from phoropter.study.processes.worker_process import WorkerError, WorkerTask, _obey_parent, run_worker
from phoropter.study.spec import StudySpec
from phoropter.study.worker import ComputeOptions
from phoropter.training.loop.stop_signals import StopRequest, handle_stop_signals


def pass_through_pipe(message: Any) -> Any:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        theirs.send(message)
        return ours.recv()


@pytest.mark.parametrize("error", [DiskError("no room"), MissingExtraError("pyarrow", "parquet", "reading x")])
def test_an_error_of_ours_arrives_as_itself(error: PhoropterError) -> None:
    same = pass_through_pipe(WorkerError.from_exception(error)).make_exception()
    assert type(same) is type(error) and str(same) == str(error) and same.exit_code == error.exit_code


def test_another_error_arrives_with_its_traceback() -> None:
    class Unpicklable(Exception):
        def __init__(self) -> None:
            super().__init__("it holds a lock")
            self.lock = threading.Lock()

    try:
        raise Unpicklable
    except Unpicklable as error:
        same = pass_through_pipe(WorkerError.from_exception(error)).make_exception()
    assert type(same) is RuntimeError and str(same) == "a worker process ended with Unpicklable: it holds a lock"
    assert "raise Unpicklable" in same.__notes__[0]


def test_a_worker_takes_failed_keys_until_its_parent_is_gone_and_then_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = multiprocessing.Pipe()
    failed: set[str] = set()
    exits: list[int] = []
    monkeypatch.setattr("phoropter.study.processes.worker_process.EXIT_S", 0.0)
    monkeypatch.setattr(os, "_exit", exits.append)
    ours.send("k1")
    ours.send("k2")
    ours.close()
    listener = threading.Thread(target=_obey_parent, args=(theirs, failed))
    with pytest.raises(StopRequest), handle_stop_signals():
        listener.start()
        listener.join(20)
        threading.Event().wait(20)
    listener.join(20)  # which the request to stop has broken off
    theirs.close()
    assert failed == {"k1", "k2"} and exits == [143]


def test_a_task_that_cannot_be_done_is_answered_by_its_error(tmp_path: Path) -> None:
    candidates = [{"backbone": "test_resnet", "weights": "random"}]
    study = StudySpec(name="s", data=DataSpec(folder="nowhere"), candidates=candidates)  # type: ignore[call-arg]
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_worker, args=(theirs,))
    process.start()
    theirs.close()
    ours.send(WorkerTask(study, tmp_path / "out", ComputeOptions("cpu", 1), tmp_path))
    answer = ours.recv()
    process.join(60)
    assert isinstance(answer, WorkerError) and answer.kind.__name__ == "DataError" and process.exitcode == 0
    ours.close()
