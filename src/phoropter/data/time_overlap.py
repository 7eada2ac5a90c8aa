"""Which windows of a recording share samples: intervals of time, half-open, compared as whole microseconds.

A microsecond is far less than a sample of any recording here and far more than what rounding does to k × step: windows that only
touch have nothing in common, however their ends were computed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
TICKS_PER_SECOND = 1e6  # to the second


def overlap_mask(spans: NDArray[np.float64], recording: Rows, learned: Rows, tested: Rows) -> NDArray[np.bool_]:
    """(N, 2) seconds, (N,) recording numbers, and the rows of two sides → (tested,) whether a row of the other side overlaps.

    A learned window misses a tested one of its recording if it ends before the other starts or starts after it ends; so those
    that overlap are the ones that start before its end, less the ones that end before its start. Two sorted columns count both.
    """
    ticks = np.rint((spans - spans.min(initial=0.0)) * TICKS_PER_SECOND).astype(np.int64)
    length = int(ticks.max(initial=0)) + 1
    long = ticks[learned, 1] > ticks[learned, 0]  # an empty window has no samples to share
    base = np.unique(recording, return_inverse=True)[1].astype(np.int64) * length
    starts = np.sort((base[learned] + ticks[learned, 0])[long])
    stops = np.sort((base[learned] + ticks[learned, 1])[long])
    begun = np.searchsorted(starts, base[tested] + ticks[tested, 1], side="left")
    ended = np.searchsorted(stops, base[tested] + ticks[tested, 0], side="right")
    return np.asarray((begun > ended) & (ticks[tested, 1] > ticks[tested, 0]))


def largest_overlap(spans: NDArray[np.float64], recording: Rows, learned: Rows, row: int) -> tuple[int, float]:
    """The learned row that shares most with a row, and how many seconds."""
    there = learned[recording[learned] == recording[row]]
    common = np.minimum(spans[there, 1], spans[row, 1]) - np.maximum(spans[there, 0], spans[row, 0])
    best = int(np.argmax(common))
    return int(there[best]), float(common[best])
