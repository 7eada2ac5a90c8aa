"""Folds of rows are those of scikit-learn, row for row."""

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedKFold

from phoropter.data.splits.row_folds import assign_random_folds, assign_stratified_folds


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32 - 1])
@pytest.mark.parametrize(("n_rows", "folds"), [(10, 2), (11, 3), (53, 5), (360, 10), (5, 5)])
def test_random_folds_are_those_of_scikit_learn(n_rows: int, folds: int, seed: int) -> None:
    expected = np.empty(n_rows, dtype=np.int64)
    for fold, (_, test) in enumerate(KFold(folds, shuffle=True, random_state=seed).split(np.zeros(n_rows))):
        expected[test] = fold
    np.testing.assert_array_equal(assign_random_folds(n_rows, folds, seed), expected)


@pytest.mark.parametrize("seed", [0, 3, 2**32 - 1])
@pytest.mark.parametrize(("sizes", "folds"), [((5, 5), 5), ((40, 7, 13), 3), ((101, 2, 33, 60), 2), ((10,) * 12, 10)])
def test_stratified_folds_are_those_of_scikit_learn(sizes: tuple[int, ...], folds: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) * 2, sizes))
    expected = np.empty(len(labels), dtype=np.int64)
    for fold, (_, test) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)):
        expected[test] = fold
    np.testing.assert_array_equal(assign_stratified_folds(labels, folds, seed), expected)
