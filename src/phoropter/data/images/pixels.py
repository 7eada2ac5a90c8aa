"""Pixels: decoded images of one size, read a batch at a time from a memory-mapped file. Subclasses store them elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.data.images.memmap import MemoryMappedArray


class Pixels:
    """(N, 3, S, S) uint8 in one file.

    identity: key of these pixels in every cache that is computed from them
    stored:   whether they are in a file (else they are decoded when read)
    """

    stored = True

    def __init__(self, file: Path, shape: tuple[int, int, int, int], identity: str) -> None:
        self.file, self.shape, self.identity = file, shape, identity
        self._memmap: MemoryMappedArray | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """S, the side in pixels."""
        return self.shape[2]

    @property
    def array(self) -> NDArray[np.uint8]:
        """(N, 3, S, S) uint8, read-only, mapped from the file."""
        return self._open_memmap().array

    def batch(self, rows: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """(B,) rows → (B, 3, S, S) uint8, contiguous and writable; into `out` where given. Raises IndexError outside 0..N-1."""
        rows = check_row_range(rows, len(self))
        array = self._open_memmap().prefetch_rows(rows)
        return np.take(array, rows, axis=0, out=out, mode="clip")  # `clip` writes straight into out; rows are checked

    def read_each(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """(B,) rows → B pictures (3, S, S) uint8, read-only views of the file. Raises as `batch`."""
        rows = check_row_range(rows, len(self))
        array = self._open_memmap().prefetch_rows(rows)
        return [array[row] for row in rows.tolist()]

    def _open_memmap(self) -> MemoryMappedArray:
        if self._memmap is None:
            self._memmap = MemoryMappedArray(self.file, self.shape)
        return self._memmap

    def __reduce__(self) -> Any:
        return Pixels, (self.file, self.shape, self.identity)


class InMemoryPixels(Pixels):
    """(N, 3, S, S) uint8 in memory, for images that are predicted once: in no file and no cache."""

    stored = False

    def __init__(self, squares: NDArray[np.uint8]) -> None:
        super().__init__(Path(), (len(squares), 3, squares.shape[2], squares.shape[3]), "in memory")
        self._array = squares

    @property
    def array(self) -> NDArray[np.uint8]:
        return self._array

    def batch(self, rows: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        return np.take(self._array, check_row_range(rows, len(self)), axis=0, out=out, mode="clip")

    def read_each(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        return [self._array[row] for row in check_row_range(rows, len(self)).tolist()]


class UnstoredPixels(Pixels):
    """(N, 3, S, S) uint8 that are in no file: a kind of them makes each when it is read, in `_iterate_squares`."""

    stored = False

    def __init__(self, shape: tuple[int, int, int, int], identity: str) -> None:
        super().__init__(Path(), shape, identity)

    @property
    def array(self) -> NDArray[np.uint8]:
        """Raises DataError: no array of all pixels exists."""
        raise DataError("these pictures are made when they are read, and there is no array of all of them; read batches")

    def batch(self, rows: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """(B,) rows → (B, 3, S, S) uint8, contiguous; into `out` where given. Raises IndexError outside 0..N-1."""
        if out is None:
            out = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for place, square in enumerate(self._iterate_squares(check_row_range(rows, len(self)))):
            out[place] = square
        return out

    def read_each(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """(B,) rows → B pictures (3, S, S) uint8. Raises as `batch`."""
        return list(self._iterate_squares(check_row_range(rows, len(self))))

    def _iterate_squares(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """(B,) rows of 0..N-1 → their pictures, in this order."""
        raise NotImplementedError


def check_row_range(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The rows, unchanged. Raises IndexError outside 0..N-1: NumPy would read another picture for a negative row."""
    rows = np.asarray(rows)
    if rows.size and (rows.min() < 0 or rows.max() >= count):
        raise IndexError(f"rows {rows.min()}..{rows.max()} were requested, expected rows in 0..{count - 1}")
    return rows
