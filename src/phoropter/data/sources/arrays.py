"""Pictures in one array → Dataset: npz files, scikit-learn's digits, arrays in memory.

Opening a file reads its labels; the pixels are read with the first picture, and again in each process that gets the dataset.
"""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, join_words
from phoropter.core.files import format_bytes
from phoropter.data.dataset import UNLABELLED, Dataset, encode_labels
from phoropter.data.source import Source
from phoropter.data.sources.folder import parse_split_name
from phoropter.data.sources.storage import ArrayPictures, LazyArray

OPTIONAL_COLUMNS = ("ids", "groups", "sites", "parts")


def open_digits() -> Dataset:
    """scikit-learn's handwritten digits: 1,797 grey pictures of 8×8 pixels by 43 writers in 10 classes (UCI, E. Alpaydin &
    C. Kaynak 1998, CC BY 4.0). Values 0..16 become 0..255. Read from the package's data file: importing it takes seconds."""
    table = _read_digits_table()
    return Dataset(
        name="digits",
        ids=np.array([f"digits/{row:04d}" for row in range(len(table))]),
        labels=table[:, -1].astype(np.int64),
        classes=tuple(str(digit) for digit in range(10)),
        pictures=ArrayPictures(LazyArray(_read_digits_images), np.arange(len(table)), "digits"),
        notes=(
            "Optical Recognition of Handwritten Digits, test part (UCI, CC BY 4.0), as packed with scikit-learn; writers unnamed",
        ),
    )


def _read_digits_table() -> NDArray[np.int64]:
    package = find_spec("sklearn")
    folder = package.submodule_search_locations[0] if package and package.submodule_search_locations else ""
    file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
    if folder and file.exists():
        with gzip.open(file, "rt", encoding="ascii") as text:
            return np.loadtxt(text, delimiter=",").astype(np.int64)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target]).astype(np.int64)


