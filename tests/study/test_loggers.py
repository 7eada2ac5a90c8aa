"""Loggers and callbacks get every event, are off by default, and never cost a run."""

from __future__ import annotations

import builtins
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phoropter.core.errors import MissingExtraError, SpecError
from phoropter.study import loggers
from phoropter.study.loggers import LoggerCallback, MLflowLogger, TensorBoardLogger, attach_loggers
from phoropter.study.progress import ProgressEvent

RUN = "net · fold 1 of 2, seed 0"
STORY = (
    ProgressEvent("start", RUN, 0, 2),
    ProgressEvent("tick", RUN, note={"epoch": 1, "step": 3, "steps": 9, "epochs": 2, "images_per_s": 3.0}),
    ProgressEvent("epoch", RUN, note={"epoch": 1, "epochs": 2, "phase": "all", "train_loss": 0.5}),
    ProgressEvent("epoch", RUN, note={"epoch": 2, "epochs": 2, "phase": "all", "train_loss": 0.25}),
    ProgressEvent("done", RUN, 1, 2, {"accuracy": 0.9, "roc_auc": None}),
    ProgressEvent("failed", "net · fold 2 of 2, seed 0", 1, 2, {"error": "diverged"}),
)


class Written:
    """A fake TensorBoard writer that records its calls."""

    def __init__(self, folder: str) -> None:
        self.folder, self.scalars, self.closed = folder, [], False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_epochs_and_scores(tmp_path: Path) -> None:
    made: list[Written] = []
    hearing = LoggerCallback(
        "tensorboard", TensorBoardLogger("s", tmp_path, lambda folder: made.append(Written(folder)) or made[-1])
    )
    for event in STORY:
        hearing(event)
    (one,) = made
    assert one.folder == str(tmp_path / "tensorboard" / "net - fold 1 of 2, seed 0") and one.closed
    assert one.scalars == [("train_loss", 0.5, 1), ("train_loss", 0.25, 2), ("held_out_accuracy", 0.9, 0)]


def test_tensorboard_s_reader_reads_the_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'phoropter[track]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with attach_loggers(lambda event: None, "s", tmp_path, "tensorboard") as watch:
        for event in STORY:
            watch(event)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    read = EventAccumulator(str(folder))
    read.Reload()
    assert [e.step for e in read.Tensors("train_loss")] == [1, 2]


class Client:
    """The methods of an MlflowClient that are used."""

    def __init__(self, known: Any = None) -> None:
        self.known, self.told = known, []

    def get_experiment_by_name(self, name: str) -> Any:
        return self.known

    def create_experiment(self, name: str, artifact_location: str) -> str:
        self.told.append(("experiment", name))
        return "7"

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.told.append(("run", experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=f"id of {run_name}"))

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        self.told.append((run, name, value, step))

    def set_terminated(self, run: str, status: str) -> None:
        self.told.append((run, status))


def test_mlflow_has_a_run_for_each_run(tmp_path: Path) -> None:
    client = Client()
    hearing = LoggerCallback("mlflow", MLflowLogger("s", tmp_path, client))
    for event in STORY:
        hearing(event)
    other = "net · fold 2 of 2, seed 0"
    assert client.told == [
        ("experiment", "s"),
        ("run", "7", RUN),
        (f"id of {RUN}", "train_loss", 0.5, 1),
        (f"id of {RUN}", "train_loss", 0.25, 2),
        (f"id of {RUN}", "held_out_accuracy", 0.9, 0),
        (f"id of {RUN}", "FINISHED"),
        ("run", "7", other),
        (f"id of {other}", "FAILED"),
    ]
    assert MLflowLogger("s", tmp_path, Client(SimpleNamespace(experiment_id="3"))).experiment == "3"


def test_an_interrupted_run_is_closed_as_killed(tmp_path: Path) -> None:
    client, written = Client(), []
    with pytest.raises(KeyboardInterrupt):
        monkey = {"mlflow": lambda name, folder: MLflowLogger(name, folder, client)}
        monkey["tensorboard"] = lambda name, folder: TensorBoardLogger(
            name, folder, lambda f: written.append(Written(f)) or written[-1]
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loggers, "LOGGERS", monkey)
            with attach_loggers(lambda event: None, "s", tmp_path, "mlflow, tensorboard") as watch:
                watch(STORY[2])
                raise KeyboardInterrupt
    assert client.told[-1] == (f"id of {RUN}", "KILLED") and written[0].closed


def test_loggers_are_off_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(loggers.LOG_VARIABLE, raising=False)
    heard: list[ProgressEvent] = []
    with attach_loggers(heard.append, "s", tmp_path) as watch:
        assert watch == heard.append
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_logger_suggests_the_nearest_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(loggers.LOG_VARIABLE, "tensorbord")
    with (
        pytest.raises(SpecError, match=r"PHOROPTER_LOG is 'tensorbord'.*did you mean 'tensorboard'"),
        attach_loggers(print, "s", tmp_path),
    ):
        pass


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_gives_one_line_with_the_command_to_install_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(module: str, *rest: Any) -> Any:
        if module.split(".")[0] == name:
            raise ImportError(module)
        return real(module, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"{name}, which is not installed: pip install 'phoropter\[track\]'"):
        attach_loggers(print, "s", tmp_path, name).__enter__()


def test_a_logger_that_raises_is_reported_once_and_the_study_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full(Written):
        def add_scalar(self, name: str, value: float, step: int) -> None:
            raise OSError("no space left")

    hearing = LoggerCallback("tensorboard", TensorBoardLogger("s", tmp_path, Full))
    with caplog.at_level(logging.WARNING, "phoropter"):
        for event in STORY:
            hearing(event)
        hearing.close()
    assert [r.message for r in caplog.records] == ["tensorboard stopped logging (no space left); the study goes on"]


class Collector:
    """A callback of a user's own that fails at the second event if told to."""

    def __init__(self, fail: bool = False) -> None:
        self.events: list[ProgressEvent] = []
        self.fail = fail

    def on_event(self, event: ProgressEvent) -> None:
        self.events.append(event)
        if self.fail and len(self.events) == 2:
            raise ValueError("no more")


def test_callbacks_get_every_event_and_one_that_raises_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shown: list[ProgressEvent] = []
    good, bad = Collector(), Collector(fail=True)
    with (
        caplog.at_level(logging.WARNING, "phoropter"),
        attach_loggers(shown.append, "s", tmp_path, callbacks=[bad, good]) as notify,
    ):
        for event in STORY:
            notify(event)
    assert good.events == shown == list(STORY) and bad.events == list(STORY[:2])
    assert [r.message for r in caplog.records] == ["Collector stopped logging (no more); the study goes on"]


def test_a_callback_without_the_method_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(SpecError, match=r"a callback is a function, expected an object with a method on_event"),
        attach_loggers(print, "s", tmp_path, callbacks=[lambda event: None]),  # type: ignore[list-item]
    ):
        pass
