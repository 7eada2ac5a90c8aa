"""Pictures in one array → Dataset: scikit-learn's digits, arrays in memory; and labels and columns of any type → names."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from importlib.util import find_spec
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import check_filled, clean_cell, describe_case_collisions, describe_missing_words, is_missing
from phoropter.core.errors import DataError, join_words
from phoropter.data.dataset import UNLABELLED, Dataset, count_classes, encode_labels, find_labelled
from phoropter.data.folders.layout import parse_split_name
from phoropter.data.labels.label_sets import convert_label_table
from phoropter.data.source import Source
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


def from_arrays(
    images: Any, labels: Any, *, name: str = "arrays", classes: Sequence[Any] | None = None, **columns: Sequence[Any] | None
) -> Dataset:
    """Images and labels → Dataset; ids are row numbers where none are given. The images are not copied: do not change them later.

    images:  (N, H, W) grey, or (N, H, W, C) with C of 1, 3 or 4; uint8
    labels:  N whole numbers or words; None, an empty word or a negative number is a picture without a label. Or (N, L) of 0 and
             1: several labels a picture, a row of -1 where they are not known
    classes: what the numbers or the L columns are called
    columns: ids, groups, sites, parts, each N long
    Raises DataError for another shape or type, and for columns of another length.

    >>> from_arrays(np.zeros((4, 8, 8), np.uint8), ["cat", "dog", "cat", "dog"], groups=[1, 1, 2, 2]).classes
    ('cat', 'dog')
    """
    if not isinstance(images, np.ndarray):
        raise DataError(f"{name}: images are {type(images).__name__}, expected a NumPy array (N, H, W[, C]) of uint8")
    check_image_array(images.shape, images.dtype, name)
    several = getattr(labels, "ndim", 1) == 2
    coded, words = convert_label_table(labels, classes, name) if several else convert_labels(labels, classes, name)
    if len(coded) != len(images):
        raise DataError(f"{name}: {len(coded)} labels came for {len(images)} images")
    return from_columns(
        name,
        LazyArray(_return_unchanged, images),
        coded,
        words,
        {key: None if values is None else clean_column(values, key, name) for key, values in columns.items()},
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
    ids, groups, sites = columns.get("ids"), columns.get("groups"), columns.get("sites")
    parts = parse_parts(columns.get("parts"), name)
    return Dataset(
        name=name,
        ids=make_row_ids(len(labels)) if ids is None else ids,
        labels=labels,
        classes=classes,
        pictures=ArrayPictures(images, np.arange(len(labels)), name),
        groups=groups,
        sites=sites,
        parts=parts,
        notes=describe_columns(labels, classes, groups, sites, parts),
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


def describe_columns(
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    groups: NDArray[np.str_] | None = None,
    sites: NDArray[np.str_] | None = None,
    parts: NDArray[np.str_] | None = None,
) -> tuple[str, ...]:
    """Notes for the reader: rows without a label or an official part, groups called `nan`, names that differ in case only."""
    known = find_labelled(labels)
    unlabelled, rows_of_class = int((~known).sum()), count_classes(labels[known], len(classes)).tolist()
    unparted = 0 if parts is None else int((parts == "").sum())
    return (
        *((f"{unlabelled:,} of {len(labels):,} rows have no label",) if unlabelled else ()),
        *((f"{unparted:,} of {len(labels):,} rows belong to no official part",) if unparted else ()),
        *describe_missing_words(chain.from_iterable(map(repeat, classes, rows_of_class)), "labels"),
        *describe_missing_words(() if groups is None else groups.tolist(), "groups"),
        *describe_missing_words(() if sites is None else sites.tolist(), "sites"),
        *describe_case_collisions(classes, "class names"),
        *describe_case_collisions(() if groups is None else groups.tolist(), "groups"),
        *describe_case_collisions(() if sites is None else sites.tolist(), "sites"),
    )


def convert_labels(labels: Any, classes: Iterable[Any] | None, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """N labels, as whole numbers or words, and what the numbers are called → (labels, classes).

    None, an empty word and a negative number are UNLABELLED. Raises DataError for labels that are neither, or not in `classes`.
    """
    given = [_clean_label(label, where) for label in (labels.tolist() if hasattr(labels, "tolist") else labels)]
    names = None if classes is None else _make_unique([clean_cell(name) for name in classes])
    numbers = [label for label in given if isinstance(label, int)]
    words = [label for label in given if isinstance(label, str)]
    if numbers and any(not _is_whole(word) for word in words):
        word = next(word for word in words if not _is_whole(word))
        raise DataError(f"{where}: a label is {numbers[0]} and another '{word}', expected whole numbers or words alone")
    if names is None or not (numbers or (words and all(map(_is_whole, words)) and not set(words) <= set(names))):
        return _encode_words([str(label) if isinstance(label, int) else label for label in given], names, where)
    coded = np.array([UNLABELLED if label is None else max(int(label), UNLABELLED) for label in given], dtype=np.int64)
    if coded.max(initial=-1) >= len(names):
        raise DataError(f"{where}: the label {coded.max()} came, but 'classes' names {len(names)}: expected 0..{len(names) - 1}")
    return coded, names


@dataclass(frozen=True)
class NamedLabels:
    """The labels of one file or part. place: its name · names: what the numbers are called, where it says so"""

    place: str
    values: Sequence[Any]
    names: Sequence[Any] | None


def join_labels(parts: Sequence[NamedLabels], where: str) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
    """(labels, classes, notes) of all parts, in order; where they number their classes differently, labels are joined by name.

    Raises DataError as `convert_labels`, and where names differ and a part says none.
    """
    known = [part for part in parts if part.names is not None]
    if all(list(part.names or ()) == list(known[0].names or ()) for part in known):  # parts without names are as the others
        return *convert_labels([v for part in parts for v in part.values], known[0].names if known else None, where), ()
    if unnamed := [part for part in parts if part.names is None]:
        raise DataError(
            f"{unnamed[0].place} does not say what its labels are called, and {known[0].place} and others number their classes "
            "differently: add the names, or store labels as words"
        )
    words: list[str | None] = []
    for part in parts:
        numbers, names = convert_labels(part.values, part.names, part.place)
        words += [names[number] if number != UNLABELLED else None for number in numbers.tolist()]
    classes = tuple(dict.fromkeys(clean_cell(name) for part in parts for name in part.names or ()))
    note = f"the files number their {len(classes)} classes differently; labels were joined by the names of the classes"
    return *encode_labels(words, classes), (note,)


def check_labels(values: Sequence[Any], parts: NDArray[np.str_] | None, locate: Callable[[int], str], on_bad_input: str) -> None:
    """Raises DataError, with counts, where only some rows of an official part have a label, unless they are kept ("skip").

    A part without any label, and a negative number, say on purpose that there is none.
    locate: row → its place in messages
    """
    if on_bad_input == "skip":
        return
    empty = np.array([value is None or clean_cell(value) == "" for value in values], dtype=bool)
    for part in [None] if parts is None else np.unique(parts).tolist():
        rows = np.arange(len(empty)) if parts is None else np.flatnonzero(parts == part)
        if 0 < (count := int(empty[rows].sum())) < len(rows):
            first = int(rows[empty[rows]][0])
            raise DataError(
                f"{locate(first)}: the label is empty here and given elsewhere ({count:,} of {len(rows):,} rows have none); give "
                "every row a label, or set on_bad_input: skip, which keeps such rows without one"
            )


def find_row_not_one_hot(table: NDArray[Any]) -> int | None:
    """The first row of an (N, C) table without a single 1 among zeros; None where each row has one, and stands for one class."""
    try:
        numbers = table.astype(np.float64)
    except (TypeError, ValueError):
        return 0
    wrong = np.flatnonzero(~(np.isin(numbers, (0, 1)).all(axis=1) & (numbers.sum(axis=1) == 1)))
    return int(wrong[0]) if wrong.size else None


def _make_unique(names: list[str]) -> tuple[str, ...]:
    """Names of classes, where two are called the same with their number: ImageNet has two called crane."""
    counts = Counter(names)
    return tuple(f"{name} #{at}" if counts[name] > 1 else name for at, name in enumerate(names))


def _clean_label(label: Any, where: str) -> int | str | None:
    """A label as a whole number or a word, None where it is missing or negative."""
    if hasattr(label, "item") and not isinstance(label, str):
        with suppress(ValueError, RuntimeError):  # arrays and tensors of several values, which are refused below
            label = label.item()
    if isinstance(label, int) and not isinstance(label, bool):
        return label if label >= 0 else None
    text = clean_cell(label) if is_missing(label) or isinstance(label, (str, bool, float, Decimal, bytes)) else None
    if text is None or (isinstance(label, (float, Decimal)) and text and not _is_whole(text)):
        raise DataError(f"{where}: a label is {label!r} ({type(label).__name__}), expected whole numbers or words")
    if isinstance(label, (float, Decimal)) and text:
        return int(text) if int(text) >= 0 else None
    return text or None


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()


def _encode_words(
    words: list[str | None], names: tuple[str, ...] | None, where: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    unknown = {word for word in words if word} - set(names or [word for word in words if word])
    if unknown:
        raise DataError(f"{where}: the label '{min(unknown)}' is not in 'classes' ({join_words(names or ())})")
    return encode_labels(words, names)


def clean_column(values: Any, column: str, where: str) -> NDArray[np.str_] | None:
    """N values of any type → (N,) names, None where all are missing.

    Raises DataError, with counts, for groups, sites or ids that are given in part.
    """
    given = values.tolist() if hasattr(values, "tolist") else list(values)
    names = [clean_cell(value) for value in given]
    if column == "parts":
        return np.array(names, dtype=np.str_) if any(names) else None
    return np.array(names, dtype=np.str_) if check_filled(names, column.removesuffix("s"), where) else None


def _return_unchanged(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images


def check_image_array(shape: tuple[int, ...], kind: Any, where: str) -> None:
    """Raises DataError unless an array of this shape and type holds pictures."""
    if kind != np.uint8:
        raise DataError(f"{where}: images are {kind}, expected uint8 in 0..255; scale and round them first")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)) or 0 in shape:
        raise DataError(f"{where}: images have the shape {shape}, expected (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4)")


DIGITS_SOURCE = Source(
    "digits", lambda request: open_digits(), "`true`: scikit-learn's handwritten digits", value_type=bool, default=False
)
