"""Block k-fold: the windows of each recording and class are cut into contiguous blocks of time, one for each fold.

Successive windows of a recording resemble each other even where they share no sample. So block folds are a harder test than
random folds, and an easier one than held-out people: every person is on both sides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phoropter.data.time_overlap import TICKS_PER_SECOND

Rows = NDArray[np.int64]
NO_FOLD = -1


def assign_block_folds(spans: NDArray[np.float64], stretch: Rows, folds: int) -> Rows:
    """(n, 2) seconds, (n,) the stretch of each window (a recording and class) → (n,) fold of each window, or NO_FOLD.

    Every stretch is cut, in order of time, into `folds` blocks of nearly equal numbers of windows. A border lies where the first
    window of the next block starts; a window that straddles a border shares samples with both sides and gets NO_FOLD.
    """
    ticks = np.rint(spans * TICKS_PER_SECOND).astype(np.int64)
    fold = np.full(len(spans), NO_FOLD, dtype=np.int64)
    for number in np.unique(stretch):
        rows = np.flatnonzero(stretch == number)
        rows = rows[np.lexsort((rows, ticks[rows, 0]))]
        first = np.arange(1, folds) * len(rows) // folds  # of the second part, the third, …
        borders = ticks[rows[first], 0]
        block = np.searchsorted(borders, ticks[rows, 0], side="right")
        until = np.append(borders, ticks[rows, 1].max() + 1)[block]
        fold[rows] = np.where(ticks[rows, 1] <= until, block, NO_FOLD)
    return fold
