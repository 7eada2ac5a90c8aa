from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phoropter.data.splits.group_kfold import balanced_group_partition


def loads(counts: np.ndarray, part: np.ndarray, parts: int) -> np.ndarray:
    return np.array(
        [[sum(counts[g, c] for g in range(len(counts)) if part[g] == p) for c in range(counts.shape[1])] for p in range(parts)]
    )


def people(sizes: list[int]) -> np.ndarray:
    """Fifteen people recorded for slightly different times in three conditions, half of it in the first."""
    return np.array([[2 * n, n, n // 2] for n in sizes])


SIZES = [300, 297, 311, 305, 290, 301, 299, 308, 296, 303, 307, 295, 302, 298, 304]


def test_people_of_nearly_equal_length_are_dealt_evenly_and_anew_for_every_draw() -> None:
    counts = people(SIZES)
    deals = [balanced_group_partition(counts, np.full(5, 0.2), np.random.default_rng(seed)) for seed in range(8)]
    for part in deals:
        assert np.bincount(part).tolist() == [3] * 5
    assert len({tuple(sorted(tuple(np.flatnonzero(part == p)) for p in range(5))) for part in deals}) == 8


def test_scikit_learn_would_deal_the_same_every_time() -> None:
    """The reason deal.py gives for being there."""
    from sklearn.model_selection import StratifiedGroupKFold

    counts = people(SIZES)
    labels = np.concatenate([np.repeat([0, 1, 2], row) for row in counts])
    groups = np.repeat(np.arange(15), counts.sum(axis=1))
    partitions = set()
    for seed in range(8):
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
        partitions.add(tuple(sorted(tuple(np.unique(groups[test])) for _, test in folds)))
    assert len(partitions) == 1


def test_balance_is_no_worse_than_scikit_learn_s() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    random = np.random.default_rng(4)
    ours, theirs = [], []
    for trial in range(6):
        counts = random.poisson(random.gamma(0.7, 20, (40, 1)) * random.dirichlet([1, 0.6, 0.3], 40)) + (
            random.random((40, 3)) < 0.2
        )
        labels = np.concatenate([np.repeat([0, 1, 2], row) for row in counts])
        groups = np.repeat(np.arange(40), counts.sum(axis=1))
        wanted = np.bincount(labels, minlength=3) / 5
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=trial).split(labels, labels, groups)
        theirs.append(max(np.abs(np.bincount(labels[test], minlength=3) / wanted - 1).max() for _, test in folds))
        ours.append(
            np.abs(
                loads(counts, balanced_group_partition(counts, np.full(5, 0.2), np.random.default_rng(trial)), 5) / wanted - 1
            ).max()
        )
    assert np.mean(ours) <= 1.5 * np.mean(theirs)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_shares_need_not_be_equal(share: float) -> None:
    counts = np.random.default_rng(1).integers(1, 10, (60, 2))
    part = balanced_group_partition(counts, np.array([share, 1 - share]), np.random.default_rng(0))
    assert loads(counts, part, 2)[0] / counts.sum(axis=0) == pytest.approx([share, share], abs=0.05)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=25), st.integers(2, 3), st.integers(0, 9))
def test_every_group_goes_somewhere_and_no_part_is_empty(groups: list[tuple[int, int]], parts: int, seed: int) -> None:
    counts = np.array(groups) + np.array([[1, 0]])
    part = balanced_group_partition(counts, np.full(parts, 1 / parts), np.random.default_rng(seed))
    assert set(part) == set(range(parts)) and len(part) == len(counts)


def test_a_rare_class_is_spread_before_sizes_are_evened() -> None:
    counts = np.column_stack([np.full(20, 50), np.zeros(20, dtype=int)])
    counts[[2, 7, 11, 13, 18], 1] = 3
    for seed in range(10):
        part = balanced_group_partition(counts, np.full(5, 0.2), np.random.default_rng(seed))
        assert loads(counts, part, 5)[:, 1].tolist() == [3] * 5 and np.bincount(part).tolist() == [4] * 5
