"""Pictures in an .npz file → Dataset, as phoropter, MedMNIST and Keras name the arrays.

    images, labels                        one set; where known ids, groups, sites, parts, classes
    train_images, train_labels, val_…     a set for each official part (MedMNIST)
    x_train, y_train, x_test, y_test      the same (Keras)

Opening reads the labels; the pixels are read with the first picture, and again in each process that gets the dataset.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, join_words
from phoropter.core.files import format_bytes
from phoropter.data.dataset import Dataset
from phoropter.data.folders.layout import parse_split_name
from phoropter.data.source import Source
from phoropter.data.sources.arrays import check_image_array, clean_column, convert_labels, from_columns, make_row_ids
from phoropter.data.sources.storage import LazyArray

# How an array is called, without the word of its official part → our name.
_ARRAY_NAMES = {
    **dict.fromkeys(("images", "image", "imgs", "img", "x", "data", "pictures"), "images"),
    **dict.fromkeys(("labels", "label", "y", "targets", "target"), "labels"),
    **dict.fromkeys(("ids", "id"), "ids"),
    **dict.fromkeys(("groups", "group"), "groups"),
    **dict.fromkeys(("sites", "site"), "sites"),
    **dict.fromkeys(("parts", "part", "split", "splits"), "parts"),
    **dict.fromkeys(("classes", "class_names", "label_names"), "classes"),
}
_EXPECTED = "expected images (N, H, W, 3) uint8 and labels (N,), or such arrays for each part, such as train_images or x_train"

# All that zipfile and NumPy raise on a damaged file.
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError)

ArrayKeys = dict[str, dict[str, str]]  # official part, '' for none → our name of an array → its name in the file


def open_npz(path: Path, *, name: str | None = None) -> Dataset:
    """An .npz file with images (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4) uint8, labels (N,) or (N, 1), whole numbers
    or words, and where known ids, groups, sites, parts (N,) and classes (C,) → Dataset. Pickled objects are not read.

    Arrays of official parts are joined in their order in the file; ids are then `train/0001`.
    Raises DataError for a missing array, a wrong shape, or an array of objects.
    """
    keys, classes_key = _assign_arrays(path)
    shapes = [_read_image_shape(path, arrays["images"]) for arrays in keys.values()]
    if different := next((shape for shape in shapes if shape[1:] != shapes[0][1:]), None):
        raise DataError(
            f"{path.name}: the parts have pictures of the shapes {shapes[0][1:]} and {different[1:]}, expected one shape"
        )
    columns = {column: _read_column(path, column, keys, shapes) for column in ("labels", "ids", "groups", "sites", "parts")}
    if list(keys) != [""]:
        sizes = [(part, shape[0]) for part, shape in zip(keys, shapes, strict=True)]
        columns["parts"] = [part for part, size in sizes for _ in range(size)]
        columns["ids"] = columns["ids"] or [f"{part}/{row}" for part, size in sizes for row in make_row_ids(size)]
    named = None if classes_key is None else _read_array(path, classes_key).ravel().tolist()
    labels, classes = convert_labels(columns.pop("labels"), named, path.name)
    images = LazyArray(_read_npz_images, path, *(arrays["images"] for arrays in keys.values()), files=(path,))
    texts = {column: None if v is None else clean_column(v, column, path.name) for column, v in columns.items()}
    return from_columns(name or path.stem, images, labels, classes, texts)


def _assign_arrays(path: Path) -> tuple[ArrayKeys, str | None]:
    """What each array of the file is, by its name, and the array of class names. Other arrays are left out."""
    keys: ArrayKeys = {}
    for key in _list_arrays(path):
        ours, part = _parse_array_name(key)
        if ours is None:
            continue
        arrays = keys.setdefault(part, {})
        if ours in arrays:
            raise DataError(f"{path.name} has two arrays of {ours}, '{arrays[ours]}' and '{key}': keep one")
        arrays[ours] = key
    classes = next((arrays.pop("classes") for arrays in keys.values() if "classes" in arrays), None)
    common = keys.pop("", {}) if len(keys) > 1 else {}
    if common:
        ours, key = next(iter(common.items()))
        other = next(name for arrays in keys.values() for name in arrays.values())
        raise DataError(
            f"{path.name} has '{key}' and '{other}': it is not clear which rows the {ours} belong to; name every array with its "
            f"part, such as train_{ours}, or none"
        )
    for part, arrays in (keys or {"": {}}).items():
        for needed in ("images", "labels"):
            if needed not in arrays:
                of_part = f" of the part {part}" if part else ""
                there = join_words(_list_arrays(path), 8)
                raise DataError(f"{path.name} has no array '{needed}'{of_part}; {_EXPECTED}; it has {there}")
    return keys, classes


def _parse_array_name(key: str) -> tuple[str | None, str]:
    """`train_images` or `x_train` → (our name or None, official part or '')."""
    words = re.split(r"[_.\-\s]+", key.casefold())
    if ours := _ARRAY_NAMES.get("_".join(words)):
        return ours, ""
    for part, rest in ((words[0], words[1:]), (words[-1], words[:-1])):
        if parsed := parse_split_name(part):
            return _ARRAY_NAMES.get("_".join(rest)), parsed
    return None, ""


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


def _read_column(path: Path, column: str, keys: ArrayKeys, shapes: list[tuple[int, ...]]) -> list[Any] | None:
    """The values of a column of every part, one after another; missing in a part that has none, None where no part has it."""
    if not any(column in arrays for arrays in keys.values()):
        return None
    values: list[Any] = []
    for arrays, (count, *_) in zip(keys.values(), shapes, strict=True):
        values += [None] * count if column not in arrays else _read_values(path, arrays[column], count)
    return values


def _read_values(path: Path, key: str, count: int) -> list[Any]:
    array = _read_array(path, key)
    if array.shape == (count, 1):
        array = array[:, 0]
    if array.shape != (count,) or array.dtype.kind not in "iufbUS":
        several = "; a picture has one label here, and these have several" if array.ndim == 2 and len(array) == count else ""
        raise DataError(
            f"{path.name}: '{key}' has the shape {array.shape} and kind {array.dtype}, expected ({count},) of numbers or "
            f"text{several}"
        )
    values: list[Any] = array.tolist()
    return values


_NPY_HEADER_READERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

NPZ_SOURCE = Source(
    "npz",
    lambda request: open_npz(request.path, name=request.name),
    "a file with the arrays images and labels, and where known ids, groups, sites, parts and classes; or with such arrays for "
    "each official part, as MedMNIST (train_images) and Keras (x_train) name them",
    detect=lambda contents: contents.is_file_like(".npz"),
)
