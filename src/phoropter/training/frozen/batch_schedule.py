"""Shared mini-batch schedule for batched heads.

Folds of one seed shuffle identically: leaving rows out leaves the others in the same order (core/seeds). So at any step the
batches of all folds lie beside each other in one order of the dataset and nearly coincide. One slice of that order, a window,
covers them all, and a mask selects each head's rows: a window of ten folds' batches of 64 holds some 90 rows instead of 640.

Letters: L schedules, r runs in each, U rows of a window, B rows of a batch, n rows of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import random_permutation
from phoropter.training.batches.loading import BatchSampler, Rows

MAX_WINDOW_BATCHES = 3.0  # wider windows cost more arithmetic on masked rows than they save in gathering


@dataclass(frozen=True, eq=False)
class BatchWindow:
    """One step of all schedules.

    rows: (L, U) of the dataset · mask: (L, r, U) float32, 1 where a row is in a run's batch, else 0 · batch_sizes: (L, r) B
    """

    rows: Rows
    mask: NDArray[np.float32]
    batch_sizes: NDArray[np.float32]


class SharedSchedule:
    """Runs that go through an epoch side by side.

    shared: the runs have one seed and leave out different rows of the same order; else they all have the same batches
    """

    def __init__(self, samplers: Sequence[BatchSampler], shared: bool) -> None:
        self.samplers, self.shared = samplers, shared

    def plan_epoch(self, epoch: int, order: Rows) -> EpochPlan:
        """The windows of an epoch. order: all rows of the dataset as this epoch shuffles them."""
        if not self.shared:
            batches = self.samplers[0].epoch_batches(epoch, order)
            return EpochPlan.from_batches([batches], np.concatenate(batches), len(self.samplers))
        batches_of_runs = [sampler.epoch_batches(epoch, order) for sampler in self.samplers]
        used = np.zeros(len(order), bool)
        for batches in batches_of_runs:
            used[np.concatenate(batches)] = True
        return EpochPlan.from_batches(batches_of_runs, order[used[order]], len(self.samplers))

    @property
    def is_wasteful(self) -> bool:
        """Whether its windows hold far more rows than a batch, as with few folds or much under-sampling."""
        first = self.samplers[0]
        plan = self.plan_epoch(0, epoch_order(first, 0))
        return float(np.mean(plan.window_end - plan.window_start)) > MAX_WINDOW_BATCHES * first.batch_size


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """The windows of a schedule's epoch, as slices of one order of rows.

    rows:         (n,) in this epoch's order
    step_of_row:  (r, n) the step at which a run reads each row, −1 for never; (1, n) where all runs have the same batches
    window_start, window_end: (steps,) the slice of `rows` that covers the batches of all runs at a step
    """

    rows: Rows
    step_of_row: NDArray[np.int32]
    window_start: NDArray[np.int64]
    window_end: NDArray[np.int64]
    run_count: int

    @classmethod
    def from_batches(cls, batches_of_runs: Sequence[list[Rows]], rows: Rows, run_count: int) -> EpochPlan:
        """From the batches of each run, whose rows come in the order of `rows`."""
        position = np.empty(int(rows.max()) + 1, dtype=np.int64)
        position[rows] = np.arange(len(rows))
        step_of_row = np.full((len(batches_of_runs), len(rows)), -1, dtype=np.int32)
        start = np.full(len(batches_of_runs[0]), len(rows), dtype=np.int64)
        end = np.zeros(len(batches_of_runs[0]), dtype=np.int64)
        for steps, batches in zip(step_of_row, batches_of_runs, strict=True):
            sizes = [len(b) for b in batches]
            steps[position[np.concatenate(batches)]] = np.repeat(np.arange(len(batches), dtype=np.int32), sizes)
            # Batches follow the order of `rows`, so their first and last rows bound them
            start = np.minimum(start, position[[b[0] for b in batches]])
            end = np.maximum(end, position[[b[-1] for b in batches]] + 1)
        return cls(rows, step_of_row, start, end, run_count)

    def window_at(self, step: int, width: int) -> tuple[Rows, NDArray[np.bool_]]:
        """(U,) rows and (r, U) whether each is in a run's batch at a step.

        Past the last row of the epoch the window is padded with that row, which is then in no batch.
        """
        start = int(self.window_start[step])
        positions = np.arange(start, start + width)
        in_batch = self.step_of_row[:, start : start + width] == step
        if in_batch.shape[1] < width:
            in_batch = np.pad(in_batch, ((0, 0), (0, width - in_batch.shape[1])))
            positions = np.minimum(positions, len(self.rows) - 1)
        return self.rows[positions], np.broadcast_to(in_batch, (self.run_count, width))


def epoch_order(sampler: BatchSampler, epoch: int) -> Rows:
    """All rows of the dataset in the order in which a sampler of this seed goes through them in an epoch."""
    return random_permutation(sampler.dataset.hashed_ids, sampler.split.seed, "order", epoch)


def iterate_batch_windows(schedules: Sequence[SharedSchedule], epoch: int) -> Iterator[BatchWindow]:
    """The windows of all schedules, step by step; the schedules have equally many steps.

    At a step all windows have the width of the widest, so that they form one tensor.
    """
    orders: dict[int, Rows] = {}
    for schedule in schedules:
        first = schedule.samplers[0]
        if first.split.seed not in orders:
            orders[first.split.seed] = epoch_order(first, epoch)
    plans = [schedule.plan_epoch(epoch, orders[schedule.samplers[0].split.seed]) for schedule in schedules]
    widths = np.max([p.window_end - p.window_start for p in plans], axis=0)
    for step, width in enumerate(widths.tolist()):
        windows = [plan.window_at(step, width) for plan in plans]
        mask = np.ascontiguousarray(np.stack([in_batch for _, in_batch in windows]), dtype=np.float32)
        yield BatchWindow(np.stack([rows for rows, _ in windows]), mask, mask.sum(2))
