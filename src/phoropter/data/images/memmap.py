"""An array of pictures mapped from a file, of which only what is being read stays in this process's memory."""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RESIDENT_BYTES = 512 * 1024**2
ADVISE_ABOVE_BYTES = 64 * 1024**2  # a file up to this size is soon in memory whichever way it is read


class MemoryMappedArray:
    """array: `shape` uint8, read-only, the first axis counts pictures."""

    def __init__(self, file: Path, shape: tuple[int, ...]) -> None:
        with file.open("rb") as opened:
            self._mmap = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        self.array: NDArray[np.uint8] = np.frombuffer(self._mmap, np.uint8, math.prod(shape)).reshape(shape)
        self._touched_bytes = 0  # bytes since the pages were last let go

    def prefetch_rows(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The array, after the system was asked for these rows of it and no more.

        By itself it would guess at their neighbours, which costs 20 × as much when rows are drawn at random. Now and then the
        pages read so far are let go, which it would count as memory of this process as long as nobody else wants it; they stay
        in its cache and are found again by the same addresses.
        """
        if not hasattr(mmap, "MADV_WILLNEED"):
            return self.array
        one = math.prod(self.array.shape[1:])
        self._touched_bytes += len(rows) * one
        if self._touched_bytes > RESIDENT_BYTES:
            self._touched_bytes = 0
            self._mmap.madvise(mmap.MADV_DONTNEED)
        if self.array.nbytes > ADVISE_ABOVE_BYTES:
            for row in rows.tolist():
                begin = row * one // mmap.PAGESIZE * mmap.PAGESIZE
                self._mmap.madvise(mmap.MADV_WILLNEED, begin, (row + 1) * one - begin)
        return self.array
