"""Cache for columns of names (ids, groups, sites): runs of all candidates repeat the same columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import digest_array
from phoropter.results.metrics.sufficient_sums import Ints

NameColumn = NDArray[np.str_]
ResultT = TypeVar("ResultT")


class ColumnCache:
    """Results derived from each column (n,), keyed by a digest of its bytes; the columns themselves are not kept.

    seen: name → number of the independent unit, in order of first appearance
    """

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self._digests: dict[bytes, str] = {}
        self._units: dict[bytes, Ints] = {}
        self._parts: dict[bytes, tuple[list[str], Ints]] = {}
        self._last: tuple[NameColumn | None, bytes] = (None, b"")

    def digest(self, column: NameColumn) -> str:
        """As core/files.digest_array."""
        return self._compute_once(self._digests, column, digest_array)

    def number_units(self, column: NameColumn) -> Ints:
        """(n,) the unit number of each name."""
        return self._compute_once(self._units, column, self._assign_numbers)

    def find_unique(self, column: NameColumn) -> tuple[list[str], Ints]:
        """Unique names, sorted, and (n,) the index of each row's name."""
        return self._compute_once(self._parts, column, _unique_with_inverse)

    def _assign_numbers(self, column: NameColumn) -> Ints:
        return np.array([self.seen.setdefault(name, len(self.seen)) for name in column.tolist()], dtype=np.int64)

    def _compute_once(self, known: dict[bytes, ResultT], column: NameColumn, work: Callable[[NameColumn], ResultT]) -> ResultT:
        if self._last[0] is not column:
            self._last = (column, hashlib.sha256(column.dtype.str.encode() + np.ascontiguousarray(column).tobytes()).digest())
        key = self._last[1]
        if key not in known:
            known[key] = work(column)
        return known[key]


def _unique_with_inverse(column: NameColumn) -> tuple[list[str], Ints]:
    unique, member = np.unique(column, return_inverse=True)
    return [str(name) for name in unique], member.astype(np.int64)
