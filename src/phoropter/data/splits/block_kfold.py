"""Blocks of time: the windows of each recording and class in as many contiguous stretches as there are folds.

Windows of one recording that follow one another resemble each other even where they share no sample, so blocks are stricter than
windows dealt at random and laxer than people held out: every person is on both sides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phoropter.data.time_overlap import TICKS_PER_SECOND

Rows = NDArray[np.int64]
NO_FOLD = -1


def assign_block_folds(spans: NDArray[np.float64], stretch: Rows, folds: int) -> Rows:
    """(n, 2) seconds and (n,) numbers of what is cut into blocks (a recording's windows of one class) → (n,) a fold each.

    Every stretch is cut into `folds` parts of as equal numbers as can be, in the order of time. A border is where the first
    window of the next part starts; a window that straddles one shares samples with both sides and is STRADDLES: in no fold.
    """
    ticks = np.rint(spans * TICKS_PER_SECOND).astype(np.int64)
    fold = np.full(len(spans), NO_FOLD, dtype=np.int64)
    for number in np.unique(stretch):
        rows = np.flatnonzero(stretch == number)
        rows = rows[np.lexsort((rows, ticks[rows, 0]))]
        first = np.arange(1, folds) * len(rows) // folds  # of the second part, the third, …
        borders = ticks[rows[first], 0]
        of = np.searchsorted(borders, ticks[rows, 0], side="right")
        until = np.append(borders, ticks[rows, 1].max() + 1)[of]
        fold[rows] = np.where(ticks[rows, 1] <= until, of, NO_FOLD)
    return fold
