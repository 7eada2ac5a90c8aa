"""Overlap in time between windows of a recording: half-open intervals, compared in whole microseconds.

A microsecond is far shorter than a sample of any recording here, and far longer than the rounding error of k × step. So windows
that only touch do not overlap, however their ends were computed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
TICKS_PER_SECOND = 1e6


def overlap_mask(spans: NDArray[np.float64], recording: Rows, train: Rows, test: Rows) -> NDArray[np.bool_]:
    """(N, 2) seconds, (N,) recording numbers, rows trained on, rows tested → for each tested row, whether a trained one overlaps.

    Trained windows that overlap a tested window of the same recording are those that start before its end, minus those that end
    at or before its start. Both numbers are read from sorted columns, so the cost is N log N and not N².
    """
    ticks = np.rint((spans - spans.min(initial=0.0)) * TICKS_PER_SECOND).astype(np.int64)
    length = int(ticks.max(initial=0)) + 1
    filled = ticks[train, 1] > ticks[train, 0]  # an empty window has no samples to share
    base = np.unique(recording, return_inverse=True)[1].astype(np.int64) * length
    starts = np.sort((base[train] + ticks[train, 0])[filled])
    stops = np.sort((base[train] + ticks[train, 1])[filled])
    started = np.searchsorted(starts, base[test] + ticks[test, 1], side="left")
    ended = np.searchsorted(stops, base[test] + ticks[test, 0], side="right")
    return np.asarray((started > ended) & (ticks[test, 1] > ticks[test, 0]))


def largest_overlap(spans: NDArray[np.float64], recording: Rows, train: Rows, row: int) -> tuple[int, float]:
    """The trained row whose window overlaps a row's window most, and the overlap in seconds."""
    candidates = train[recording[train] == recording[row]]
    common = np.minimum(spans[candidates, 1], spans[row, 1]) - np.maximum(spans[candidates, 0], spans[row, 0])
    best = int(np.argmax(common))
    return int(candidates[best]), float(common[best])