def _read_digits_images() -> NDArray[np.uint8]:
    values = _read_digits_table()[:, :-1].reshape(-1, 8, 8)
    return ((values * 255 + 8) // 16).astype(np.uint8)


def open_npz(path: Path, *, name: str | None = None) -> Dataset:
    """An .npz file with images (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4) uint8, labels (N,) whole numbers or words,
    and where known ids, groups, sites, parts (N,) and classes (C,) → Dataset. Pickled objects are not read.

    Raises DataError for a missing key, a wrong shape, or an array of objects.
    """
    shape = _read_npz_header(path)
    columns = {key: _read_npz_column(path, key, shape[0]) for key in ("labels", "ids", "groups", "sites", "parts")}
    if columns["labels"] is None:
        raise DataError(f"{path.name} has no array 'labels'; expected images (N, H, W, 3) uint8 and labels (N,)")
    named = _read_npz_array(path, "classes")
    labels, classes = convert_labels(columns["labels"], None if named is None else named.ravel().tolist(), path.name)
    images = LazyArray(_read_npz_images, path, files=(path,))
    return from_columns(name or path.stem, images, labels, classes, {k: v for k, v in columns.items() if k != "labels"})


def from_arrays(images: Any, labels: Any, *, name: str = "arrays", **columns: Sequence[Any] | None) -> Dataset:
    """Images and labels → Dataset; ids are row numbers where none are given. The images are not copied: do not change them later.

    images:  (N, H, W) grey, or (N, H, W, C) with C of 1, 3 or 4; uint8
    labels:  N whole numbers or words; None, an empty word or a negative number is a picture without a label
    columns: ids, groups, sites, parts, each N long
    Raises DataError for another shape or type, and for columns of another length.

    >>> from_arrays(np.zeros((4, 8, 8), np.uint8), ["cat", "dog", "cat", "dog"], groups=[1, 1, 2, 2]).classes
    ('cat', 'dog')
    """
    if not isinstance(images, np.ndarray):
        raise DataError(f"{name}: images are {type(images).__name__}, expected a NumPy array (N, H, W[, C]) of uint8")
    _check_image_array(images.shape, images.dtype, name)
    coded, classes = convert_labels(labels, None, name)
    if len(coded) != len(images):
        raise DataError(f"{name}: {len(coded)} labels came for {len(images)} images")
    return from_columns(
        name,
        LazyArray(_return_unchanged, images),
        coded,
        classes,
        {k: None if v is None else np.array(v).astype(str) for k, v in columns.items()},
    )


def from_columns(
    name: str,
    images: LazyArray,
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    columns: dict[str, NDArray[np.str_] | None],
) -> Dataset:
    """Pictures in an array, and columns as text → Dataset; ids are row numbers where none are given."""
    if unknown := sorted(set(columns) - set(OPTIONAL_COLUMNS)):
        raise DataError(f"{name}: '{unknown[0]}' is no column; expected {join_words(OPTIONAL_COLUMNS)}")
    ids = columns.get("ids")
    return Dataset(
        name=name,
        ids=make_row_ids(len(labels)) if ids is None else ids,
        labels=labels,
        classes=classes,
        pictures=ArrayPictures(images, np.arange(len(labels)), name),
        groups=columns.get("groups"),
        sites=columns.get("sites"),
        parts=parse_parts(columns.get("parts"), name),
    )


def make_row_ids(count: int) -> NDArray[np.str_]:
    """(N,) row numbers, all of one length."""
    width = len(str(max(0, count - 1)))
    return np.array([f"{row:0{width}d}" for row in range(count)])


def parse_parts(parts: NDArray[np.str_] | None, where: str) -> NDArray[np.str_] | None:
    """(N,) names of official parts in any usual spelling → train, val, test or ''. Raises DataError for another word."""
    if parts is None:
        return None
    found = [parse_split_name(part) if part else "" for part in parts.tolist()]
    if None in found:
        raise DataError(f"{where}: parts holds '{parts[found.index(None)]}'; expected train, val or test")
    return np.array(found, dtype=np.str_)


def convert_labels(labels: Any, classes: Iterable[Any] | None, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """N labels, as whole numbers or words, and what the numbers are called → (labels, classes).

    None, an empty word and a negative number are UNLABELLED. Raises DataError for labels that are neither, or not in `classes`.
    """
    given = labels.tolist() if hasattr(labels, "tolist") else [x.item() if hasattr(x, "item") else x for x in labels]
    names = None if classes is None else tuple(str(name) for name in classes)
    if all(label is None or type(label) is int for label in given):
        if names is None:
            return encode_labels([str(label) if label is not None and label >= 0 else None for label in given])
        numbers = np.array([UNLABELLED if label is None else max(label, UNLABELLED) for label in given], dtype=np.int64)
        if numbers.max(initial=-1) >= len(names):
            raise DataError(
                f"{where}: the label {numbers.max()} came, but 'classes' names {len(names)}: expected 0..{len(names) - 1}"
            )
        return numbers, names
    if wrong := [label for label in given if not isinstance(label, (str, bool, type(None)))]:
        raise DataError(f"{where}: a label is {wrong[0]!r} ({type(wrong[0]).__name__}), expected whole numbers or words alone")
    words = [None if label in (None, "") else str(label) for label in given]
    unknown = {word for word in words if word} - set(names or [word for word in words if word])
    if unknown:
        raise DataError(f"{where}: the label '{min(unknown)}' is not in 'classes' ({join_words(names or ())})")
    return encode_labels(words, names)


def _return_unchanged(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images


def _read_npz_header(path: Path) -> tuple[int, ...]:
    """The shape of `images`, without reading them. Raises DataError when they are no pictures or do not fit in memory."""
    import psutil

    if not path.is_file():
        raise DataError(f"{path}: there is no such file; an .npz with images (N, H, W, 3) uint8 and labels (N,) is expected")
    try:
        with zipfile.ZipFile(path) as archive, archive.open("images.npy") as file:
            read = _NPY_HEADER_READERS[np.lib.format.read_magic(file)]
            shape, _, kind = read(file)
            size = archive.getinfo("images.npy").file_size
    except KeyError:
        raise DataError(f"{path.name} has no array 'images'; expected images (N, H, W, 3) uint8 and labels (N,)") from None
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path.name} is damaged or no .npz file ({error})") from None
    _check_image_array(shape, kind, path.name)
    if size > 0.8 * psutil.virtual_memory().total:
        raise DataError(
            f"{path.name}: its images take {format_bytes(size)} unpacked, more than this machine's memory; use files or Parquet"
        )
    return tuple(int(side) for side in shape)


def _check_image_array(shape: tuple[int, ...], kind: Any, where: str) -> None:
    if kind != np.uint8:
        raise DataError(f"{where}: images are {kind}, expected uint8 in 0..255; scale and round them first")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)) or 0 in shape:
        raise DataError(f"{where}: images have the shape {shape}, expected (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4)")


def _read_npz_images(path: Path) -> NDArray[np.uint8]:
    return _read_npz_array(path, "images")  # type: ignore[return-value]


def _read_npz_array(path: Path, key: str) -> NDArray[Any] | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key] if key in arrays.files else None
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        what = "it holds pickled objects, which are not read" if "pickle" in str(error).lower() else str(error)
        raise DataError(f"{path.name}: the array '{key}' cannot be read: {what}") from None


def _read_npz_column(path: Path, key: str, count: int) -> NDArray[Any] | None:
    column = _read_npz_array(path, key)
    if column is None:
        return None
    if column.shape != (count,) or column.dtype.kind not in "iuUS":
        raise DataError(
            f"{path.name}: '{key}' has the shape {column.shape} and kind {column.dtype}, expected ({count},) of int or text"
        )
    if key == "labels" and column.dtype.kind in "iu":
        return column
    return np.char.decode(column, "utf-8") if column.dtype.kind == "S" else column.astype(np.str_)


_NPY_HEADER_READERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

NPZ_SOURCE = Source(
    "npz",
    lambda request: open_npz(request.path, name=request.name),
    "a file with the arrays images and labels, and where known ids, groups, sites, parts and classes",
    detect=lambda contents: contents.is_file_like(".npz"),
)
DIGITS_SOURCE = Source(
    "digits", lambda request: open_digits(), "`true`: scikit-learn's handwritten digits", value_type=bool, default=False
)
