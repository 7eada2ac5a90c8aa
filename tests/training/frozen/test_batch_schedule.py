"""The windows of a shared schedule hold exactly the batches of each run."""

from __future__ import annotations

from typing import Any

import numpy as np

from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.training.batches.loading import BatchSampler
from phoropter.training.candidates.recipe import ImbalanceSpec
from phoropter.training.frozen.batch_schedule import SharedSchedule, epoch_order, iterate_batch_windows


def samplers(few_digits: Any, batch_size: int = 16) -> list[BatchSampler]:
    """Those of four folds of one seed."""
    dataset, _ = few_digits
    splits = make_splits(dataset, KFold(4))
    return [BatchSampler(dataset, split, batch_size, ImbalanceSpec()) for split in splits]


def test_folds_of_a_seed_share_windows(few_digits: Any) -> None:
    orders = samplers(few_digits)
    seen: list[list[np.ndarray[Any, Any]]] = [[] for _ in orders]
    widths = []
    for window in iterate_batch_windows([SharedSchedule(orders, shared=True)], epoch=3):
        widths.append(window.rows.shape[1])
        for batches, member in zip(seen, window.mask[0], strict=True):
            batches.append(window.rows[0][member == 1])
    for batches, order in zip(seen, orders, strict=True):
        for found, expected in zip(batches, order.epoch_batches(3), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert max(widths) < 3 * 16  # four batches of sixteen, mostly the same rows


def test_windows_at_the_end_of_an_epoch_are_padded_with_rows_of_no_batch(few_digits: Any) -> None:
    order = samplers(few_digits)[0]
    plan = SharedSchedule([order], shared=True).plan_epoch(0, epoch_order(order, 0))
    rows, in_batch = plan.window_at(len(plan.window_start) - 1, 40)
    last = order.epoch_batches(0)[-1]
    assert rows.shape == (40,) and in_batch.shape == (1, 40)
    np.testing.assert_array_equal(rows[in_batch[0]], last)
    assert set(rows[~in_batch[0]]) == {last[-1]}


def test_runs_with_equal_batches_have_one_plan(few_digits: Any) -> None:
    order = samplers(few_digits)[0]
    schedule = SharedSchedule([order, order, order], shared=False)
    for window, batch in zip(iterate_batch_windows([schedule], 1), order.epoch_batches(1), strict=True):
        np.testing.assert_array_equal(window.rows[0], batch)
        assert window.mask.shape == (1, 3, len(batch)) and window.mask.all() and (window.batch_sizes == len(batch)).all()


def test_a_schedule_of_folds_that_drift_apart_is_wasteful(few_digits: Any) -> None:
    """With batches of two rows, folds of an epoch soon stand far from each other; with batches of sixteen they do not."""
    assert SharedSchedule(samplers(few_digits, 2), shared=True).is_wasteful
    assert not SharedSchedule(samplers(few_digits), shared=True).is_wasteful
