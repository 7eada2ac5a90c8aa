"""Stated columns → numbers: numbers as they are, text as one column of 0 and 1 for each level; what is not stated is NaN."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import is_missing_word, parse_number
from phoropter.core.errors import DataError
from phoropter.core.files import digest
from phoropter.data.dataset import Dataset
from phoropter.data.metadata.stated_columns import StatedColumns, read_stated_columns
from phoropter.data.spec import DataSpec

MAX_LEVELS = 30  # of a column of text
MAX_AS_LEVELS = 10  # different numbers in a column of text, as of grades 0, 1, 2, 3+; more are a quantity
MAX_CHANCE = 1e-3  # that a column which has nothing to do with the label tells it in every row
_QUANTITY = re.compile(r"[<>≤≥~]?\s*[+-]?[0-9]+([.,][0-9]+)*\s*[^0-9\s-]*")  # a number, with a unit or a decimal comma too


@dataclass(frozen=True, eq=False)
class Metadata:
    """values: (N, D) float32, NaN where nothing is stated · names: D, `sex = f` of a level of text
    digest: of what is stated of all that the source holds; it does not depend on which rows are kept"""

    values: NDArray[np.float32]
    names: tuple[str, ...]
    digest: str


def read_metadata(data: DataSpec, base: Path | None, dataset: Dataset, columns: Sequence[str]) -> Metadata:
    """The named columns of what the dataset was opened from. base: where relative paths start

    Levels are those of the whole source. A level that no training row has is 0 in all of them, so that no classifier can give it
    a weight: what is fitted knows the levels of its training rows alone.
    Raises DataError for a column that is not there, states nothing, has too many levels, states a quantity as text, is stated to
    be infinite, must not be read (an outcome, the label) or tells the label of every row.
    """
    stated = read_stated_columns(data, base, dataset)
    found = list(dict.fromkeys(stated.find_column(name) for name in columns))
    parts, names = [], []
    for name in found:
        numbers = _parse_numbers(name, stated)
        if data.control is None:  # whose labels may be the groups or sites
            _raise_on_label(name, stated, numbers, dataset)
        values = {name: numbers} if numbers is not None else _mark_levels(name, stated)
        for title, of_keys in values.items():
            parts.append([of_keys[key] for key in stated.row_keys])
            names.append(title)
    identity = digest([[name, sorted(stated.cells[name].items())] for name in found])
    return Metadata(np.array(parts, np.float32).T.reshape(len(dataset), len(names)), tuple(names), identity)


def _parse_numbers(name: str, stated: StatedColumns) -> dict[str, float] | None:
    """Key → number, NaN where nothing is stated, which other programs write NA; None of a column of text.

    Raises DataError where nothing is stated at all, and for a quantity among whose numbers is text.
    """
    cells = stated.cells[name]
    if not any(cells.values()):
        raise DataError(f"metadata: '{name}' of {stated.place} is empty in every row; leave it out")
    numbers = {key: parse_number(text, stated.decimal_comma) if text else float("nan") for key, text in cells.items()}
    words = {number for number in numbers.values() if isinstance(number, str)}
    if not all(map(is_missing_word, words)) or not any(number == number for number in numbers.values() if number not in words):
        _raise_on_quantity(name, stated, words)
        return None
    parsed = {key: float("nan") if isinstance(number, str) else number for key, number in numbers.items()}
    if np.isinf(np.array(list(parsed.values()), np.float64).astype(np.float32)).any():
        raise DataError(f"metadata: '{name}' of {stated.place} has an infinite number; mend it, or leave it out")
    return parsed


def _raise_on_quantity(name: str, stated: StatedColumns, words: Iterable[str]) -> None:
    """Raises DataError for text that holds many different numbers: as levels they would lose their order."""
    texts = {text for text in stated.cells[name].values() if text}
    found = {text for text in texts if _QUANTITY.fullmatch(text)}
    if len(found) > MAX_AS_LEVELS:
        raise DataError(
            f"metadata: '{name}' of {stated.place} has {len(found):,} different numbers, and '{min(words)[:40]}' is none; "
            "write plain numbers without units, with nothing where one is not known, or leave it out"
        )


def _mark_levels(name: str, stated: StatedColumns) -> dict[str, dict[str, float]]:
    """`name = level` → key → 1 where the text is this level, 0 where another, NaN where nothing is stated."""
    cells = stated.cells[name]
    levels = sorted({text for text in cells.values() if text})
    if len(levels) > MAX_LEVELS:
        raise DataError(
            f"metadata: '{name}' of {stated.place} has {len(levels):,} different texts, more than {MAX_LEVELS}; group them "
            "in a column, or leave it out"
        )
    return {
        f"{name} = {level}": {key: float(text == level) if text else float("nan") for key, text in cells.items()}
        for level in levels
    }


def _raise_on_label(name: str, stated: StatedColumns, numbers: dict[str, float] | None, dataset: Dataset) -> None:
    """Raises DataError where the column tells every label: it is the label in other words, or follows from it."""
    units = [str(g) for g in dataset.groups] if dataset.groups is not None else stated.row_keys
    texts = [stated.cells[name][key] for key in stated.row_keys]
    columns = dataset.labels.T if dataset.is_multi_label else dataset.labels[None]
    for labels in columns:
        rows = zip(units, texts, labels.tolist(), stated.row_keys, strict=True)
        known = {(unit, text, label): key for unit, text, label, key in rows if text and label >= 0}
        pairs = [(text if numbers is None else numbers[key], label) for (_, text, label), key in known.items()]
        if _tells_all(pairs, ordered=numbers is not None):
            raise DataError(
                f"metadata: '{name}' of {stated.place} tells the label of every row, as an outcome or a code of the class would; "
                "leave it out, or give it as a file of features if it is known beforehand"
            )


def _tells_all(pairs: Sequence[tuple[str | float, int]], ordered: bool) -> bool:
    """Whether equal values have equal labels, and either values repeat or each label is one stretch of the ordered values.

    Of n values in L levels (or stretches) n − L repeat the label of another, by chance each at most with the share of the
    commonest label; what chance explains is no reason to refuse a column.
    """
    labels = [label for _, label in pairs]
    levels, values = set(pairs), {value for value, _ in pairs}
    if len(set(labels)) < 2 or len(levels) > len(values):  # some value has two labels
        return False
    stretches = 1 + sum(a[1] != b[1] for a, b in pairwise(sorted(levels))) if ordered else 0
    count = stretches if stretches == len(set(labels)) else len(values)
    commonest = max(labels.count(label) for label in set(labels)) / len(labels)
    return bool(commonest ** (len(labels) - count) < MAX_CHANCE)
