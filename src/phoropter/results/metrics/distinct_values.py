"""The distinct values of a column and the number of each row's, without sorting where they can be counted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_RANGE = 20  # times the rows: above, a table of the range costs more than a sort


def number_values(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """(N,) names or numbers → the distinct ones, sorted, and (N,) the number of each row's. As `np.unique` with the inverse."""
    if len(values) and np.can_cast(values.dtype, np.int64) and values.dtype.kind != "b":
        low, high = int(values.min()), int(values.max())
        if high - low < MAX_RANGE * len(values):
            seen = np.zeros(high - low + 1, dtype=bool)
            places = values.astype(np.int64) - low  # of a narrow type, the difference may not fit it
            seen[places] = True
            return (np.flatnonzero(seen) + low).astype(values.dtype), (np.cumsum(seen) - 1)[places]
    distinct, member = np.unique(values, return_inverse=True)
    return distinct, member.astype(np.int64)
