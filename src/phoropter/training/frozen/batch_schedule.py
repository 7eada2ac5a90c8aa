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

from phoropter.core.seeds import random_permutation
from phoropter.training.batches.loading import BatchSampler, Rows

MAX_WINDOW_BATCHES = 3.0  # windows of more than so many batches' rows cost more arithmetic than the gathering they save


@dataclass(frozen=True, eq=False)
class BatchWindow:
    """rows: (L, U) of the dataset · member: (L, r, U) float32, 1 where a row is in a run's batch, else 0 · counts: (L, r) B."""

    rows: Rows
    mask: NDArray[np.float32]
    batch_sizes: NDArray[np.float32]


class SharedSchedule:
    """Runs that go through an epoch side by side. shared: they leave out
    different rows of one order; else their orders are equal."""

    def __init__(self, orders: Sequence[BatchSampler], shared: bool) -> None:
        self.orders, self.shared = orders, shared

    def plan_epoch(self, epoch: int, whole: Rows) -> EpochPlan:
        """What they read in an epoch, `whole` being all rows of the dataset in this epoch's order."""
        if not self.shared:
            batches = self.orders[0].epoch_batches(epoch, whole)
            return EpochPlan.from_batches([batches], np.concatenate(batches), len(self.orders))
        each = [o.epoch_batches(epoch, whole) for o in self.orders]
        used = np.zeros(len(whole), bool)
        for batches in each:
            used[np.concatenate(batches)] = True
        return EpochPlan.from_batches(each, whole[used[whole]], len(self.orders))

    @property
    def is_wasteful(self) -> bool:
        """Whether its windows hold far more rows than a batch."""
        passage = self.plan_epoch(0, epoch_order(self.orders[0], 0))
        return float(np.mean(passage.window_end - passage.window_start)) > MAX_WINDOW_BATCHES * self.orders[0].batch_size


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """An epoch of a lane: rows: (n,) in order · step: (r or 1, n) at which a run reads each row, −1: never · low, high: of each
    step's window · runs: r"""

    rows: Rows
    step_of_row: NDArray[np.int32]
    window_start: NDArray[np.int64]
    window_end: NDArray[np.int64]
    run_count: int

    @classmethod
    def from_batches(cls, each: Sequence[list[Rows]], rows: Rows, runs: int) -> EpochPlan:
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

    def window_at(self, number: int, width: int) -> tuple[Rows, NDArray[np.bool_]]:
        """(U,) rows and (r, U) whether each is in a run's batch, at a step; rows past the last are repeated and nobody's."""
        start = int(self.window_start[number])
        where = np.arange(start, start + width)
        inside = self.step_of_row[:, start : start + width] == number
        if inside.shape[1] < width:
            inside = np.pad(inside, ((0, 0), (0, width - inside.shape[1])))
            where = np.minimum(where, len(self.rows) - 1)
        return self.rows[where], np.broadcast_to(inside, (self.run_count, width))


def epoch_order(first: BatchSampler, epoch: int) -> Rows:
    """All rows of the dataset in the order of an epoch."""
    return random_permutation(first.dataset.hashed_ids, first.seed, "order", epoch)


def iterate_batch_windows(lanes: Sequence[SharedSchedule], epoch: int) -> Iterator[BatchWindow]:
    """What all lanes read, step by step; they have equally many steps."""
    known: dict[int, Rows] = {}
    for lane in lanes:
        first = lane.orders[0]
        if first.seed not in known:
            known[first.seed] = epoch_order(first, epoch)
    passages = [lane.plan_epoch(epoch, known[lane.orders[0].seed]) for lane in lanes]
    widths = np.max([p.window_end - p.window_start for p in passages], axis=0)
    for number, width in enumerate(widths.tolist()):
        seen = [p.window_at(number, width) for p in passages]
        member = np.ascontiguousarray(np.stack([inside for _, inside in seen]), dtype=np.float32)
        yield BatchWindow(np.stack([rows for rows, _ in seen]), member, member.sum(2))
