"""Rows of a candidate joined over runs: in the order of their ids within a round, with their units, splits and rounds."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.errors import StoreError
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.store import Predictions


def some_predictions(rows: list[int], groups: list[str] | None, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    labels = np.array(rows) % 2
    logits = (random.normal(size=(len(rows), 2)) + 0.7 * np.eye(2)[labels]).astype(np.float32)
    return Predictions(np.array([f"r{i:02d}" for i in rows]), labels, logits, None if groups is None else np.array(groups))


def test_rows_are_joined_in_the_order_of_their_ids_and_runs_without_predictions_are_left_out() -> None:
    each = [some_predictions([5, 1, 3], None, 0), None, some_predictions([4, 0, 2], None, 1)]
    joined = HeldOutRows.from_predictions(each)
    assert joined.unit_names.tolist() == joined.units.tolist() == [f"r{i:02d}" for i in range(6)]
    assert joined.splits.tolist() == [1, 0, 1, 0, 1, 0] and joined.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert joined.probabilities[5] == pytest.approx(each[0].probabilities[0])


def test_rounds_follow_one_another() -> None:
    joined = HeldOutRows.from_predictions([some_predictions([1, 0], None), some_predictions([0, 1], None)], [(7, 0), (7, 1)])
    assert joined.repeats.tolist() == [0, 0, 1, 1] and joined.unit_names.tolist() == ["r00", "r01", "r00", "r01"]


def test_groups_are_the_units_where_rows_have_them() -> None:
    joined = HeldOutRows.from_predictions([some_predictions([0, 1, 2, 3], ["b", "a", "b", "a"])])
    assert joined.units.tolist() == ["a", "b"] and joined.unit_names.tolist() == ["b", "a", "b", "a"]


def test_the_classes_of_each_test_part_are_counted() -> None:
    joined = HeldOutRows.from_predictions([some_predictions([0, 1, 2], None), some_predictions([4, 6], None)])
    assert [support.tolist() for support in joined.split_supports] == [[2, 1], [2, 0]]


def test_runs_without_any_predictions_are_an_error() -> None:
    with pytest.raises(StoreError, match="no run of the candidate has predictions"):
        HeldOutRows.from_predictions([None])
