"""Values that stand for a missing sample: -9999, 32767, a recorder's limit.

They are no samples, and a file does not say so: they are found because one number, again and again, lies farther from all others
than these lie from each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.signals.clean import find_runs

# What programs write for a missing sample: one of these is enough, any other number must repeat.
USUAL_VALUES = frozenset(
    float(sign * value)
    for sign in (1, -1)
    for value in (99, 999, 9999, 99999, 999999, 32767, 32768, 65535, 8388607, 8388608, 2147483647, 2147483648)
)
MIN_REPEATS = 10
FAR_SPANS = 10  # spans of the others beyond which a value need not stand in one run
_MAX_FOUND = 4


def find_sentinel_values(samples: NDArray[np.floating[Any]]) -> dict[float, int]:
    """(n,) samples of a channel → value → how many samples have it, for values that may stand for a missing one.

    A value is the smallest or the largest of all and farther from the next than the others span. It is one of USUAL_VALUES; or it
    stands MIN_REPEATS times, in one run, because spikes of a pacemaker are as high and as equal, or FAR_SPANS spans away.
    """
    left = samples[np.isfinite(samples)]
    found: dict[float, int] = {}
    while len(left) and len(found) < _MAX_FOUND:
        low, high = float(left.min()), float(left.max())
        inside = left[(left > low) & (left < high)]
        if not len(inside):
            break
        first, last = float(inside.min()), float(inside.max())
        span = last - first
        far = [(value, gap) for value, gap in ((low, first - low), (high, high - last)) if gap > span > 0]
        new = {value: int((left == value).sum()) for value, gap in far if _means_missing(samples, value, gap > FAR_SPANS * span)}
        if not new:
            break
        found |= new
        left = left[~np.isin(left, list(new))]
    return found


def _means_missing(samples: NDArray[np.floating[Any]], value: float, very_far: bool) -> bool:
    """Whether a value that is far from all others is a usual one, or stands often enough, in one run unless it is very far."""
    if value in USUAL_VALUES:
        return True
    there = samples == value
    if very_far:
        return int(there.sum()) >= MIN_REPEATS
    starts, stops = find_runs(there)
    return int((stops - starts).max()) >= MIN_REPEATS


def format_sample(value: float) -> str:
    """A sample as a person writes it, in single precision: -9999, -3276.8.

    >>> format_sample(-9999.0)
    '-9999'
    """
    return str(np.float32(value)).removesuffix(".0")
