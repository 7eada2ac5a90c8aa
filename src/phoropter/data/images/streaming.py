"""StreamedPixels: Pixels of a dataset that is too large to store decoded. Pictures are decoded when they are read.

The most recent ones stay in memory, up to a limit. Nothing is read ahead here: batch loaders prefetch the next batch.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset
from phoropter.data.images.decode import SquareResize
from phoropter.data.images.decode_pool import picture_reader
from phoropter.data.images.pixels import UnstoredPixels

MEMORY_BYTES = 1024**3


class StreamedPixels(UnstoredPixels):
    """(N, 3, S, S) uint8 that is not stored: `batch` decodes, and raises DataError for a picture that has become unreadable.

    dataset: without its bad rows
    """

    def __init__(self, dataset: Dataset, square: SquareResize, identity: str, memory: int = MEMORY_BYTES) -> None:
        super().__init__((len(dataset), 3, square.size, square.size), identity)
        self.dataset, self.square = dataset, square
        self.capacity = max(1, memory // (3 * square.size**2))
        self._recent_squares: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._pool_pid = 0

    @property
    def array(self) -> NDArray[np.uint8]:
        """Raises DataError: no array of all pixels exists."""
        raise DataError(
            f"{self.dataset.name} is streamed because it is larger than the budget, so there is no array of all its pixels; "
            "read batches, or raise PHOROPTER_PIXELS_BUDGET"
        )

    def _iterate_squares(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        return self._thread_pool().map(self._decode_square, rows.tolist())

    def _decode_square(self, row: int) -> NDArray[np.uint8]:
        with self._lock:
            if row in self._recent_squares:
                self._recent_squares.move_to_end(row)
                return self._recent_squares[row]
        square = self.square.resize_image(picture_reader(self.dataset)(row))
        with self._lock:
            self._recent_squares[row] = square
            while len(self._recent_squares) > self.capacity:
                self._recent_squares.popitem(last=False)
        return square

    def _thread_pool(self) -> ThreadPoolExecutor:
        """The thread pool of this process; the parent's threads do not exist in a forked child."""
        with self._lock:
            if self._pool is None or self._pool_pid != os.getpid():
                self._pool, self._pool_pid = ThreadPoolExecutor(count_usable_cores(), thread_name_prefix="stream"), os.getpid()
            return self._pool

    def __reduce__(self) -> Any:
        return StreamedPixels, (self.dataset, self.square, self.identity)
