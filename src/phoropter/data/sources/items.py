"""Datasets that give one item at a time → Dataset: torch's (and torchvision's), and Hugging Face's.

Neither package is imported. Opening one reads every item once, because only its pixels tell what it holds; after that pictures
are read from the object again when they are needed.

Left out on purpose: iterable datasets, which have no rows to name in a split.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError, join_words
from phoropter.core.files import digest
from phoropter.data.dataset import Dataset
from phoropter.data.images.decode import convert_to_rgb, turn_upright
from phoropter.data.sources.arrays import (
    OPTIONAL_COLUMNS,
    clean_column,
    convert_labels,
    describe_columns,
    make_row_ids,
    parse_parts,
)
from phoropter.data.sources.storage import hash_picture


class ItemPictures:
    """Pictures of an object that is indexed by row. column: of the picture where an item is a mapping, else None: its first part.

    digests: of each row's pixels, computed when the object was opened
    """

    def __init__(self, items: Any, column: str | None, name: str, rows: NDArray[np.int64], digests: Sequence[str]) -> None:
        self.items, self.column, self.name = items, column, name
        self.row_indices, self.row_digests = rows, list(digests)
        self._lock = threading.Lock()  # a user's dataset need not be made for several threads

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8. Raises DataError for an item that is no picture."""
        at = int(self.row_indices[row])
        with self._lock:
            item = self.items[at]
        return convert_picture(item[0 if self.column is None else self.column], f"{self.name}, row {at}")

    def digests(self, rows: NDArray[np.int64]) -> list[str]:
        """A digest of each row's pixels."""
        return [self.row_digests[int(row)] for row in rows]

    def identity(self, rows: NDArray[np.int64]) -> str:
        """A digest of the contents of these rows, in order."""
        return digest(self.digests(rows))

    def select(self, rows: NDArray[np.int64]) -> ItemPictures:
        """Only these rows, in this order."""
        return ItemPictures(self.items, self.column, self.name, self.row_indices[rows], self.digests(rows))

    def __reduce__(self) -> Any:
        try:
            pickle.dumps(self.items)
        except Exception as error:  # pickle raises whatever the object's own methods do
            raise DataError(
                f"{self.name} cannot be sent to other processes ({type(error).__name__}: {error}): define its class and its "
                "transforms in a module instead of the script, or run with jobs=1"
            ) from None
        return ItemPictures, (self.items, self.column, self.name, self.row_indices, self.row_digests)


