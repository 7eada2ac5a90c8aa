"""HDF5 files of pictures and labels → Dataset, with the names of arrays that .npz files have (the extra `hdf5`: h5py).

Pictures are (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4) uint8, or N encoded pictures (JPEG, PNG) as byte strings or
arrays of bytes. A folder may hold several files; `train`, `val` or `test` in a name is the official part. Opening reads the small
arrays; pictures are read a few rows at a time. Several labels of a picture are (N, L) of 0 and 1, or lists of numbers.

Only what lies in the file itself is read: links to other files, external storage and virtual arrays are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import clean_cell
from phoropter.core.errors import DataError, MissingExtraError, cut_message, join_words
from phoropter.core.files import format_bytes
from phoropter.core.storage.foreign_files import HDF5
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.images.options import check_pixel_count
from phoropter.data.labels.label_sets import UNNAMED_LABEL, convert_label_table
from phoropter.data.source import COLUMNS_OPTION, FILE_OPTIONS, Source
from phoropter.data.sources.array_names import ARRAY_COLUMNS, ArraySet, assign_arrays
from phoropter.data.sources.arrays import check_image_array, find_row_not_one_hot
from phoropter.data.sources.packed.cells import Cell
from phoropter.data.sources.packed.hdf5_heap import check_global_heaps
from phoropter.data.sources.packed.shards import (
    PackedShard,
    check_packed_options,
    holds_packed,
    join_shards,
    list_files,
    open_packed,
)

HDF5_ENDINGS = (".h5", ".hdf5", ".hdf", ".he5")
MAX_ARRAYS = 10_000
MAX_COLUMN_BYTES = 2 * 1024**3
BLOCK_BYTES = 8 * 1024**2
MAX_RATIO = 1100  # of unpacked to packed bytes, in an array of more than UNCHECKED_BYTES: more than deflate reaches
UNCHECKED_BYTES = 16 * 1024**2
MAX_CHUNK_BYTES = 1024**3
_SHARD_NAMES = {"ids": "id", "groups": "group", "sites": "site", "parts": "split"}


def open_hdf5(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    multi_label: bool = False,
    on_bad_input: str = "stop",
    name: str | None = None,
) -> Dataset:
    """An HDF5 file, or a folder of such → Dataset; ids are the array `ids`, else `file/row`, and `file/part/row` for parts.

    columns: our name → the array's, where they differ · multi_label: a picture may have several labels
    Raises DataError for a missing array, one of another shape or kind, and links out of the file; MissingExtraError without h5py.
    """
    files = list_files(path, HDF5_ENDINGS, "HDF5")
    shards = [shard for file in files for shard in _read_shards(file, dict(columns or {}), multi_label)]
    if multi_label:
        _check_label_names(shards)
    return join_shards(shards, path, name, on_bad_input, multi_label)


def _check_label_names(shards: Sequence[PackedShard]) -> None:
    """Raises DataError where one table of labels has no names, and another has names or more columns: which is which?"""
    first, first_names = shards[0], shards[0].names
    for other in shards[1:]:
        if first_names and other.names and first_names != other.names and UNNAMED_LABEL in (*first_names, *other.names):
            raise DataError(
                f"the labels of {_name_shard(first)} are {join_words(first_names, 4)}, those of {_name_shard(other)} "
                f"{join_words(other.names, 4)}: name them in both, in an array called classes"
            )


def _name_shard(shard: PackedShard) -> str:
    return f"{shard.file.name} ({shard.inside})" if shard.inside else shard.file.name


@dataclass(frozen=True)
class Hdf5Cells:
    """The pictures of one array. column: its name in the file · rows: of it · block: rows that are read together"""

    file: Path
    column: str
    rows: int
    block: int

    def name_row(self, row: int) -> str:
        """`cells.h5, row 3`."""
        return f"{self.file.name}, row {row}"

    def read_block(self, row: int) -> tuple[int, int, Sequence[Cell]]:
        """The block that a row is in. Raises DataError for a damaged or changed file."""
        first = row - row % self.block
        stop = min(first + self.block, self.rows)
        with _open_hdf5_file(self.file) as opened:
            array = _find_array(opened, self.column, self.file.name)
            values = array[first:stop]
        if len(values) != stop - first:
            raise DataError(f"{self.file} has become shorter since it was opened: row {row} is gone")
        return first, stop, [_unpack_cell(value) for value in values]

    def iterate_cells(self) -> Iterator[Cell]:
        """All cells, a block at a time."""
        for first in range(0, self.rows, self.block):
            yield from self.read_block(first)[2]


def _unpack_cell(value: Any) -> Cell:
    """Pixels as they are; the bytes of an encoded picture, whether stored as a string, as opaque data or as an array of bytes."""
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return value
    return value.tobytes() if isinstance(value, (np.ndarray, np.void)) else bytes(value)


@contextmanager
def _open_hdf5_file(file: Path) -> Iterator[Any]:
    """An HDF5 file; damage found while it is read is a DataError."""
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "hdf5", f"{file.name}: an HDF5 file") from None
    try:
        with h5py.File(file, "r", locking=False) as opened:
            yield opened
    except DataError:
        raise
    except Exception as error:  # h5py raises what the place of the damage makes it raise
        reason = cut_message(error, 100)
        raise DataError(f"{file.name} is damaged or no HDF5 file ({reason}); copy it again") from None


def _read_shards(file: Path, columns: dict[str, str], multi_label: bool) -> list[PackedShard]:
    """A PackedShard for each official part in the file, or one."""
    with _open_hdf5_file(file) as opened:
        names = _list_arrays(opened, file.name)
        if any(opened[name].dtype.kind == "O" for name in names):
            check_global_heaps(file)
        sets = assign_arrays(file.name, names, columns)
        read = {name for one in sets for name in one.arrays.values()}
        unread = tuple(name for name in names if name not in read)
        return [_read_shard(opened, file, one, one.part if len(sets) > 1 else "", unread, multi_label) for one in sets]


def _read_shard(
    opened: Any, file: Path, arrays: ArraySet, inside: str, unread: tuple[str, ...], multi_label: bool
) -> PackedShard:
    key = arrays.arrays["images"]
    rows, block = _check_pictures(_find_array(opened, key, file.name), f"{file.name}: '{key}'")
    columns = {
        _SHARD_NAMES.get(ours, "label"): _read_values(
            _find_array(opened, name, file.name), rows, f"{file.name}: '{name}'", one_hot=ours == "labels"
        )
        for ours, name in arrays.arrays.items()
        if ours != "images" and not (multi_label and ours == "labels")
    }
    names = None
    if arrays.classes is not None:
        array = _find_array(opened, arrays.classes, file.name)
        names = tuple(map(clean_cell, _read_values(array, array.size, f"{file.name}: '{arrays.classes}'")))
    if multi_label:
        place = f"{file.name}: '{arrays.arrays['labels']}'"
        columns["label"], names = _read_label_sets(_find_array(opened, arrays.arrays["labels"], file.name), rows, names, place)
    return PackedShard(Hdf5Cells(file, key, rows, block), rows, names, columns, arrays.part or None, inside, unread)


def _read_label_sets(
    array: Any, rows: int, names: tuple[str, ...] | None, place: str
) -> tuple[list[Any], tuple[str, ...] | None]:
    """(the numbers of each row's labels, None where they are not known; names by number). Raises DataError for another kind."""
    import h5py

    lists = h5py.check_vlen_dtype(array.dtype)
    is_list = array.shape == (rows,) and isinstance(lists, np.dtype) and lists.kind in "iu"  # of texts it is `str`
    if not is_list and not (array.ndim == 2 and array.shape[0] == rows and array.dtype.kind in "iufb"):
        raise DataError(
            f"{place} has the shape {array.shape} and kind {array.dtype}, and multi_label: true expects ({rows}, L) of 0 and "
            "1, or a list of numbers in each row"
        )
    if array.size * array.dtype.itemsize > MAX_COLUMN_BYTES:
        raise DataError(f"{place} takes more than {format_bytes(MAX_COLUMN_BYTES)}; expected the labels of each row")
    if is_list:
        return [row.tolist() for row in array[()]], names
    table, words = convert_label_table(array[()], names, place)
    return [None if (row == UNLABELLED).all() else np.flatnonzero(row).tolist() for row in table], words


def _list_arrays(opened: Any, place: str) -> list[str]:
    """Names of the arrays in the file, in groups too; links are not followed."""
    import h5py

    names: list[str] = []

    def note(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset):
            names.append(name)
        if len(names) > MAX_ARRAYS:
            raise DataError(f"{place} holds more than {MAX_ARRAYS:,} arrays; expected one of images and one of labels")

    opened.visititems(note)
    return names


def _find_array(opened: Any, key: str, place: str) -> Any:
    """An array that lies in the file itself. Raises DataError for one that other files hold."""
    array = opened[key]
    if array.external or array.is_virtual:
        raise DataError(f"{place}: '{key}' is stored in other files, which are not opened; copy it into one file")
    if array.chunks and math.prod(array.chunks) * array.dtype.itemsize > MAX_CHUNK_BYTES:
        raise DataError(
            f"{place}: '{key}' is stored in chunks of more than {format_bytes(MAX_CHUNK_BYTES)}; write it with smaller ones"
        )
    return array


def _check_pictures(array: Any, place: str) -> tuple[int, int]:
    """(rows, rows in a block) of an array of pictures. Raises DataError where it holds none."""
    import h5py

    kind, shape = array.dtype, array.shape
    encoded = kind.kind in "SV" or h5py.check_string_dtype(kind) is not None or h5py.check_vlen_dtype(kind) == np.uint8
    if encoded and len(shape) == 1 and kind.names is None:
        return shape[0], 16
    check_image_array(shape, kind, place)
    check_pixel_count(shape[1] * shape[2], place)
    row_bytes = math.prod(shape[1:])
    if shape[0] * row_bytes > max(UNCHECKED_BYTES, MAX_RATIO * array.id.get_storage_size()):
        raise DataError(f"{place} holds less than its shape {shape} promises: the file is damaged or was not written to its end")
    chunk = array.chunks[0] if array.chunks else 1
    return shape[0], max(1, min(max(chunk, BLOCK_BYTES // row_bytes), max(1, 8 * BLOCK_BYTES // row_bytes)))


def _read_values(array: Any, rows: int, place: str, one_hot: bool = False) -> list[Any]:
    """N numbers or texts. one_hot: whether (N, C) may stand for N class numbers. Raises DataError for another shape or kind."""
    import h5py

    text = h5py.check_string_dtype(array.dtype) is not None
    fits = array.size * array.dtype.itemsize <= MAX_COLUMN_BYTES
    if one_hot and fits and array.ndim == 2 and array.shape[0] == rows and array.shape[1] > 1 and array.dtype.kind in "iufb":
        table: NDArray[Any] = array[()]
        if find_row_not_one_hot(table) is None:
            return list(table.argmax(axis=1))
    if array.size != rows or array.shape[:1] != (rows,) or not (text or array.dtype.kind in "iufb"):
        several = (
            "; a picture has one label here, and these have several: say multi_label: true where that is so"
            if one_hot and array.shape[:1] == (rows,) and array.size > rows
            else ""
        )
        raise DataError(
            f"{place} has the shape {array.shape} and kind {array.dtype}, expected ({rows},) of numbers or text{several}"
        )
    if not fits:
        raise DataError(
            f"{place} takes more than {format_bytes(MAX_COLUMN_BYTES)}; expected a number or a short text for each row"
        )
    values: NDArray[Any] = np.asarray(array.asstr("utf-8", "replace")[()] if text else array[()])
    flat: list[Any] = values.reshape(-1).tolist()
    return flat


HDF5_SOURCE = Source(
    "hdf5",
    open_packed(open_hdf5),
    "an HDF5 file, or a folder of such, with the arrays that .npz files have: images, labels, and where known ids, groups, "
    "sites, parts and classes",
    options=(COLUMNS_OPTION,),
    uses=(*FILE_OPTIONS, "multi_label"),
    check=check_packed_options(ARRAY_COLUMNS),
    formats=(HDF5,),
    detect=lambda contents: holds_packed(contents, HDF5_ENDINGS),
)
