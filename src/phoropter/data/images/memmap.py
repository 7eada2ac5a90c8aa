"""A memory-mapped array of pictures that keeps the memory of the process small."""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RESIDENT_BYTES = 512 * 1024**2
ADVISE_ABOVE_BYTES = 64 * 1024**2  # smaller files are soon in memory in any case


class MemoryMappedArray:
    """array: `shape` uint8, read-only, the first axis counts pictures."""

    def __init__(self, file: Path, shape: tuple[int, ...]) -> None:
        with file.open("rb") as opened:
            self._mmap = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        self.array: NDArray[np.uint8] = np.frombuffer(self._mmap, np.uint8, math.prod(shape)).reshape(shape)
        self._touched_bytes = 0  # since pages were last released

    def prefetch_rows(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The array, after the system was told which rows are read next.

        Without that it also reads their neighbours, which costs 20 times as much for random rows. From time to time the pages
        read so far are released, because the system counts them as memory of this process; they stay in its page cache.
        """
        if not hasattr(mmap, "MADV_WILLNEED"):
            return self.array
        row_bytes = math.prod(self.array.shape[1:])
        self._touched_bytes += len(rows) * row_bytes
        if self._touched_bytes > RESIDENT_BYTES:
            self._touched_bytes = 0
            self._mmap.madvise(mmap.MADV_DONTNEED)
        if self.array.nbytes > ADVISE_ABOVE_BYTES:
            for row in rows.tolist():
                begin = row * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
                self._mmap.madvise(mmap.MADV_WILLNEED, begin, (row + 1) * row_bytes - begin)
        return self.array
