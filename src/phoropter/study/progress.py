"""What a person watching sees: bars in a terminal, plain lines elsewhere, and the state of a results folder. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from phoropter.results.store import Store

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table


@dataclass(frozen=True)
class ProgressEvent:
    """What a person watching is told.

    what: decoding · features · start · tick · epoch · done · failed · waiting
    title: of the run (candidate and split), or the backbones being asked
    """

    kind: str
    title: str = ""
    done: int = 0
    total: int = 0
    note: dict[str, Any] = field(default_factory=dict)


ProgressCallback = Callable[[ProgressEvent], None]


def format_duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(75), duration(7260), duration(0.4)
    ('1 min 15 s', '2 h 1 min', '0.4 s')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if seconds < 48 * 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{seconds / 86400:.1f} days"


@contextmanager
def show_progress(name: str, console: Console) -> Iterator[ProgressCallback]:
    """Yields a Watch that shows events on this console: live bars on a terminal, a line for each finished run elsewhere."""
    if not console.is_terminal:
        yield _ProgressLines(console)
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
        yield _ProgressBars(name, bars)


class _ProgressBars:
    """A bar for the study, one for the run under way, one for whatever is prepared."""

    def __init__(self, name: str, bars: Progress) -> None:
        self.bars = bars
        self.study: TaskID | None = None
        self.current: TaskID = bars.add_task("preparing", total=None, note="")
        self.name = name
        self.began = time.monotonic()
        self.first: int | None = None

    def __call__(self, event: ProgressEvent) -> None:
        if event.kind in ("decoding", "features"):
            words = "decoding pictures" if event.kind == "decoding" else f"asking {event.title} once"
            self.bars.update(self.current, description=words, completed=event.done, total=event.total, note="")
        elif event.kind == "start":
            self._update_study_bar(event)
            self.bars.update(self.current, description=event.title, completed=0, total=None, note="")
        elif event.kind == "tick":
            note = event.note
            along = note["epoch"] - 1 + note["step"] / note["steps"]
            words = f"epoch {note['epoch']}/{note['epochs']} · {note['images_per_s']:.0f} images/s"
            self.bars.update(self.current, completed=along, total=note["epochs"], note=words)
        elif event.kind == "epoch":
            self.bars.update(
                self.current, completed=event.note["epoch"], total=event.note["epochs"], note=_describe_epoch(event.note)
            )
        elif event.kind == "done":
            self._update_study_bar(event)
        elif event.kind == "failed":
            self.bars.console.print(f"[red]failed[/red] {event.title}: {event.note['error']}", highlight=False)
        elif event.kind == "waiting":
            self.bars.update(self.current, description="waiting for runs another process computes", note="")

    def _update_study_bar(self, event: ProgressEvent) -> None:
        if self.study is None:
            self.study = self.bars.add_task(self.name, total=event.total, note="")
            self.first, self.began = event.done, time.monotonic()
        self.bars.update(self.study, completed=event.done, total=event.total, note=self._format_time_left(event))

    def _format_time_left(self, event: ProgressEvent) -> str:
        made = event.done - (self.first or 0)
        if made <= 0:
            return ""
        return f"about {format_duration((time.monotonic() - self.began) / made * (event.total - event.done))} left"


class _ProgressLines:
    """A line for each finished run, and one when preparing begins: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.preparing: set[str] = set()
        self.began = time.monotonic()

    def __call__(self, event: ProgressEvent) -> None:
        if event.kind in ("decoding", "features"):
            words = "decoding pictures" if event.kind == "decoding" else f"asking {event.title} once"
            if words not in self.preparing:
                self.preparing.add(words)
                self._print_line(f"{words} ({event.total})")
        elif event.kind == "done":
            scores = ", ".join(f"{k} {v:.4f}" for k, v in event.note.items() if v is not None)
            self._print_line(
                f"[{event.done}/{event.total}] {event.title}: {scores} ({format_duration(time.monotonic() - self.began)})"
            )
        elif event.kind == "failed":
            self._print_line(f"[{event.done}/{event.total}] {event.title}: FAILED: {event.note['error']}")

    def _print_line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        self.console.file.flush()  # a log is read while it is written


def _describe_epoch(note: dict[str, Any]) -> str:
    words = f"epoch {note['epoch']}/{note['epochs']} · loss {note['train_loss']:.3f} · accuracy {note['train_accuracy']:.1%}"
    return f"{words} · {note['images_per_s']:.0f} images/s"


def make_status_table(store: Store) -> Table:
    """What is done, under way, failed and missing of each candidate of a results folder, as a table for the terminal."""
    from rich.table import Table

    study = store.study
    failures = store.read_failures()
    now = store.read_progress_notes()
    table = Table(title=study["name"], title_justify="left")
    for name in ("candidate", "done", "under way", "failed", "missing"):
        table.add_column(name, justify="left" if name == "candidate" else "right")
    rows: dict[str, list[int]] = {}
    for planned in study["plan"]:
        counts = rows.setdefault(planned["candidate"], [0, 0, 0, 0])
        key = planned["key"]
        counts[0 if key in store else 1 if store.is_leased(key) else 2 if key in failures else 3] += 1
    for name, counts in rows.items():
        table.add_row(name, *(str(n) if n else "·" for n in counts))
    done, total = sum(c[0] for c in rows.values()), len(study["plan"])
    doing = [f"{n['candidate']} · {n['split']}: epoch {n['epoch']}/{n['epochs']}" for k, n in now.items() if store.is_leased(k)]
    table.caption = f"{done} of {total} runs done" + "".join(f"\n{d}" for d in doing)
    return table
