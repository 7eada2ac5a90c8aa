"""Decoding of a dataset into square images, a shard at a time, by several threads and in order.

Threads and not processes, because Pillow releases the GIL while it decodes and scales. Measured on two cores, pictures a second
by one thread, two threads and two processes: 375×500 JPEG to 224 pixels 340, 400 and 371; 32×32 pixels 9,200, 8,500 and 8,000.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset
from phoropter.data.images.blank import BlankRow, describe_picture
from phoropter.data.images.decode import SquareResize, pillow_warnings_ignored

SHARD_BYTES = 8 * 1024**2
PICTURES_PER_CALL = 64  # where a storage can read several pictures at once


@dataclass(frozen=True)
class Shard:
    """Square images of the readable rows up to `stop`, (row, reason) of the bad ones, and the rows that show next to nothing."""

    stop: int
    squares: NDArray[np.uint8]
    bad_rows: list[tuple[int, str]]
    blank_rows: list[BlankRow]


def decode_shards(dataset: Dataset, square: SquareResize, first: int, workers: int) -> Generator[Shard, None, None]:
    """Shards in the order of rows from `first`, decoded by several threads. At most `workers` + 2 shards are in memory."""
    count = len(dataset)
    rows = max(1, min(SHARD_BYTES // (3 * square.size**2), -(-(count - first) // (4 * workers))))
    starts = iter(range(first, count, rows))
    waiting: deque[Future[Shard]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    with pillow_warnings_ignored:
        try:
            for start in starts:
                waiting.append(pool.submit(_decode_shard, dataset, square, start, min(start + rows, count)))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _decode_shard(dataset: Dataset, square: SquareResize, start: int, stop: int) -> Shard:
    squares = np.empty((stop - start, 3, square.size, square.size), dtype=np.uint8)
    bad: list[tuple[int, str]] = []
    blank: list[BlankRow] = []
    rendered = hasattr(dataset.pictures, "images")  # drawn from numbers: nothing can be read wrong
    for row, picture in iterate_pictures(dataset, start, stop):
        if isinstance(picture, DataError):
            bad.append((row, str(picture)))
            continue
        squares[row - start - len(bad)] = square.resize_image(picture)
        if not rendered:
            blank += [(row, kind) for kind in describe_picture(picture)]
    return Shard(stop, squares[: stop - start - len(bad)], bad, blank)


def iterate_pictures(dataset: Dataset, start: int, stop: int) -> Iterator[tuple[int, Any]]:
    """(row, picture or the DataError it raises); several rows at once where the storage can and all of them are readable."""
    read_many: Callable[[NDArray[np.int64]], NDArray[np.uint8]] | None = getattr(dataset.pictures, "images", None)
    for first in range(start, stop, PICTURES_PER_CALL) if read_many else ():
        rows = np.arange(first, min(first + PICTURES_PER_CALL, stop), dtype=np.int64)
        try:
            yield from zip(rows.tolist(), read_many(rows), strict=True)  # type: ignore[misc]
        except DataError:
            yield from _read_one_by_one(dataset, rows.tolist())
    if read_many is None:
        yield from _read_one_by_one(dataset, range(start, stop))


def _read_one_by_one(dataset: Dataset, rows: Iterable[int]) -> Iterator[tuple[int, Any]]:
    read = picture_reader(dataset)
    for row in rows:
        try:
            yield row, read(row)
        except DataError as error:
            yield row, error


def picture_reader(dataset: Dataset) -> Callable[[int], Any]:
    """The fastest function that reads a row: one that returns a Pillow Image, where the storage has it."""
    image: Callable[[int], Any] | None = getattr(dataset.pictures, "image", None)
    return image or dataset.pictures.read
