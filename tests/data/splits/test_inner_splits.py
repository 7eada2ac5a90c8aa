"""Inner folds and shares of a training part: test rows are in none, groups stay together, smaller shares lie in larger ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from phoropter.core.errors import SplitError
from phoropter.data.dataset import Dataset
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.splits.inner_splits import make_inner_splits, shrink_training_part, split_training_rows
from phoropter.data.splits.protocol import Split, make_splits
from phoropter.data.splits.spec import ProtocolSpec


def make_people(count: int = 24, rows: int = 5, *, of_one_class: bool = True) -> Dataset:
    """A third of the people are ill; where people have rows of both classes, one row of each is."""
    labels = [("ill" if (p % 3 == 0 if of_one_class else r == 0) else "well") for p in range(count) for r in range(rows)]
    groups = [f"p{p:02d}" for p in range(count) for _ in range(rows)]
    return from_arrays(np.zeros((len(labels), 2, 2, 3), dtype=np.uint8), labels, groups=groups, name="people")


def split_people(dataset: Dataset, **fields: object) -> list[Split]:
    return make_splits(dataset, ProtocolSpec.model_validate({"split": "stratified-group-k-fold", "folds": 3, **fields}))


def test_inner_folds_cover_the_training_part_and_hold_groups_together() -> None:
    dataset = make_people()
    assert dataset.groups is not None
    for split in split_people(dataset, val_size=0.25):
        inner = make_inner_splits(dataset, split, 3)
        assert sorted(np.concatenate([each.test for each in inner])) == split.train.tolist()
        for each in inner:
            assert not set(each.train) & set(split.test) and not set(each.test) & set(split.test)
            assert each.val is split.val and each.external is None
            assert not set(dataset.groups[each.train]) & set(dataset.groups[each.test])
        assert [each.name for each in inner] == [f"inner fold {i} of 3 of {split.name}" for i in (1, 2, 3)]
        assert [(fit.tolist(), tested.tolist()) for fit, tested in split_training_rows(dataset, split, 3)] == [
            (each.train.tolist(), each.test.tolist()) for each in inner
        ]


def test_groups_on_both_sides_are_on_both_sides_of_inner_folds_too() -> None:
    dataset = make_people(6, 12, of_one_class=False)
    assert dataset.groups is not None
    split = split_people(dataset, split="stratified-k-fold", allow_group_overlap=True)[0]
    inner = make_inner_splits(dataset, split, 2)
    assert set(dataset.groups[inner[0].train]) & set(dataset.groups[inner[0].test])


def test_a_class_that_one_inner_fold_cannot_train_on_is_refused() -> None:
    dataset = make_people(9, 4)
    split = split_people(dataset)[0]  # two ill people are left to train on, one of whom may be tested
    lone = Split(0, 0, 0, 1, "one ill person", split.train[(dataset.labels[split.train] == 1) | (split.train < 4)], split.test)
    with pytest.raises(SplitError, match=r"^tune: inner fold . of 2 of one ill person has no row of 'ill' to train on: use more"):
        make_inner_splits(dataset, lone, 2)
    single = Split(0, 0, 0, 1, "one person", np.arange(4), split.test[split.test > 3])
    with pytest.raises(SplitError, match="cannot be divided into two inner folds"):
        make_inner_splits(dataset, single, 2)


@pytest.mark.parametrize("of", ["rows", "groups"])
def test_shares_are_nested_stratified_and_leave_the_test_part_alone(of: str) -> None:
    dataset = make_people(30, 4)
    assert dataset.groups is not None
    for split in split_people(dataset, val_size=0.3):
        assert split.val is not None
        smaller: set[int] = set()
        for share in (0.25, 0.5, 0.75):
            shrunk = shrink_training_part(dataset, split, share, of)  # type: ignore[arg-type]
            assert shrunk.test is split.test and shrunk.name == f"{share * 100:g} % of the training {of} of {split.name}"
            assert smaller < set(shrunk.train) < set(split.train)
            smaller = set(shrunk.train)
            kept = len(np.unique(dataset.groups[shrunk.train])) if of == "groups" else len(shrunk.train)
            whole = len(np.unique(dataset.groups[split.train])) if of == "groups" else len(split.train)
            assert abs(kept - share * whole) <= 1
            ill = (dataset.labels[shrunk.train] == 0).mean() - (dataset.labels[split.train] == 0).mean()
            assert abs(ill) < 0.1
            assert shrunk.val is not None and 0 < len(shrunk.val) < len(split.val)
            if of == "groups":  # whole people
                inside = np.isin(dataset.groups[split.train], dataset.groups[shrunk.train])
                assert shrunk.train.tolist() == split.train[inside].tolist()


def test_the_order_depends_on_names_alone() -> None:
    """A study of fewer people keeps the order of those it has, and another fold or seed has an order of its own."""
    dataset = make_people(30, 2)
    everyone = np.arange(len(dataset), dtype=np.int64)
    split = Split(0, 0, 0, 1, "s", everyone[:40], everyone[40:])
    one = shrink_training_part(dataset, split, 0.5, "groups").train
    fewer = Split(0, 0, 0, 1, "s", np.setdiff1d(split.train, one[:2]), split.test)
    # without one of those drawn, the others are drawn still
    assert set(one[2:]) <= set(shrink_training_part(dataset, fewer, 0.5, "groups").train) | set(one[:2])
    other = Split(1, 0, 0, 1, "s", split.train, split.test)
    assert set(shrink_training_part(dataset, other, 0.5, "groups").train) != set(one)


def test_shares_that_change_nothing_or_lose_a_class_are_refused() -> None:
    dataset = make_people(12, 2)
    split = split_people(dataset)[0]
    with pytest.raises(SplitError, match=r"^learning_curve: a share of 0\.99 leaves no group out"):
        shrink_training_part(dataset, split, 0.99, "groups")
    mixed = make_people(12, 4, of_one_class=False)
    rare = Split(0, 0, 0, 1, "rare", np.flatnonzero((mixed.labels == 1) | (np.arange(48) < 1)), np.array([44]))
    assert len(shrink_training_part(mixed, rare, 0.2, "groups").train)  # the one ill row's person is a stratum of its own


def test_inner_folds_go_by_the_ids_in_the_split_and_not_by_its_name_or_the_order_of_its_rows() -> None:
    dataset = make_people()
    split = split_people(dataset)[0]
    other = replace(split, name="as another file calls it", train=split.train[::-1])
    expected, found = ([(a.tolist(), b.tolist()) for a, b in split_training_rows(dataset, s, 3)] for s in (split, other))
    assert found == expected
    moved = replace(split, test=split.test[1:])  # another split, and so another draw
    assert [(a.tolist(), b.tolist()) for a, b in split_training_rows(dataset, moved, 3)] != expected
