"""Shows the events of a study: live bars in a terminal, a line for each finished run elsewhere.

A bar has its own clock: the study's counts from the first run, a run's from its start, that of a feature pass from its first
block. The time left is that of all missing runs (time_left.py) and is shown on the study's bar alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from phoropter.core.durations import format_duration, format_time_left
from phoropter.study.display.time_left import TimeLeft
from phoropter.study.progress import ProgressCallback, ProgressEvent, name_preparation

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TaskID

MAX_BAR_WIDTH, MAX_COUNT_WIDTH = 20, 13  # characters


@contextmanager
def show_progress(name: str, console: Console) -> Iterator[ProgressCallback]:
    """Yields a callback that shows events on a console: live bars on a terminal, a line for each finished run elsewhere."""
    if not console.is_terminal:
        yield _OutputGuard(_ProgressLines(console))
        return
    from rich.progress import Progress

    with Progress(*_make_columns(console.width), console=console, transient=False) as bars:
        yield _OutputGuard(_ProgressBars(name, bars))


def _make_columns(width: int) -> Iterator[ProgressColumn]:
    """Words, bar, count, clock and note in `width` characters: where there is no room, words and notes are cut."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    bar = min(MAX_BAR_WIDTH, width // 10)
    room = width - bar - MAX_COUNT_WIDTH - len("0:00:00") - 4  # gaps
    yield TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=room * 6 // 10))
    yield BarColumn(bar)
    yield MofNCompleteColumn()
    yield TimeElapsedColumn()
    yield TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, max_width=room * 4 // 10))


class _OutputGuard:
    """Shows events until the output cannot be written (its reader has gone, its disk is full): that must not cost a run."""

    def __init__(self, show: ProgressCallback) -> None:
        self.show: ProgressCallback | None = show

    def __call__(self, event: ProgressEvent) -> None:
        try:
            if self.show is not None:
                self.show(event)
        except OSError:
            self.show = None


class _ProgressBars:
    """A bar for the study, and one for what each process is doing, which is named where there are several."""

    def __init__(self, name: str, bars: Progress) -> None:
        self.bars, self.time_left = bars, TimeLeft()
        self.study = bars.add_task(name, total=None, note="")
        self.has_begun = False  # its first run
        self.by_worker: dict[int, TaskID] = {}
        self.doing: dict[int, str] = {}
        self.begun: dict[int, str] = {}  # what each process has begun to compute
        self.first = bars.add_task("reading the data", total=None, note="")
        self.settled: set[str] = set()

    def __call__(self, event: ProgressEvent) -> None:
        self.time_left.follow_event(event)
        if event.kind == "settled" and event.title not in self.settled:  # which every process tells
            self.settled.add(event.title)
            self.bars.console.print(event.title, markup=False, highlight=False, soft_wrap=True)
        if event.kind in ("failed", "lost"):
            self.bars.console.print(describe_problem(event), markup=False, highlight=False, soft_wrap=True)
        if event.kind in ("start", "done", "failed", "lost", "waiting"):
            self._update_study_bar(event)
        elif event.kind in ("tick", "epoch", "features") and self.has_begun:
            self.bars.update(self.study, note=self._format_time_left())
        if event.kind == "start":
            self.begun[event.worker] = event.title
            self._show_worker(event.worker, event.title, restart=True)
        elif event.kind in ("tick", "epoch"):
            words, epochs = _describe_training(event.note), event.note["epochs"]
            self._show_worker(event.worker, event.title, completed=event.epochs_done, total=epochs, note=words)
        elif event.kind in ("decoding", "features") and event.done >= event.total:  # what comes next takes its time, too
            self._show_worker(event.worker, self.begun.get(event.worker, "preparing"))
        elif event.kind in ("decoding", "features"):
            self._show_worker(event.worker, name_preparation(event), completed=event.done, total=event.total, note="")
        elif event.kind == "waiting":
            self._show_worker(event.worker, "waiting for runs another process computes")

    def _show_worker(self, worker: int, words: str, *, restart: bool = False, **shown: Any) -> None:
        """Brings the bar of a process up to date; its clock begins anew with what it does."""
        if worker not in self.by_worker:
            self.by_worker[worker] = self.first if not self.by_worker else self.bars.add_task("", total=None, note="")
            restart = True
        if restart or self.doing.get(worker) != words:
            self.doing[worker] = words
            named = f"worker {worker} · {words}" if worker else words
            task = next(task for task in self.bars.tasks if task.id == self.by_worker[worker])
            task.total = None  # which `reset` would take for "as it was"
            self.bars.reset(task.id, description=named, note="")
        if shown:
            self.bars.update(self.by_worker[worker], **shown)

    def _update_study_bar(self, event: ProgressEvent) -> None:
        if not self.has_begun:
            self.has_begun = True
            self.bars.reset(self.study, completed=event.done)
        self.bars.update(self.study, completed=event.done, total=event.total, note=self._format_time_left())

    def _format_time_left(self) -> str:
        return format_time_left(self.time_left.estimate_seconds(len(self.by_worker)))


class _ProgressLines:
    """A line for each finished run, and one when a preparation begins: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console, self.time_left = console, TimeLeft()
        self.told: set[str] = set()  # what is told once, though every process says it
        self.workers: set[int] = set()
        self.started = time.monotonic()

    def __call__(self, event: ProgressEvent) -> None:
        self.time_left.follow_event(event)
        if event.kind == "start":
            self.workers.add(event.worker)
        if event.kind in ("decoding", "features"):
            self._print_once(f"{name_preparation(event)} ({event.total})")
        elif event.kind == "settled":
            self._print_once(event.title)
        elif event.kind == "done":
            scores = ", ".join(f"{k} {v:.4f}" for k, v in event.note.items() if v is not None)
            times = [format_duration(time.monotonic() - self.started)]
            times += [words] if (words := format_time_left(self.time_left.estimate_seconds(len(self.workers)))) else []
            self._print_line(f"[{event.done}/{event.total}] {event.title}: {scores} ({', '.join(times)})")
        elif event.kind in ("failed", "lost"):
            self._print_line(describe_problem(event))

    def _print_once(self, text: str) -> None:
        if text not in self.told:
            self.told.add(text)
            self._print_line(text)

    def _print_line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        self.console.file.flush()  # a log is read while it is written


def describe_problem(event: ProgressEvent) -> str:
    """An event of kind `failed` or `lost`, in a line."""
    count = f"[{event.done}/{event.total}]"
    return f"{count} {event.title}: FAILED: {event.note['error']}" if event.kind == "failed" else f"{count} {event.note['error']}"


def _describe_training(note: dict[str, Any]) -> str:
    """Where a run is; loss and accuracy are known at the end of an epoch."""
    fit = f" · loss {note['train_loss']:.3f} · accuracy {note['train_accuracy']:.1%}" if "train_loss" in note else ""
    return f"epoch {note['epoch']}/{note['epochs']}{fit} · {note['images_per_s']:.0f} images/s"
