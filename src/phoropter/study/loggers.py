"""Sends progress events to loggers (TensorBoard, MLflow) and to callbacks of the user's own; none are used unless asked for.

    PHOROPTER_LOG=tensorboard         DIR/tensorboard/RUN, a folder of events for each run
    PHOROPTER_LOG=mlflow              MLFLOW_TRACKING_URI, by default sqlite:///DIR/mlflow.db
    PHOROPTER_LOG=tensorboard,mlflow  both

An environment variable and not a key of the study, as watching a study decides no number. With several processes (`-j`) the
events of all of them arrive in the main process. A logger or callback that raises is reported once and left out, and the study
goes on.

Left out: images, weights and predictions, which lie in the run folders, and the load of the system.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from phoropter.core.errors import MissingExtraError, SpecError, did_you_mean, join_words
from phoropter.study.progress import ProgressCallback, ProgressEvent

LOG_VARIABLE = "PHOROPTER_LOG"
_NUMBER_TYPES = (int, float)


class Callback(Protocol):
    """An object that follows a study: pass it to `Study.run(callbacks=[...])`."""

    def on_event(self, event: ProgressEvent) -> None:
        """Called in the main process for every event. It cannot change a number; what it raises is logged, once."""


class RunLogger(Protocol):
    """Writes numbers of named runs somewhere."""

    def log_scalars(self, run: str, values: Mapping[str, float], step: int) -> None:
        """Values of one run at one epoch; step 0: final values of the run."""

    def end_run(self, run: str, failed: bool) -> None:
        """Called when a run has finished or failed."""

    def close(self) -> None:
        """Called when the study has ended."""


@contextmanager
def attach_loggers(
    on_progress: ProgressCallback, name: str, folder: Path, wanted: str | None = None, callbacks: Sequence[Callback] = ()
) -> Iterator[ProgressCallback]:
    """Yields a ProgressCallback that calls `on_progress`, the loggers that are asked for, and the callbacks.

    name: of the study · folder: its results folder · wanted: names of loggers (default: PHOROPTER_LOG)
    Raises SpecError for an unknown logger or an object without `on_event`, MissingExtraError where a package is not installed.
    """
    names_text = os.environ.get(LOG_VARIABLE, "") if wanted is None else wanted
    names = [word.strip().lower() for word in names_text.split(",") if word.strip()]
    for word in names:
        if word not in LOGGERS:
            raise SpecError(f"{LOG_VARIABLE} is '{names_text}': expected {join_words(LOGGERS)}{did_you_mean(word, LOGGERS)}")
    for callback in callbacks:
        if not callable(getattr(callback, "on_event", None)):
            raise SpecError(f"a callback is a {type(callback).__name__}, expected an object with a method on_event(event)")
    guarded: list[_GuardedCallback] = [LoggerCallback(word, LOGGERS[word](name, folder)) for word in dict.fromkeys(names)]
    guarded += [_GuardedCallback(type(callback).__name__, callback) for callback in callbacks]

    def notify_all(event: ProgressEvent) -> None:
        on_progress(event)
        for each in guarded:
            each(event)

    try:
        yield notify_all if guarded else on_progress
    finally:
        for each in guarded:
            each.close()


class _GuardedCallback:
    """Calls a callback until it raises: an error in it must not cost a run."""

    def __init__(self, name: str, callback: Callback | None = None) -> None:
        self.name, self.callback, self.broken = name, callback, False

    def __call__(self, event: ProgressEvent) -> None:
        if self.callback is not None:
            self._call_safely(partial(self.callback.on_event, event))

    def close(self) -> None:
        """Nothing to close: a callback has one method."""

    def _call_safely(self, act: Callable[[], None]) -> None:
        if self.broken:
            return
        try:
            act()
        except Exception as error:
            self.broken = True
            logging.getLogger("phoropter").warning("%s stopped logging (%s); the study goes on", self.name, error)


class LoggerCallback(_GuardedCallback):
    """Turns events into numbers for one logger."""

    def __init__(self, name: str, logger: RunLogger) -> None:
        super().__init__(name)
        self.logger = logger

    def __call__(self, event: ProgressEvent) -> None:
        if event.kind == "epoch" and event.title:
            numbers = _select_numbers(event.note)
            step = int(numbers.pop("epoch", 0))
            numbers.pop("epochs", None)
            self._call_safely(lambda: self.logger.log_scalars(event.title, numbers, step))
        elif event.kind == "done":
            held_out = {f"held_out_{k}": v for k, v in _select_numbers(event.note).items()}
            self._call_safely(lambda: self.logger.log_scalars(event.title, held_out, 0))
            self._call_safely(lambda: self.logger.end_run(event.title, failed=False))
        elif event.kind == "failed":
            self._call_safely(lambda: self.logger.end_run(event.title, failed=True))

    def close(self) -> None:
        self._call_safely(self.logger.close)


def _select_numbers(note: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in note.items() if isinstance(v, _NUMBER_TYPES) and not isinstance(v, bool)}


class TensorBoardLogger:
    """A folder of events for each run, so that TensorBoard shows one curve a run. writer: makes a writer from a path."""

    def __init__(self, name: str, folder: Path, writer: Callable[[str], Any] | None = None) -> None:
        self.folder, self.writer = folder / "tensorboard", writer or _make_tensorboard_writer()
        self.open: dict[str, Any] = {}

    def log_scalars(self, run: str, values: Mapping[str, float], step: int) -> None:
        if run not in self.open:
            self.open[run] = self.writer(str(self.folder / _title_to_file_name(run)))
        for name, value in values.items():
            self.open[run].add_scalar(name, value, step)

    def end_run(self, run: str, failed: bool) -> None:
        if run in self.open:
            self.open.pop(run).close()

    def close(self) -> None:
        while self.open:
            self.open.popitem()[1].close()


def _make_tensorboard_writer() -> Callable[[str], Any]:
    try:
        from tensorboard.summary import Writer
    except ImportError:
        raise MissingExtraError("tensorboard", "track", "logging to TensorBoard") from None
    return lambda folder: Writer(folder)


class MLflowLogger:
    """An experiment named after the study, with an MLflow run for each run. client: an mlflow.tracking.MlflowClient."""

    def __init__(self, name: str, folder: Path, client: Any | None = None) -> None:
        self.client = client or _make_mlflow_client(folder)
        known = self.client.get_experiment_by_name(name)
        artifacts = (folder / "mlflow").resolve().as_uri()
        self.experiment = known.experiment_id if known else self.client.create_experiment(name, artifact_location=artifacts)
        self.open: dict[str, str] = {}

    def log_scalars(self, run: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self._get_run_id(run), name, value, step=step)

    def end_run(self, run: str, failed: bool) -> None:
        self.client.set_terminated(self._get_run_id(run), status="FAILED" if failed else "FINISHED")
        del self.open[run]

    def close(self) -> None:
        for run in list(self.open):
            self.client.set_terminated(self.open.pop(run), status="KILLED")

    def _get_run_id(self, run: str) -> str:
        if run not in self.open:
            self.open[run] = self.client.create_run(self.experiment, run_name=run).info.run_id
        return self.open[run]


def _make_mlflow_client(folder: Path) -> Any:
    """Without MLFLOW_TRACKING_URI a database beside the runs, as MLflow no longer takes folders of files (./mlruns)."""
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise MissingExtraError("mlflow", "track", "logging to MLflow") from None
    folder.mkdir(parents=True, exist_ok=True)
    return MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}")


def _title_to_file_name(run: str) -> str:
    """A run's title → the name of its folder.

    >>> _title_to_file_name("small CNN · fold 1 of 5, seed 0")
    'small CNN - fold 1 of 5, seed 0'
    """
    return re.sub(r"[^\w ,.+()-]+", "-", run.replace("·", "-")).strip(" .-")[:120] or "run"


LOGGERS: dict[str, Callable[[str, Path], RunLogger]] = {"tensorboard": TensorBoardLogger, "mlflow": MLflowLogger}
