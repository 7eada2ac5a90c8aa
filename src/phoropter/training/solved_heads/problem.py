"""What a solved head is fitted to: the training rows of one split, and the inner folds that choose its penalty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from phoropter.data.dataset import Dataset
from phoropter.data.splits.inner_splits import split_training_rows
from phoropter.data.splits.protocol import Split

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LogisticProblem:
    """What one run is fitted to: the training rows of a split. weights: (C,) of the classes, or (2, C), or None."""

    dataset: Dataset
    split: Split
    weights: Tensor | None = None


def split_inner_folds(problem: LogisticProblem, folds: int) -> Iterator[tuple[Rows, Rows]]:
    """(rows to fit, rows to validate) of a split's training rows, `folds` times, stratified; by group where the split is."""
    return split_training_rows(problem.dataset, problem.split, folds)
