"""Labelled rows of a dataset: sorted by id, without unlabelled ones, with groups counted by class."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.errors import SplitError
from phoropter.data.dataset import Dataset
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.splits.labelled_rows import LabelledRows
from phoropter.data.splits.spec import KFold


def five_rows(labels: list[str | None], groups: list[str] | None = None) -> Dataset:
    images = np.zeros((5, 4, 4, 3), dtype=np.uint8)
    return from_arrays(images, labels, ids=["e", "d", "c", "b", "a"], groups=groups, name="five")


def test_rows_are_sorted_by_id_and_unlabelled_ones_are_counted() -> None:
    rows = LabelledRows.from_dataset(five_rows(["x", None, "y", "x", "y"]))
    assert rows.rows.tolist() == [4, 3, 2, 0] and rows.notes == ("1 unlabelled rows left out",)
    assert rows.class_counts().tolist() == [2, 2]
    assert rows.to_dataset_rows(np.array([0, 3])).tolist() == [0, 4]


def test_without_any_label_there_is_nothing_to_split() -> None:
    with pytest.raises(SplitError, match="five has no labelled rows to split"):
        LabelledRows.from_dataset(five_rows([None] * 5))


def test_rows_of_each_class_are_counted_by_group() -> None:
    rows = LabelledRows.from_dataset(five_rows(["x", "x", "y", "x", "y"], ["p", "p", "p", "q", "q"]))
    counts, group = rows.count_by_group(stratified=True)
    assert counts.tolist() == [[2, 1], [1, 1]] and group.tolist() == [1, 1, 0, 0, 0]
    assert rows.count_by_group(stratified=False)[0].tolist() == [[3], [2]]
    assert rows.group_names(np.array([1])) == ["q"]


def test_groups_stay_together_unless_the_protocol_allows_an_overlap() -> None:
    rows = LabelledRows.from_dataset(five_rows(["x", "x", "y", "x", "y"], ["p", "p", "p", "q", "q"]))
    assert rows.keeps_groups(KFold(2)) and not rows.keeps_groups(KFold(2, allow_group_overlap=True))
    assert rows.describe_groups(KFold(2)) == " with groups kept together"
    assert rows.select_rows(np.array([0, 1])).labels.tolist() == [1, 0]
