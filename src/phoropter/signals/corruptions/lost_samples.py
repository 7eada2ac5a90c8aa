"""Stretches of a channel that were lost, and what an amplifier shows in their place. NumPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def choose_lost_samples(
    length: int, rate_hz: float, lost_s: float, every_s: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """(length,) whether a sample is lost: one stretch of `lost_s` seconds in each stretch of `every_s`, at a place that is drawn.

    The middle of a gap does not depend on `lost_s` where there is room around it, so that longer gaps hold the shorter ones.
    """
    block, gap = max(1, round(every_s * rate_hz)), round(lost_s * rate_hz)
    starts = np.arange(0, length, block)
    middles = starts + generator.uniform(0, 1, len(starts)) * block
    lost = np.zeros(length, bool)
    for start, middle in zip(starts.tolist(), middles.tolist(), strict=True):
        first = min(max(round(middle - gap / 2), start), max(start + block - gap, start))
        lost[first : first + gap] = True
    return lost


def hold_last_value(samples: Samples, lost: NDArray[np.bool_]) -> Samples:
    """(n,) samples, those that were lost replaced by the last one before them that was measured; at the start by the next one."""
    known = np.isfinite(samples) & ~lost
    if not known.any():
        return samples.copy()
    at = np.maximum.accumulate(np.where(known, np.arange(len(samples)), -1))
    at[at < 0] = int(np.argmax(known))
    return np.where(lost, samples[at], samples)
