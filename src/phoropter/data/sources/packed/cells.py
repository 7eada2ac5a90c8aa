"""PackedPictures: the pictures of rows of files that hold many, whatever the format.

A format gives a FileCells for each file: how its picture cells are read, in blocks of rows that lie together in the file.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError
from phoropter.core.files import digest
from phoropter.data.dicom_file import is_dicom_file, is_dicom_head, may_be_dicom
from phoropter.data.images.decode import HEAD_BYTES, convert_to_rgb, open_image, open_image_file
from phoropter.data.sources.file_hashes import memoize_by_files
from phoropter.data.sources.storage import DIGEST_BYTES, hash_picture

DICOM_IN_FILE = (
    "it holds DICOM files, whose patients can be neither told apart nor hidden here: unpack them into a folder, and name that"
)
BLOCKS, KEPT_BYTES = 32, 64 * 1024**2  # of the pictures that were read last
Cell = bytes | str | NDArray[np.uint8] | None  # an encoded picture, a path beside the file, pixels, or nothing


class FileCells(Protocol):
    """The picture cells of one file. It is picklable and holds no pictures."""

    @property
    def file(self) -> Path:
        """The file."""
        ...

    @property
    def column(self) -> str:
        """What is read of the file, for remembered digests."""
        ...

    def name_row(self, row: int) -> str:
        """What a row is called in messages."""
        ...

    def read_block(self, row: int) -> tuple[int, int, Sequence[Cell]]:
        """(first, stop, cells) of the rows that are read together with a row. Raises DataError."""
        ...

    def iterate_cells(self) -> Iterator[Cell]:
        """All cells in order. Raises DataError."""
        ...


@dataclass(frozen=True, eq=False)
class _Block:
    """Cells of rows first..stop - 1 of the file of this number."""

    file: int
    first: int
    stop: int
    cells: Sequence[Cell]

    def holds(self, file: int, row: int) -> bool:
        """Whether a row of a file is in it."""
        return self.file == file and self.first <= row < self.stop

    @cached_property
    def byte_count(self) -> int:
        """Bytes of its pictures."""
        return sum(cell.nbytes if isinstance(cell, np.ndarray) else len(cell or "") for cell in self.cells)


class PackedPictures:
    """Rows of files. cells: of each file · where: (N, 2) file number and row in it.

    pools_grey_scale: whether they are windows of recordings, each of which depends on the other windows of its subject
    """

    def __init__(self, cells: Sequence[FileCells], where: NDArray[np.int64], pools_grey_scale: bool = False) -> None:
        self.cells, self.locations, self.pools_grey_scale = list(cells), where, pools_grey_scale
        self._lock = threading.Lock()
        self._blocks: list[_Block] = []  # that were read, the one that was used last at the end

    def image(self, row: int) -> Image.Image:
        """Row → RGB Image, upright."""
        at, inside = (int(n) for n in self.locations[row])
        cell, place = self._read_cell(at, inside), self.cells[at].name_row(inside)
        if isinstance(cell, bytes):
            if is_dicom_head(cell[:HEAD_BYTES]):
                raise DataError(f"{self.cells[at].file.name}: {DICOM_IN_FILE}")
            return open_image(cell, place)
        if isinstance(cell, np.ndarray):
            return convert_to_rgb(Image.fromarray(cell[:, :, 0] if cell.ndim == 3 and cell.shape[2] == 1 else cell), place)
        if not cell:
            raise DataError(f"{place}: the picture is missing (neither bytes nor a path)")
        if Path(cell).is_absolute() or ".." in Path(cell.replace("\\", "/")).parts:
            raise DataError(
                f"{place}: the picture's path leads out of the folder of its file, and is not opened; store its bytes"
            )
        path = self.cells[at].file.parent / cell
        if may_be_dicom(path.name) and path.is_file() and is_dicom_file(path):
            raise DataError(f"{self.cells[at].file.name}: {DICOM_IN_FILE}")
        return open_image_file(path, f"{place} ({cell})")

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8. Raises DataError naming file and row."""
        return np.array(self.image(row))

    def digests(self, rows: NDArray[np.int64]) -> list[str]:
        """A digest of each picture's bytes or pixels."""
        joined: dict[int, bytes] = {}
        for at in np.unique(self.locations[rows, 0]).tolist():
            cells = self.cells[at]
            joined[at] = memoize_by_files([cells.file], f"rows-1 of {cells.column}", partial(_hash_cells, cells))
        return [joined[at][i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES].hex() for at, i in self.locations[rows].tolist()]

    def identity(self, rows: NDArray[np.int64]) -> str:
        """A digest of the contents of these rows, in order."""
        return digest(self.digests(rows))

    def select(self, rows: NDArray[np.int64]) -> PackedPictures:
        """Only these rows, in this order."""
        return PackedPictures(self.cells, self.locations[rows], self.pools_grey_scale)

    def _read_cell(self, at: int, row: int) -> Cell:
        """One row's cell. Its block stays in memory, because the next rows are usually read next, by several threads each in its
        own part of the rows: so BLOCKS of them, or as many as KEPT_BYTES hold."""
        with self._lock:
            held = next((block for block in self._blocks if block.holds(at, row)), None)
            if held is None:
                held = _Block(at, *self.cells[at].read_block(row))
                self._blocks.append(held)
                while len(self._blocks) > BLOCKS or (
                    len(self._blocks) > 1 and sum(b.byte_count for b in self._blocks) > KEPT_BYTES
                ):
                    del self._blocks[0]
            elif held is not self._blocks[-1]:
                self._blocks.remove(held)
                self._blocks.append(held)
            return held.cells[row - held.first]

    def __reduce__(self) -> Any:
        return PackedPictures, (self.cells, self.locations, self.pools_grey_scale)


def _hash_cells(cells: FileCells) -> bytes:
    return b"".join(map(_hash_cell, cells.iterate_cells()))


def _hash_cell(cell: Cell) -> bytes:
    if isinstance(cell, np.ndarray):
        return hash_picture(cell)
    return hashlib.blake2b(cell if isinstance(cell, bytes) else b"path:" + str(cell).encode(), digest_size=DIGEST_BYTES).digest()
