"""Lists of labels, one for each row of files that hold many pictures → 0 and 1 for each label.

    [edema, mass]   a row with these two     []   a row with none of the labels     null   a row whose labels are not known

This is what Hugging Face's `Sequence(ClassLabel)` and `Sequence(Value("string"))` keep, and a list under `label` of WebDataset's
`.json`. Where files number their labels differently, the names of the labels join them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.data.dataset import UNLABELLED, encode_label_sets
from phoropter.data.sources.arrays import NamedLabels, convert_labels


def join_label_lists(parts: Sequence[NamedLabels]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The lists of all files, in order → ((N, L) of 0 and 1, their names): in the order of the files' own names, else sorted.

    Raises DataError for a row that holds no list, and for a label that is no whole number or word, or not among the names.
    """
    given: list[list[str] | None] = []
    known: dict[str, None] = {}  # labels that a file names, whether a row has them or not
    for part in parts:
        rows, names = _name_lists(part)
        given += rows
        known |= dict.fromkeys(names if part.names is not None else ())
    others = sorted({label for labels in given for label in labels or ()} - known.keys())
    return encode_label_sets(given, [*known, *others] if known else None)


def find_first_list(values: Sequence[Any]) -> int | None:
    """The first row whose label is a list; None where none is."""
    return next((row for row, value in enumerate(values) if _is_list(value)), None)


def _name_lists(part: NamedLabels) -> tuple[list[list[str] | None], tuple[str, ...]]:
    """(the names of each row's labels, each once; None where they are not known, the names of all labels)."""
    rows = [None if value is None else _as_list(value, part.place) for value in part.values]
    _raise_on_flags([row for row in rows if row is not None], part.place)
    flat = [label for row in rows for label in row or ()]
    numbers, names = convert_labels(flat, part.names, part.place)
    if (numbers == UNLABELLED).any():
        at = int(np.flatnonzero(numbers == UNLABELLED)[0])
        raise DataError(
            f"{part.place}: a label in a list is {flat[at]!r}; leave it out, or give no list where labels are not known"
        )
    words = iter(names[number] for number in numbers.tolist())
    return [None if row is None else list(dict.fromkeys(next(words) for _ in row)) for row in rows], names


def _raise_on_flags(rows: Sequence[list[Any]], place: str) -> None:
    """Raises DataError where lists are 0 and 1 for each label, as others keep them: read as numbers, they would be two labels."""
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or not all(cell in (0, 1) for row in rows for cell in row):
        return
    repeated = next((row for row in rows if len(set(row)) < len(row)), None)
    if repeated is not None:
        raise DataError(
            f"{place}: a list of labels is {repeated[:5]}, and all lists have {len(repeated)} values of 0 and 1: they tell which "
            f"of {len(repeated)} labels a row has, and expected are the names or numbers of those that it has, as in [0, 2]"
        )


def _as_list(value: Any, place: str) -> list[Any]:
    if not _is_list(value):
        raise DataError(
            f"{place}: a label is {value!r} ({type(value).__name__}), and multi_label: true expects a list in each row, or none "
            "where its labels are not known"
        )
    return list(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1
