"""Progress of a study: events, bars in a terminal, plain lines elsewhere, and the status of a results folder. No torch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from phoropter.core.durations import format_duration
from phoropter.results.store import Store

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table


@dataclass(frozen=True)
class ProgressEvent:
    """One event of a running study.

    kind:  decoding · features · start · tick (a step) · epoch · done · failed · lost (a process that computed it) · waiting
    title: the run (candidate and split), or the backbones whose features are being computed
    done, total: images for decoding and features, else runs
    note:  tick, epoch: epoch, epochs, losses, images_per_s · done: metrics · failed, lost: error
    keys:  start, done, failed: of the runs
    """

    kind: str
    title: str = ""
    done: int = 0
    total: int = 0
    note: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()


ProgressCallback = Callable[[ProgressEvent], None]


@contextmanager
def show_progress(name: str, console: Console) -> Iterator[ProgressCallback]:
    """Yields a callback that shows events on a console: live bars on a terminal, a line for each finished run elsewhere."""
    if not console.is_terminal:
        yield _OutputGuard(_ProgressLines(console))
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=False) as bars:
        yield _OutputGuard(_ProgressBars(name, bars))


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
    """A bar for the study and one for the run or the preparation in progress; of several runs at once, one until it is done."""

    def __init__(self, name: str, bars: Progress) -> None:
        self.bars = bars
        self.study: TaskID | None = None
        self.current: TaskID = bars.add_task("preparing", total=None, note="")
        self.name = name
        self.started = time.monotonic()
        self.done_at_start: int | None = None
        self.shown = ""

    def __call__(self, event: ProgressEvent) -> None:
        if event.kind in ("tick", "epoch", "start"):
            if self.shown not in ("", event.title):
                return
            self._show_run(event)
        elif event.kind in ("decoding", "features"):
            words = _describe_preparation(event)
            self.bars.update(self.current, description=words, completed=event.done, total=event.total, note="")
        elif event.kind == "waiting" and not self.shown:
            self.bars.update(self.current, description="waiting for runs another process computes", note="")
        elif event.kind in ("failed", "lost"):
            self.bars.console.print(_describe_problem(event), markup=False, highlight=False, soft_wrap=True)
        elif event.kind == "done":
            self._update_study_bar(event)
        if event.kind in ("done", "failed", "lost") and event.title == self.shown:
            self.shown = ""

    def _show_run(self, event: ProgressEvent) -> None:
        note = event.note
        if event.kind == "start" or not self.shown:
            self._update_study_bar(event)
            self.bars.update(self.current, description=event.title, completed=0, total=None, note="")
        self.shown = event.title
        if event.kind == "tick":
            epochs_done = note["epoch"] - 1 + note["step"] / note["steps"]
            words = f"epoch {note['epoch']}/{note['epochs']} · {note['images_per_s']:.0f} images/s"
            self.bars.update(self.current, completed=epochs_done, total=note["epochs"], note=words)
        elif event.kind == "epoch":
            self.bars.update(self.current, completed=note["epoch"], total=note["epochs"], note=_describe_epoch(note))

    def _update_study_bar(self, event: ProgressEvent) -> None:
        if self.study is None:
            self.study = self.bars.add_task(self.name, total=event.total, note="")
            self.done_at_start, self.started = event.done, time.monotonic()
        self.bars.update(self.study, completed=event.done, total=event.total, note=self._format_time_left(event))

    def _format_time_left(self, event: ProgressEvent) -> str:
        finished = event.done - (self.done_at_start or 0)
        if finished <= 0 or event.done >= event.total:
            return ""
        return f"about {format_duration((time.monotonic() - self.started) / finished * (event.total - event.done))} left"


class _ProgressLines:
    """A line for each finished run, and one when a preparation begins: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.preparing: set[str] = set()
        self.started = time.monotonic()

    def __call__(self, event: ProgressEvent) -> None:
        if event.kind in ("decoding", "features"):
            words = _describe_preparation(event)
            if words not in self.preparing:
                self.preparing.add(words)
                self._print_line(f"{words} ({event.total})")
        elif event.kind == "done":
            scores = ", ".join(f"{k} {v:.4f}" for k, v in event.note.items() if v is not None)
            self._print_line(
                f"[{event.done}/{event.total}] {event.title}: {scores} ({format_duration(time.monotonic() - self.started)})"
            )
        elif event.kind in ("failed", "lost"):
            self._print_line(_describe_problem(event))

    def _print_line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        self.console.file.flush()  # a log is read while it is written


def _describe_preparation(event: ProgressEvent) -> str:
    return "decoding images" if event.kind == "decoding" else f"computing features of {event.title}"


def _describe_problem(event: ProgressEvent) -> str:
    count = f"[{event.done}/{event.total}]"
    return f"{count} {event.title}: FAILED: {event.note['error']}" if event.kind == "failed" else f"{count} {event.note['error']}"


def _describe_epoch(note: dict[str, Any]) -> str:
    words = f"epoch {note['epoch']}/{note['epochs']} · loss {note['train_loss']:.3f} · accuracy {note['train_accuracy']:.1%}"
    return f"{words} · {note['images_per_s']:.0f} images/s"


def make_status_table(store: Store) -> Table:
    """A table for the terminal: how many runs of each candidate are done, running, failed and missing."""
    from rich.table import Table

    study = store.study
    table = Table(title=study["name"], title_justify="left", caption_justify="left", box=None, pad_edge=False)
    table.add_column("candidate", overflow="fold")
    for name in ("done", "running", "failed", "missing"):
        table.add_column(name, justify="right", no_wrap=True)
    counts = count_run_states(store)
    for name, count in counts.items():
        table.add_row(name, *(str(count[state]) if count[state] else "·" for state in ("done", "running", "failed", "missing")))
    done, total = sum(c["done"] for c in counts.values()), len(store.planned_rows)
    notes = store.read_progress_notes().values()
    running = [f"{n['candidate']} · {n['split']}: epoch {n['epoch']}/{n['epochs']}" for n in notes]
    table.caption = f"{done} of {total} runs done" + "".join(f"\n{d}" for d in running)
    return table


def count_run_states(store: Store) -> dict[str, Counter[str]]:
    """Candidate → its runs that are done, running, failed and missing; a damaged run counts as missing."""
    states = store.read_run_states()
    counts: dict[str, Counter[str]] = {}
    for planned in store.planned_rows:
        state = states[planned["key"]]
        counts.setdefault(planned["candidate"], Counter())["missing" if state == "damaged" else state] += 1
    return counts


def describe_damaged_runs(store: Store) -> list[str]:
    """A line for each run of the plan whose files are damaged: it counts as missing."""
    planned = {str(row["key"]): row for row in store.planned_rows}
    return [
        f"damaged: {planned[key]['candidate']} · {planned[key]['split']} (runs/{key}): {damage}; run the study again, which "
        "makes this run again"
        for key, damage in store.read_damage().items()
    ]
