"""Which rows many heads read at a step. Runs that meet the rows of an epoch in the same order share a lane: one window of that
order is read for all of them, and each run counts only the rows of its own batch.

Folds of one seed shuffle alike: leaving rows out leaves the others in the same order (core/seeds), so at any step their batches
lie beside each other and nearly coincide. A window of ten folds' batches of 64 holds some 90 rows instead of 640.

Letters: L lanes, r runs in each, U rows of a window, B rows of a batch, n rows of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import order
from phoropter.training.batches import Order, Rows

WASTE = 3.0  # windows of more than so many batches' rows cost more arithmetic than the gathering they save


@dataclass(frozen=True, eq=False)
class Window:
    """rows: (L, U) of the dataset · member: (L, r, U) float32, 1 where a row is in a run's batch, else 0 · counts: (L, r) B."""

    rows: Rows
    member: NDArray[np.float32]
    counts: NDArray[np.float32]


class Lane:
    """Runs that go through an epoch side by side. shared: they leave out
    different rows of one order; else their orders are equal."""

    def __init__(self, orders: Sequence[Order], shared: bool) -> None:
        self.orders, self.shared = orders, shared

    def epoch(self, epoch: int, whole: Rows) -> Passage:
        """What they read in an epoch, `whole` being all rows of the dataset in this epoch's order."""
        if not self.shared:
            batches = self.orders[0].epoch(epoch, whole)
            return Passage.of([batches], np.concatenate(batches), len(self.orders))
        each = [o.epoch(epoch, whole) for o in self.orders]
        used = np.zeros(len(whole), bool)
        for batches in each:
            used[np.concatenate(batches)] = True
        return Passage.of(each, whole[used[whole]], len(self.orders))

    @property
    def wasteful(self) -> bool:
        """Whether its windows hold far more rows than a batch."""
        passage = self.epoch(0, whole(self.orders[0], 0))
        return float(np.mean(passage.high - passage.low)) > WASTE * self.orders[0].batch


@dataclass(frozen=True, eq=False)
class Passage:
    """An epoch of a lane: rows: (n,) in order · step: (r or 1, n) at which a run reads each row, −1: never · low, high: of each
    step's window · runs: r"""

    rows: Rows
    step: NDArray[np.int32]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    runs: int

    @classmethod
    def of(cls, each: Sequence[list[Rows]], rows: Rows, runs: int) -> Passage:
        """From the batches of each run, whose rows come in the order of `rows`."""
        place = np.empty(int(rows.max()) + 1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        step = np.full((len(each), len(rows)), -1, dtype=np.int32)
        low = np.full(len(each[0]), len(rows), dtype=np.int64)
        high = np.zeros(len(each[0]), dtype=np.int64)
        for mine, batches in zip(step, each, strict=True):
            sizes = [len(b) for b in batches]
            mine[place[np.concatenate(batches)]] = np.repeat(np.arange(len(batches), dtype=np.int32), sizes)
            low = np.minimum(low, place[[b[0] for b in batches]])
            high = np.maximum(high, place[[b[-1] for b in batches]] + 1)
        return cls(rows, step, low, high, runs)

    def window(self, number: int, width: int) -> tuple[Rows, NDArray[np.bool_]]:
        """(U,) rows and (r, U) whether each is in a run's batch, at a step; rows past the last are repeated and nobody's."""
        start = int(self.low[number])
        where = np.arange(start, start + width)
        inside = self.step[:, start : start + width] == number
        if inside.shape[1] < width:
            inside = np.pad(inside, ((0, 0), (0, width - inside.shape[1])))
            where = np.minimum(where, len(self.rows) - 1)
        return self.rows[where], np.broadcast_to(inside, (self.runs, width))


def whole(first: Order, epoch: int) -> Rows:
    """All rows of the dataset in the order of an epoch."""
    return order(first.dataset.hashes, first.seed, "order", epoch)


def windows(lanes: Sequence[Lane], epoch: int) -> Iterator[Window]:
    """What all lanes read, step by step; they have equally many steps."""
    known: dict[int, Rows] = {}
    for lane in lanes:
        first = lane.orders[0]
        if first.seed not in known:
            known[first.seed] = whole(first, epoch)
    passages = [lane.epoch(epoch, known[lane.orders[0].seed]) for lane in lanes]
    widths = np.max([p.high - p.low for p in passages], axis=0)
    for number, width in enumerate(widths.tolist()):
        seen = [p.window(number, width) for p in passages]
        member = np.ascontiguousarray(np.stack([inside for _, inside in seen]), dtype=np.float32)
        yield Window(np.stack([rows for rows, _ in seen]), member, member.sum(2))
