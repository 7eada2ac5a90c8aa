"""Batches: every row once per epoch, an order that follows ids and not positions, classes in proportion, undersampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from phoropter.core.seeds import hash_ids, named_generator
from phoropter.data.splits.protocol import Split
from phoropter.training.batches.loading import BatchSampler, _interleave_classes, undersample_rows
from phoropter.training.candidates.recipe import ImbalanceSpec


class Rows:
    """The part of a Dataset that a BatchSampler reads."""

    def __init__(self, labels: Any) -> None:
        self.labels = np.asarray(labels, dtype=np.int64)
        self.ids = np.array([f"row {i}" for i in range(len(self.labels))])
        self.hashed_ids = hash_ids(self.ids)


def sampler(labels: Any, rows: Any = None, batch: int = 8, **imbalance: Any) -> BatchSampler:
    dataset = Rows(labels)
    rows = np.arange(len(dataset.labels)) if rows is None else np.asarray(rows)
    split = Split(0, 0, 0, 1, "fold 1", rows, rows[:0])
    return BatchSampler(dataset, split, batch, ImbalanceSpec(**imbalance))  # type: ignore[arg-type]


def test_every_row_comes_once_per_epoch_in_another_order_each_time() -> None:
    made = sampler(np.zeros(50), batch=8)
    first, second = np.concatenate(made.epoch_batches(0)), np.concatenate(made.epoch_batches(1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert (first != second).any()
    np.testing.assert_array_equal(first, np.concatenate(made.epoch_batches(0)))


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    assert [len(b) for b in sampler(np.zeros(17), batch=8).epoch_batches(0)] == [8, 9]
    assert [len(b) for b in sampler(np.zeros(18), batch=8).epoch_batches(0)] == [8, 8, 2]
    assert [len(b) for b in sampler(np.zeros(1), batch=8).epoch_batches(0)] == [1]


def test_the_order_of_the_given_rows_does_not_matter() -> None:
    some = np.array([3, 9, 1, 7, 20, 33])
    forward, backward = sampler(np.zeros(50), some), sampler(np.zeros(50), some[::-1])
    np.testing.assert_array_equal(np.concatenate(forward.epoch_batches(4)), np.concatenate(backward.epoch_batches(4)))


@pytest.mark.parametrize(("batch", "full", "last"), [(32, {4, 5}, 2), (16, {2, 3}, 2), (64, {9, 10}, 6)])
def test_stratified_batches_keep_the_proportion_of_classes(batch: int, full: set[int], last: int) -> None:
    """The vector of signals-and-protocols §7: 648 positives, 3,942 negatives."""
    labels = np.r_[np.ones(648), np.zeros(3942)]
    batches = sampler(labels, batch=batch, stratified_batches=True).epoch_batches(0)
    positives = [int(labels[b].sum()) for b in batches]
    assert len(batches) == -(-4590 // batch) and set(positives[:-1]) <= full and positives[-1] == last
    assert sorted(np.concatenate(batches)) == list(range(4590))


def test_interleaving_equals_a_literal_implementation() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    shuffled = np.array([6, 0, 5, 1, 4, 2, 3])
    keyed = []
    for kind in (0, 1, 2):
        members = [r for r in shuffled if labels[r] == kind]
        keyed += [((j + 0.5) / len(members), kind, r) for j, r in enumerate(members)]
    assert list(_interleave_classes(shuffled, labels)) == [r for _, _, r in sorted(keyed)]


@pytest.mark.parametrize(("ratio", "negatives"), [(3942 / 648, 3942), (6, 3888)])
def test_undersampling_keeps_every_row_of_the_rarest_class(ratio: float, negatives: int) -> None:
    labels = np.r_[np.ones(648), np.zeros(28968)].astype(np.int64)
    kept = undersample_rows(np.arange(len(labels)), labels, ratio, named_generator(0, "x"))
    assert labels[kept].sum() == 648 and (labels[kept] == 0).sum() == negatives and len(np.unique(kept)) == len(kept)


def test_undersampling_is_drawn_once_per_fold_unless_resampled() -> None:
    labels = np.r_[np.ones(10), np.zeros(200)]
    fixed, redrawn = sampler(labels, undersample=2), sampler(labels, undersample=2, resample_each_epoch=True)
    sets = [[frozenset(np.concatenate(o.epoch_batches(e))) for e in range(3)] for o in (fixed, redrawn)]
    assert len(set(sets[0])) == 1 and len(set(sets[1])) == 3
