"""What a solved head is fitted to: the training rows of one split, and the inner folds that choose its penalty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from phoropter.core.seeds import named_generator, random_permutation
from phoropter.data.dataset import Dataset
from phoropter.data.splits.group_kfold import balanced_group_partition
from phoropter.data.splits.protocol import Split

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LogisticProblem:
    """What one run is fitted to: the training rows of a split. weights: (C,) of the classes, or None."""

    dataset: Dataset
    split: Split
    weights: Tensor | None = None


def split_inner_folds(problem: LogisticProblem, folds: int) -> Iterator[tuple[Rows, Rows]]:
    """(rows to fit, rows to validate) of a split's training rows, `folds` times, stratified; by group where the split is."""
    dataset, split = problem.dataset, problem.split
    rows, groups = split.train, dataset.groups
    if groups is not None and not len(np.intersect1d(groups[split.train], groups[split.test])):
        _, index = np.unique(groups[rows], return_inverse=True)
        counts = np.zeros((index.max() + 1, len(dataset.classes)), dtype=np.int64)
        np.add.at(counts, (index, dataset.labels[rows]), 1)
        folds = min(folds, len(counts))
        generator = named_generator(split.seed, "inner folds", split.name)
        part = balanced_group_partition(counts, np.full(folds, 1 / folds), generator)[index]
    else:
        shuffled = rows[random_permutation(dataset.hashed_ids[rows], split.seed, "inner folds")]
        shuffled = shuffled[np.argsort(dataset.labels[shuffled], kind="stable")]
        rows, part = shuffled, np.arange(len(shuffled)) % folds
    for fold in range(folds):
        if (part == fold).any() and (part != fold).any():
            yield np.sort(rows[part != fold]), np.sort(rows[part == fold])
