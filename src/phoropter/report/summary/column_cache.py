"""Columns of names (ids, groups, sites) that the runs of all candidates bring again; what follows of each is found once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import digest_array
from phoropter.results.metrics.sufficient_sums import Ints

NameColumn = NDArray[np.str_]
Found = TypeVar("Found")


class ColumnCache:
    """What is known of each column (n,), by its bytes; the columns themselves are not kept.

    seen: name → number of the independent unit, in the order in which `units` met them
    """

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self._digests: dict[bytes, str] = {}
        self._units: dict[bytes, Ints] = {}
        self._parts: dict[bytes, tuple[list[str], Ints]] = {}
        self._last: tuple[NameColumn | None, bytes] = (None, b"")

    def digest(self, column: NameColumn) -> str:
        """As core/files.digest_array: equal columns were tested on equal rows."""
        return self._compute_once(self._digests, column, digest_array)

    def number_units(self, column: NameColumn) -> Ints:
        """(n,) the number of each name among all that were seen."""
        return self._compute_once(self._units, column, self._assign_numbers)

    def find_unique(self, column: NameColumn) -> tuple[list[str], Ints]:
        """Each name once, sorted, and (n,) which of them each row has."""
        return self._compute_once(self._parts, column, _unique_with_inverse)

    def _assign_numbers(self, column: NameColumn) -> Ints:
        return np.array([self.seen.setdefault(name, len(self.seen)) for name in column.tolist()], dtype=np.int64)

    def _compute_once(self, known: dict[bytes, Found], column: NameColumn, work: Callable[[NameColumn], Found]) -> Found:
        if self._last[0] is not column:
            self._last = (column, hashlib.sha256(column.dtype.str.encode() + np.ascontiguousarray(column).tobytes()).digest())
        key = self._last[1]
        if key not in known:
            known[key] = work(column)
        return known[key]


def _unique_with_inverse(column: NameColumn) -> tuple[list[str], Ints]:
    unique, member = np.unique(column, return_inverse=True)
    return [str(name) for name in unique], member.astype(np.int64)
