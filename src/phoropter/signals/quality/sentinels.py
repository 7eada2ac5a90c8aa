"""Values that stand for a missing sample: -9999, 32767, a recorder's limit.

They are no samples, and a file does not say so: they are found because one number, again and again, lies farther from all others
than these lie from each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# What programs write for a missing sample: one of these is enough, any other number must repeat.
USUAL_VALUES = frozenset(
    float(sign * value)
    for sign in (1, -1)
    for value in (99, 999, 9999, 99999, 999999, 32767, 32768, 65535, 8388607, 8388608, 2147483647, 2147483648)
)
MIN_REPEATS = 10
_MAX_FOUND = 4


def find_sentinel_values(samples: NDArray[np.floating[Any]]) -> dict[float, int]:
    """(n,) samples of a channel → value → how many samples have it, for values that may stand for a missing one.

    A value is the smallest or the largest of all, farther from the next than the others span, and repeats MIN_REPEATS times or
    is one of USUAL_VALUES.
    """
    left = samples[np.isfinite(samples)]
    found: dict[float, int] = {}
    while len(left) and len(found) < _MAX_FOUND:
        low, high = float(left.min()), float(left.max())
        inside = left[(left > low) & (left < high)]
        if not len(inside):
            break
        first, last = float(inside.min()), float(inside.max())
        far = [value for value, gap in ((low, first - low), (high, high - last)) if gap > last - first > 0]
        counts = {value: int((left == value).sum()) for value in far}
        new = {value: count for value, count in counts.items() if count >= MIN_REPEATS or value in USUAL_VALUES}
        if not new:
            break
        found |= new
        left = left[~np.isin(left, list(new))]
    return found


def format_sample(value: float) -> str:
    """A sample as a person writes it, in single precision: -9999, -3276.8.

    >>> format_sample(-9999.0)
    '-9999'
    """
    return str(np.float32(value)).removesuffix(".0")
