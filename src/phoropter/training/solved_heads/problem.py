"""What a solved head is fitted to: the training rows of one split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from phoropter.data.dataset import Dataset
from phoropter.data.splits.protocol import Split

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LogisticProblem:
    """What one run is fitted to: the training rows of a split. weights: (C,) of the classes, or (2, C), or None."""

    dataset: Dataset
    split: Split
    weights: Tensor | None = None
