"""Traces that were clipped: the recorder's range, or an amplifier's, was smaller than the signal.

A clipped trace stays at its largest or smallest value, and jumps to it: the top of a slow wave in coarse steps stays there too,
but comes there step by step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.signals.clean import find_runs

MIN_RUN = 4  # readings at the same extreme, one after the other; one that is held for several samples, as a heart rate, is one
MIN_SHARE, MAX_SHARE = 0.002, 0.5  # of all samples that such runs hold; a value of most samples is where a trace rests
MIN_STEPS = 1.5  # of the smallest difference of two samples, by which a clipped trace jumps to its extreme


def count_clipped_samples(samples: NDArray[np.floating[Any]]) -> int:
    """(n,) samples of a channel, NaN where missing → how many of them stay at its largest or smallest value; 0 of a flat one."""
    finite = samples[np.isfinite(samples)]
    changes = np.abs(np.diff(finite))
    if not changes.any():
        return 0
    step = float(changes[changes > 0].min())
    held = float(np.median(np.diff(np.flatnonzero(np.concatenate([[True], changes > 0, [True]])))))
    total = 0
    for extreme in (finite.min(), finite.max()):
        starts, stops = find_runs(samples == extreme)
        long = stops - starts >= MIN_RUN * held
        count = int((stops - starts)[long].sum())
        before = samples[starts[long & (starts > 0)] - 1]
        jumps = np.abs(before[np.isfinite(before)] - extreme)
        if MIN_SHARE <= count / len(finite) <= MAX_SHARE and len(jumps) and float(np.median(jumps)) > MIN_STEPS * step:
            total += count
    return total
