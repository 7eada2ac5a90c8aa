"""Folds of single rows, at random or with every class in proportion: those of scikit-learn's shuffled KFold and StratifiedKFold.

Folds are the same rows as theirs for the same seed, which the tests check. They are made here because a study is planned, and a
finished one is asked again, without anything else of scikit-learn, whose import takes longer than all the rest of a plan.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Folds = NDArray[np.int64]


def assign_random_folds(n_rows: int, folds: int, seed: int) -> Folds:
    """(n_rows,) the fold of each row, 0 … folds − 1; sizes differ by one at most. seed: 0 … 2³² − 1"""
    order = np.random.RandomState(seed).permutation(n_rows)
    fold_of = np.empty(n_rows, dtype=np.int64)
    for fold, rows in enumerate(np.array_split(order, folds)):
        fold_of[rows] = fold
    return fold_of


def assign_stratified_folds(labels: NDArray[np.int64], folds: int, seed: int) -> Folds:
    """(n,) the fold of each row, 0 … folds − 1; in each, every class is in proportion. seed: 0 … 2³² − 1

    Rows sorted by class are dealt out one fold after another, which says how many rows of a class a fold gets; which ones is
    drawn for each class.
    """
    classes, first = np.unique(labels, return_index=True)
    in_order = classes[np.argsort(first)]  # in the order in which classes appear, as theirs are numbered
    counts = [int(np.sum(labels == name)) for name in in_order]
    dealt = np.repeat(np.arange(len(counts)), counts)
    random = np.random.RandomState(seed)
    fold_of = np.empty(len(labels), dtype=np.int64)
    for place, name in enumerate(in_order):
        own = np.sort(np.flatnonzero(dealt == place) % folds)
        random.shuffle(own)
        fold_of[labels == name] = own
    return fold_of
