"""Iterative stratification against a plain transcription of the paper's algorithm, and what its folds are for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from made_label_sets import make_marks
from phoropter.core.errors import SplitError
from phoropter.data.splits.iterative_stratification import stratify_label_sets
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import BlockKFold, GroupKFold, HoldOut, KFold

# Rows of the example: sets of labels, so that every step but the ties is forced
EXAMPLE = np.array([[1, 0], [1, 0], [1, 1], [1, 1], [0, 1], [0, 1], [0, 0], [0, 0], [1, 0], [1, 0]])


def follow_paper(labels: NDArray[np.int64], folds: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Sechidis et al. 2011, algorithm 1, line by line for parts of equal size."""
    part = {}
    unassigned = set(range(len(labels)))
    wanted_rows = {j: len(labels) / folds for j in range(folds)}
    wanted = {(i, j): int(labels[:, i].sum()) / folds for i in range(labels.shape[1]) for j in range(folds)}
    while unassigned:
        left = {i: [x for x in unassigned if labels[x, i]] for i in range(labels.shape[1])}
        left = {i: rows for i, rows in left.items() if rows}
        label = min(left, key=lambda i: len(left[i])) if left else None
        for row in random.permutation(left[label] if label is not None else list(unassigned)).tolist():
            wish = {j: wanted[label, j] if label is not None else wanted_rows[j] for j in range(folds)}
            first = [j for j in wish if wish[j] == max(wish.values())]
            second = [j for j in first if wanted_rows[j] == max(wanted_rows[k] for k in first)]
            chosen = second[0] if len(second) == 1 else int(random.choice(second))
            part[row] = chosen
            unassigned.remove(row)
            wanted_rows[chosen] -= 1
            for i in np.flatnonzero(labels[row]).tolist():
                wanted[i, chosen] -= 1
    return np.array([part[row] for row in range(len(labels))])


def test_the_worked_example_has_the_folds_of_the_paper() -> None:
    """Label 2 (four rows) goes first, two to each fold; then label 1; then the rows without any."""
    part = stratify_label_sets(EXAMPLE, np.full(2, 0.5), np.random.default_rng(0))
    assert np.bincount(part).tolist() == [5, 5]
    assert [EXAMPLE[part == fold].sum(axis=0).tolist() for fold in range(2)] == [[3, 2], [3, 2]]
    assert sorted(part[6:8].tolist()) in ([0, 1], [0, 0], [1, 1])


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_label_counts_are_those_of_a_plain_transcription(seed: int, folds: int, n_labels: int) -> None:
    random = np.random.default_rng(seed)
    labels = (random.random((60, n_labels)) < random.uniform(0.1, 0.6, n_labels)).astype(np.int64)
    ours = stratify_label_sets(labels, np.full(folds, 1 / folds), np.random.default_rng(seed))
    plain = follow_paper(labels, folds, np.random.default_rng(seed))
    first = int(np.argmin(np.where(labels.sum(axis=0) > 0, labels.sum(axis=0), 99)))
    for part in (ours, plain):  # the rarest label is dealt evenly by both, and the others nearly so
        assert np.ptp(np.bincount(part, weights=labels[:, first], minlength=folds)) <= 1
    spread = [np.ptp(np.array([labels[p == f].sum(axis=0) for f in range(folds)]), axis=0).max() for p in (ours, plain)]
    assert spread[0] <= max(3, spread[1] + 2)


def test_folds_hold_each_label_in_proportion_where_random_ones_do_not() -> None:
    dataset = make_marks(300, shares=(0.4, 0.1, 0.03))
    worst = []
    for stratified in (True, False):
        splits = make_splits(dataset, KFold(folds=5, stratified=stratified))
        shares = np.array([dataset.labels[split.test].mean(axis=0) for split in splits])
        worst.append(float(np.abs(shares - dataset.labels.mean(axis=0)).max()))
    assert worst[0] < 0.02 < 0.03 < worst[1]


def test_groups_are_kept_together_and_their_labels_balanced() -> None:
    dataset = make_marks(400, groups=60, shares=(0.4, 0.15, 0.08))
    assert dataset.groups is not None
    worst = []
    for stratified in (True, False):
        off = []
        for split in make_splits(dataset, GroupKFold(folds=5, stratified=stratified)):
            assert not set(dataset.groups[split.train]) & set(dataset.groups[split.test])
            assert abs(len(split.test) - 80) <= 10
            off.append(np.abs(dataset.labels[split.test].mean(axis=0) / dataset.labels.mean(axis=0) - 1).max())
        worst.append(max(off))
    assert worst[0] < 0.2 < 0.3 < worst[1]


def test_hold_out_and_validation_parts_hold_every_label() -> None:
    for dataset in (make_marks(120, shares=(0.4, 0.1, 0.05)), make_marks(240, groups=60, shares=(0.4, 0.1, 0.05))):
        (split,) = make_splits(dataset, HoldOut(test_size=0.25, val_size=0.2))
        assert split.val is not None and not np.intersect1d(split.val, split.train).size
        for rows in (split.train, split.val, split.test):
            assert dataset.labels[rows].any(axis=0).all()
        assert len(split.test) == pytest.approx(0.25 * len(dataset), abs=6)


def test_folds_are_drawn_anew_by_seed_and_not_by_the_order_of_rows() -> None:
    dataset = make_marks(90)
    turned = dataset.select_rows(np.arange(90)[::-1])
    first, second = (make_splits(dataset, KFold(folds=3, seeds=[s])) for s in (0, 1))
    assert first[0].content_key(dataset) == make_splits(turned, KFold(folds=3))[0].content_key(turned)
    assert first[0].content_key(dataset) != second[0].content_key(dataset)


def test_what_needs_one_class_a_row_is_refused() -> None:
    with pytest.raises(SplitError, match="train_per_class takes rows of one class each"):
        make_splits(make_marks(60), HoldOut(train_per_class=5))
    with pytest.raises(SplitError, match="the class 'stripe' has 2 labelled pictures for 5 parts"):
        rare = make_marks(60)
        rare.labels[:, 2] = 0
        rare.labels[:2, 2] = 1
        make_splits(rare, KFold(folds=5))
    with pytest.raises(SplitError, match="needs windows of recordings"):
        make_splits(make_marks(60), BlockKFold(folds=2))
