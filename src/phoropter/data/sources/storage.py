"""Storage of the pictures of a dataset: files in a folder, or rows of one array.

Both are light when pickled: another process gets paths, not pixels (except of arrays that were passed in Python). `digests` and
`shape` are optional methods of a PictureSource; they answer without decoding where that is possible.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError
from phoropter.core.files import digest
from phoropter.data.images.decode import convert_to_rgb, open_image_file, read_image_size
from phoropter.data.sources.file_hashes import file_digests, memoize_by_files

DIGEST_BYTES = 16


class FilePictures:
    """One file a picture. `names` are paths relative to `root`, as the file system spells them, or absolute.

    shown: what each file is called in messages (default: its name), where a name must not be written
    """

    def __init__(self, root: Path, names: list[str], shown: list[str] | None = None) -> None:
        self.root, self._root_text = root, str(root)
        self.file_names = names
        self.shown_names = names if shown is None else shown

    def file_path(self, row: int) -> Path:
        """Path of a row's file."""
        return self.root / self.file_names[row]

    def image(self, row: int) -> Image.Image:
        """Row → RGB Image, upright."""
        return open_image_file(self.file_path(row), self.shown_names[row])

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8. Raises DataError naming the file."""
        return np.array(self.image(row))

    def shape(self, row: int) -> tuple[int, int]:
        """Row → (H, W) as stored in the file, from its header."""
        try:
            with self.file_path(row).open("rb") as file:
                return read_image_size(file, self.shown_names[row])
        except OSError as error:
            raise DataError(f"{self.shown_names[row]}: the file cannot be read: {error.strerror or error}") from None

    def byte_count(self, row: int) -> int:
        """Row → bytes of its file, 0 when it is gone."""
        try:
            return os.stat(os.path.join(self._root_text, self.file_names[row])).st_size  # noqa: PTH116, PTH118 (for every row)
        except OSError:
            return 0

    def digests(self, rows: NDArray[np.int64]) -> list[str]:
        """A digest of each file's bytes."""
        root = str(self.root.absolute())
        return file_digests([os.path.join(root, self.file_names[row]) for row in rows.tolist()])  # noqa: PTH118

    def identity(self, rows: NDArray[np.int64]) -> str:
        """A digest of the contents of these rows, in order."""
        return digest(self.digests(rows))

    def select(self, rows: NDArray[np.int64]) -> FilePictures:
        """Only these rows, in this order."""
        names, shown = ([names[int(row)] for row in rows] for names in (self.file_names, self.shown_names))
        return FilePictures(self.root, names, shown)


class LazyArray:
    """An array of pictures that is loaded when first used. Pickling keeps only the function that loads it.

    load:  function(*args) → (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4) uint8
    files: that it reads, so that the digests of its rows can be cached
    """

    def __init__(self, load: Callable[..., NDArray[np.uint8]], *args: Any, files: tuple[Path, ...] = ()) -> None:
        self.load, self.args, self.files = load, args, files
        self._array: NDArray[np.uint8] | None = None
        self._lock = threading.Lock()

    def with_array(self, array: NDArray[np.uint8]) -> LazyArray:
        """Itself, with the array already loaded."""
        self._array = array
        return self

    @property
    def array(self) -> NDArray[np.uint8]:
        """The pictures."""
        with self._lock:
            if self._array is None:
                self._array = self.load(*self.args)
            return self._array

    def digests(self) -> list[str]:
        """A digest of each row's shape and bytes."""
        joined = memoize_by_files(self.files, f"rows-1 of {self.args!r}", self._hash_rows) if self.files else self._hash_rows()
        return [joined[i : i + DIGEST_BYTES].hex() for i in range(0, len(joined), DIGEST_BYTES)]

    def _hash_rows(self) -> bytes:
        return b"".join(hash_picture(row) for row in self.array)

    def __reduce__(self) -> Any:
        return _rebuild_lazy_array, (self.load, self.args, self.files)


def hash_picture(array: NDArray[np.uint8]) -> bytes:
    """A digest of an array's shape and bytes: DIGEST_BYTES long."""
    content = str(array.shape).encode() + np.ascontiguousarray(array).tobytes()
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _rebuild_lazy_array(load: Callable[..., NDArray[np.uint8]], args: tuple[Any, ...], files: tuple[Path, ...]) -> LazyArray:
    return LazyArray(load, *args, files=files)


class ArrayPictures:
    """Rows of one array."""

    def __init__(self, lazy_array: LazyArray, row_indices: NDArray[np.int64], name: str) -> None:
        self.lazy_array, self.row_indices, self.name = lazy_array, row_indices, name

    def image(self, row: int) -> Image.Image:
        """Row → RGB Image."""
        picture = self.lazy_array.array[self.row_indices[row]]
        if picture.ndim == 3 and picture.shape[2] == 1:
            picture = picture[:, :, 0]
        return convert_to_rgb(Image.fromarray(picture), f"{self.name}, row {self.row_indices[row]}")

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8."""
        return np.array(self.image(row))

    def shape(self, row: int) -> tuple[int, int]:
        """Row → (H, W)."""
        height, width = self.lazy_array.array.shape[1:3]
        return height, width

    def digests(self, rows: NDArray[np.int64]) -> list[str]:
        """A digest of each row's pixels."""
        digests = self.lazy_array.digests()
        return [digests[int(i)] for i in self.row_indices[rows]]

    def identity(self, rows: NDArray[np.int64]) -> str:
        """A digest of the contents of these rows, in order."""
        return digest(self.digests(rows))

    def select(self, rows: NDArray[np.int64]) -> ArrayPictures:
        """Only these rows, in this order."""
        return ArrayPictures(self.lazy_array, self.row_indices[rows], self.name)