class JoinedParts:
    """The parts of a Hugging Face `DatasetDict` as one dataset, in their order. part_names: (N,) the part of each row."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts = list(parts.values())
        self.features, self.column_names = self.parts[0].features, self.parts[0].column_names
        self.part_names = [name for name, part in parts.items() for _ in range(len(part))]
        self._stops = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._stops[-1])

    def __getitem__(self, key: int | str) -> Any:
        """A row, or the values of a column."""
        if isinstance(key, str):
            return [value for part in self.parts for value in part[key]]
        at = int(np.searchsorted(self._stops, key, side="right"))
        return self.parts[at][key - int(self._stops[at]) + len(self.parts[at])]


def from_torch(items: Any, *, name: str | None = None, **columns: Sequence[Any] | None) -> Dataset:
    """A torch `Dataset` of (picture, label) items → Dataset. Reads every item once.

    items:   `len(items)` and `items[row]` are used. A picture is a PIL Image, an (H, W[, C]) uint8 array, or a (C, H, W) tensor
             of uint8 or of float in 0..1; a label is a whole number or a word. `items.classes` names the numbers, where it exists
    columns: ids, groups, sites, parts, each N long
    Raises DataError for items of another form, normalised pictures, and pictures that differ from one reading to the next.

    >>> ph.from_torch(torchvision.datasets.CIFAR10("cifar", train=False))      # doctest: +SKIP
    """
    name = name or type(items).__name__

    def split_item(row: int) -> tuple[Any, Any]:
        item = items[row]
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise DataError(f"{name}, row {row}: the item is {type(item).__name__}, expected (picture, label)")
        return item[0], item[1]

    digests, labels = _read_all_items(split_item, _count_items(items, name), name)
    pictures = ItemPictures(items, None, name, np.arange(len(labels)), digests)
    return _make_dataset(pictures, labels, _class_names(items), columns)


def from_huggingface(
    items: Any,
    *,
    image: str | None = None,
    label: str | None = None,
    name: str | None = None,
    **columns: str | Sequence[Any] | None,
) -> Dataset:
    """A Hugging Face `datasets.Dataset`, or a `DatasetDict` of its official parts → Dataset. Reads every picture once.

    image, label: its columns, by default the only ones with the features Image and ClassLabel
    columns:      ids, groups, sites, parts: the name of a column, or N values
    Raises DataError where a column cannot be told or found.
    """
    name = name or type(items).__name__
    if isinstance(items, dict):
        items = JoinedParts(items)
        columns = {"parts": items.part_names, **columns}
    image = _find_column(items, image, "Image", ("image", "img"), name)
    label = _find_column(items, label, "ClassLabel", ("label", "labels"), name)

    def split_item(row: int) -> tuple[Any, Any]:
        item = items[row]
        return item[image], item[label]

    digests, labels = _read_all_items(split_item, _count_items(items, name), name)
    named = {key: list(items[_check_column(items, v, name)]) if isinstance(v, str) else v for key, v in columns.items()}
    pictures = ItemPictures(items, image, name, np.arange(len(labels)), digests)
    return _make_dataset(pictures, labels, getattr(items.features[label], "names", None), named)


def convert_picture(value: Any, where: str) -> NDArray[np.uint8]:
    """A PIL Image, (H, W[, C]) array or (C, H, W) tensor → (H, W, 3) uint8. Raises DataError for anything else.

    An Image that still has the EXIF orientation of its file is turned upright, as the file would be.
    """
    if isinstance(value, Image.Image):
        return np.array(convert_to_rgb(turn_upright(value, value), where))
    if hasattr(value, "detach"):  # a tensor: channels first
        array = value.detach().cpu().numpy()
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    elif isinstance(value, np.ndarray):
        array = value
    else:
        raise DataError(f"{where}: the picture is {type(value).__name__}, expected a PIL Image, an array or a tensor")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise DataError(f"{where}: the picture has the shape {value.shape}, expected (H, W[, C]), or (C, H, W) of a tensor")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"{where}: float pixels run from {low:.3g} to {high:.3g}, expected 0 to 1: remove Normalize from the transform, "
                "each backbone's own normalisation comes later"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise DataError(f"{where}: pixels are {array.dtype}, expected uint8, or float in 0..1")
    array = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return np.array(convert_to_rgb(Image.fromarray(np.ascontiguousarray(array)), where))


def _read_all_items(split_item: Callable[[int], tuple[Any, Any]], count: int, name: str) -> tuple[list[str], list[Any]]:
    """(digests of the pictures, labels). The first picture is read twice, because a random transform would make another study of
    every reading."""

    def hash_item(row: int) -> tuple[str, Any]:
        picture, label = split_item(row)
        return hash_picture(convert_picture(picture, f"{name}, row {row}")).hex(), label

    digests, labels = map(list, zip(*(hash_item(row) for row in range(count)), strict=True))
    if hash_item(0)[0] != digests[0]:
        raise DataError(
            f"{name} gives other pixels for the same row each time: pass it without random transforms, and name the augmentation "
            "in the recipe"
        )
    return digests, labels


def _make_dataset(pictures: ItemPictures, labels: list[Any], names: Any, columns: dict[str, Any]) -> Dataset:
    coded, classes = convert_labels(labels, names, pictures.name)
    text = {key: None if v is None else clean_column(v, key, pictures.name) for key, v in columns.items()}
    if unknown := sorted(set(text) - set(OPTIONAL_COLUMNS)):
        raise DataError(f"{pictures.name}: '{unknown[0]}' is no column; expected {join_words(OPTIONAL_COLUMNS)}")
    ids, groups, sites = text.get("ids"), text.get("groups"), text.get("sites")
    parts = parse_parts(text.get("parts"), pictures.name)
    return Dataset(
        name=pictures.name,
        ids=make_row_ids(len(coded)) if ids is None else ids,
        labels=coded,
        classes=classes,
        pictures=pictures,
        groups=groups,
        sites=sites,
        parts=parts,
        notes=describe_columns(coded, classes, groups, sites, parts),
    )


def _count_items(items: Any, name: str) -> int:
    try:
        count = len(items)
    except TypeError:
        raise DataError(f"{name} has no length: an iterable dataset cannot be split; pass one that is indexed by row") from None
    if count == 0:
        raise DataError(f"{name} holds no items")
    return count


def _class_names(items: Any) -> Any:
    """`classes` of a torchvision set, or of the set that a `Subset` takes its items from."""
    names = getattr(items, "classes", None)
    inner = getattr(items, "dataset", None)
    return names if names is not None or inner is None else _class_names(inner)


def _find_column(items: Any, given: str | None, feature: str, usual: tuple[str, str], name: str) -> str:
    if given is not None:
        return _check_column(items, given, name)
    found: list[str] = [column for column, kind in items.features.items() if type(kind).__name__ == feature]
    found = found or [column for column in usual if column in items.column_names]
    if len(found) != 1:
        raise DataError(
            f"{name}: {len(found)} columns are of the kind {feature} among {join_words(list(items.column_names))}: name one with "
            f"{'image' if feature == 'Image' else 'label'}=COLUMN"
        )
    return found[0]


def _check_column(items: Any, column: str, name: str) -> str:
    if column not in items.column_names:
        raise DataError(f"{name} has no column '{column}'; it has {join_words(list(items.column_names))}")
    return column
