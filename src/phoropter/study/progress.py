"""Progress of a study: its events, and the status of a results folder. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from phoropter.results.store import Store

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class ProgressEvent:
    """One event of a running study.

    kind:  settled (a default) · forecast · decoding · features · start · tick (a step) · epoch · done · failed · lost (its
           process) · waiting
    title: the run (candidate and split), the backbones whose features are being computed, or what was settled, in a sentence
    done, total: images for decoding and features, else runs
    note:  tick, epoch: epoch, epochs, losses, images_per_s · done: metrics · failed, lost: error
    keys:  start, done, failed: of the runs · worker: 0, or the number of the process from 1 on where there are several
    forecast: what each missing run will take, by its key in `note` (study/display/time_left.py)
    """

    kind: str
    title: str = ""
    done: int = 0
    total: int = 0
    note: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    worker: int = 0

    @property
    def epochs_done(self) -> float:
        """Of an event of kind `tick` or `epoch`: how many epochs are behind, the steps of one in progress as a share of it."""
        if self.kind == "epoch":
            return int(self.note["epoch"])
        return float(self.note["epoch"] - 1 + self.note["step"] / self.note["steps"])


ProgressCallback = Callable[[ProgressEvent], None]


def name_preparation(event: ProgressEvent) -> str:
    """What an event of kind `decoding` or `features` is about."""
    return "decoding images" if event.kind == "decoding" else f"computing features of {event.title}"


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


def describe_failures(notes: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each cause of failure, with the runs it had. notes: of `Store.read_failures`"""
    titles: dict[str, list[str]] = {}
    for note in notes:
        titles.setdefault(str(note["error"]), []).append(f"{note['candidate']} · {note['split']}")
    lines = []
    for error, runs in titles.items():
        counted, others = (f"{len(runs)} runs, ", f" and {len(runs) - 1} more") if len(runs) > 1 else ("", "")
        lines.append(f"failed: {counted}{runs[0]}{others}: {error}")
    return lines


def describe_damaged_runs(store: Store) -> list[str]:
    """A line for each run of the plan whose files are damaged: it counts as missing."""
    planned = {str(row["key"]): row for row in store.planned_rows}
    return [
        f"damaged: {planned[key]['candidate']} · {planned[key]['split']} (runs/{key}): {damage}; run the study again, which "
        "makes this run again"
        for key, damage in store.read_damage().items()
    ]
