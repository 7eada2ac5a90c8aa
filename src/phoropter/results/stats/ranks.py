"""Ranks with ties, as scipy.stats.rankdata gives them; importing scipy.stats takes a third of all the imports of a report."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def average_ranks(values: NDArray[np.floating], axis: int = -1) -> Floats:
    """Ranks along an axis, the smallest is 1; equal values share the mean of their ranks. Values are finite."""
    along = np.moveaxis(np.asarray(values), axis, -1)
    order = np.argsort(along, axis=-1, kind="stable")
    ordered = np.take_along_axis(along, order, -1)
    places = np.broadcast_to(np.arange(along.shape[-1]), along.shape)
    begins = np.ones(along.shape, dtype=bool)
    begins[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = np.maximum.accumulate(np.where(begins, places, 0), axis=-1)
    ends = np.ones(along.shape, dtype=bool)
    ends[..., :-1] = begins[..., 1:]
    after = np.where(ends, places, along.shape[-1])
    last = np.minimum.accumulate(after[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty(along.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, -1)
    return np.moveaxis(ranks, -1, axis)
