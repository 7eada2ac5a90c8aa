"""Pictures in an .npz file → Dataset, as phoropter, MedMNIST and Keras name the arrays (array_names.py).

Opening reads the labels; the pixels are read with the first picture, and again in each process that gets the dataset.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import describe_unread_groups
from phoropter.core.errors import DataError, join_words
from phoropter.core.files import format_bytes
from phoropter.core.storage.foreign_files import NPZ
from phoropter.data.dataset import Dataset, find_labelled
from phoropter.data.labels.label_sets import check_plain_multi_label, convert_label_table
from phoropter.data.source import Source
from phoropter.data.sources.array_names import ArraySet, assign_arrays
from phoropter.data.sources.arrays import (
    OPTIONAL_COLUMNS,
    NamedLabels,
    check_image_array,
    check_labels,
    clean_column,
    find_row_not_one_hot,
    from_columns,
    join_labels,
    make_row_ids,
    parse_parts,
)
from phoropter.data.sources.storage import LazyArray

MAX_CELL_BYTES = 4 * 2000  # of a name; NumPy takes four bytes a character
MAX_COLUMN_BYTES = 1 << 30

# All that zipfile and NumPy raise on a damaged file.
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError)


def open_npz(path: Path, *, multi_label: bool = False, on_bad_input: str = "stop", name: str | None = None) -> Dataset:
    """An .npz file with images (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4) uint8, labels (N,) or (N, 1), whole numbers
    or words, or (N, C) one-hot, and where known ids, groups, sites, parts (N,) and classes (C,) → Dataset. Pickled objects are
    not read.

    Arrays of official parts are joined in their order in the file; ids are then `train/0001`.
    multi_label: labels are (N, L) of 0 and 1, several of which a picture may have
    Raises DataError for a missing array, a wrong shape, an array of objects, and a label in some rows only (kept with "skip").
    """
    arrays = _list_arrays(path)
    sets = assign_arrays(path.name, arrays)
    shapes = [_read_image_shape(path, one.arrays["images"]) for one in sets]
    if different := next((shape for shape in shapes if shape[1:] != shapes[0][1:]), None):
        raise DataError(
            f"{path.name}: the parts have pictures of the shapes {shapes[0][1:]} and {different[1:]}, expected one shape"
        )
    columns = {column: _read_column(path, column, sets, shapes) for column in OPTIONAL_COLUMNS}
    if [one.part for one in sets] != [""]:
        sizes = [(one.part, shape[0]) for one, shape in zip(sets, shapes, strict=True)]
        columns["parts"] = [part for part, size in sizes for _ in range(size)]
        columns["ids"] = columns["ids"] or [f"{part}/{row}" for part, size in sizes for row in make_row_ids(size)]
    notes: tuple[str, ...] = ()
    if multi_label:
        labels, classes = _read_label_table(path, sets)
        given: Sequence[Any] = ["known" if known else "" for known in find_labelled(labels).tolist()]
    else:
        named = [_read_labels(path, one, shape[0]) for one, shape in zip(sets, shapes, strict=True)]
        labels, classes, notes = join_labels(named, path.name)
        given = [v for one in named for v in one.values]
    texts = {column: None if v is None else clean_column(v, column, path.name) for column, v in columns.items()}
    parts = parse_parts(texts["parts"], path.name)
    check_labels(given, parts, lambda row: f"{path.name}, row {row}", on_bad_input)
    images = LazyArray(_read_npz_images, path, *(one.arrays["images"] for one in sets), files=(path,))
    dataset = from_columns(name or path.stem, images, labels, classes, texts)
    unread = set(arrays) - {name for one in sets for name in one.arrays.values()}
    lost = describe_unread_groups(sorted(unread), "call it groups") if dataset.groups is None else ()
    return replace(dataset, notes=(*notes, *dataset.notes, *lost))


def _list_arrays(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; an .npz with images (N, H, W, 3) uint8 and labels (N,) is expected")
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except _DAMAGE as error:
        raise DataError(f"{path.name} is damaged or no .npz file ({error})") from None


def _read_image_shape(path: Path, key: str) -> tuple[int, ...]:
    """The shape of an array, without reading it. Raises DataError where it holds no pictures or does not fit in memory."""
    import psutil

    shape, kind = _read_header(path, key)
    check_image_array(shape, kind, path.name)
    if (size := math.prod(shape)) > 0.8 * psutil.virtual_memory().total:
        raise DataError(
            f"{path.name}: its images take {format_bytes(size)} unpacked, more than this machine's memory; use files or Parquet"
        )
    return shape


def _read_header(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array. Raises DataError where the file holds fewer bytes than they need."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
            shape, _, kind = _NPY_HEADER_READERS[np.lib.format.read_magic(file)](file)
            size = archive.getinfo(f"{key}.npy").file_size
    except _DAMAGE as error:
        raise DataError(f"{path.name} is damaged or no .npz file ({error})") from None
    if not kind.hasobject and math.prod(shape) * kind.itemsize > size:
        raise DataError(f"{path.name} is damaged: the array '{key}' of the shape {shape} needs more than its {size:,} bytes")
    return tuple(int(side) for side in shape), kind


def _read_npz_images(path: Path, *keys: str) -> NDArray[np.uint8]:
    arrays = [_read_array(path, key) for key in keys]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _read_array(path: Path, key: str) -> NDArray[Any]:
    _read_header(path, key)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            array: NDArray[Any] = arrays[key]
            return array
    except _DAMAGE as error:
        what = "it holds pickled objects, which are not read" if "pickle" in str(error).lower() else str(error)
        raise DataError(f"{path.name}: the array '{key}' cannot be read: {what}") from None


def _read_labels(path: Path, one: ArraySet, count: int) -> NamedLabels:
    names = None if one.classes is None else _read_text_array(path, one.classes).ravel().tolist()
    key = one.arrays["labels"]
    shape, kind = _read_header(path, key)
    if len(shape) == 2 and shape[0] == count and shape[1] > 1 and kind.kind in "iufb":
        table = _read_text_array(path, key)
        if find_row_not_one_hot(table) is None:
            return NamedLabels(f"{path.name}, {key}", table.argmax(axis=1).tolist(), names)
    return NamedLabels(f"{path.name}, {key}", _read_values(path, key, count), names)


def _read_label_table(path: Path, sets: list[ArraySet]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """((N, L) of 0 and 1 of all parts, names of the labels). Raises DataError for an array of another shape or other values."""
    names = next((_read_text_array(path, one.classes).ravel().tolist() for one in sets if one.classes is not None), None)
    tables = [_read_text_array(path, one.arrays["labels"]) for one in sets]
    if any(table.ndim != 2 or table.shape[1:] != tables[0].shape[1:] for table in tables):
        shapes = join_words([str(table.shape) for table in tables])
        raise DataError(f"{path.name}: labels have the shape {shapes}, and multi_label: true expects (N, L) of 0 and 1")
    return convert_label_table(np.concatenate(tables), names, path.name)


def _read_column(path: Path, column: str, sets: list[ArraySet], shapes: list[tuple[int, ...]]) -> list[Any] | None:
    """The values of a column of every part, one after another; missing in a part that has none, None where no part has it."""
    if not any(column in one.arrays for one in sets):
        return None
    values: list[Any] = []
    for one, (count, *_) in zip(sets, shapes, strict=True):
        values += [None] * count if column not in one.arrays else _read_values(path, one.arrays[column], count)
    return values


def _read_values(path: Path, key: str, count: int) -> list[Any]:
    shape, kind = _read_header(path, key)
    if shape not in ((count,), (count, 1)) or kind.kind not in "iufbUSO":  # of objects, reading says so in other words
        several = (
            "; where a picture has several of these labels, say multi_label: true"
            if len(shape) == 2 and shape[0] == count
            else ""
        )
        raise DataError(
            f"{path.name}: '{key}' has the shape {shape} and kind {kind}, expected ({count},) of numbers or text{several}"
        )
    values: list[Any] = _read_text_array(path, key).ravel().tolist()
    return values


def _read_text_array(path: Path, key: str) -> NDArray[Any]:
    """An array of names or numbers. Raises DataError, before any room is made for it, where its cells are longer than names are:
    a small file may unfold to any size."""
    shape, kind = _read_header(path, key)
    size = math.prod(shape) * kind.itemsize
    if (kind.kind in "US" and kind.itemsize > MAX_CELL_BYTES) or size > MAX_COLUMN_BYTES:
        raise DataError(
            f"{path.name}: '{key}' has cells of {format_bytes(kind.itemsize)}, {format_bytes(size)} in all, expected names of at "
            f"most {MAX_CELL_BYTES // 4:,} characters and {format_bytes(MAX_COLUMN_BYTES)}"
        )
    return _read_array(path, key)


_NPY_HEADER_READERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

NPZ_SOURCE = Source(
    "npz",
    lambda request: open_npz(
        request.path,
        multi_label=request.option("multi_label") is not None,
        on_bad_input=request.on_bad_input,
        name=request.name,
    ),
    "a file with the arrays images and labels, and where known ids, groups, sites, parts and classes; or with such arrays for "
    "each official part, as MedMNIST (train_images) and Keras (x_train) name them",
    uses=("multi_label",),
    formats=(NPZ,),
    check=check_plain_multi_label,
    detect=lambda contents: contents.is_file_like(".npz"),
)
