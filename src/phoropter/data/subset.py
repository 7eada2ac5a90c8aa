"""What a study keeps of a dataset, and what its names say: an official part, some classes, groups and sites read out of ids."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.data.dataset import UNLABELLED, Dataset

OTHER_CLASSES = "*"  # in `exclude`: every class that `classes` does not name


def keep_official_split(dataset: Dataset, part: str) -> Dataset:
    """Only one official part. Raises DataError when the dataset has none, or not this one."""
    if dataset.parts is None:
        raise DataError(f"{dataset.name} has no official parts, but official_split: {part} was given; remove it")
    rows = np.flatnonzero(dataset.parts == part)
    if not rows.size:
        there = sorted({str(p) for p in dataset.parts if p})
        raise DataError(f"{dataset.name} has no official part '{part}'; it has {join_words(there)}")
    return dataset.select_rows(rows)


def keep_classes(dataset: Dataset, classes: Sequence[str] | None, exclude: Collection[str], by_hand: bool) -> Dataset:
    """Only `classes`, in this order, and none of `exclude`; rows without a label stay.

    by_hand: labels are typed row by row, so one that is neither kept nor excluded is taken for a slip of the pen and raises
    DataError. Naming a class that is not there always does.
    """
    _check_known_classes(dataset, classes or (), exclude)
    kept = tuple(name for name in (classes or dataset.classes) if name not in exclude)
    unlisted = [name for name in dataset.classes if name not in kept and name not in exclude]
    if unlisted and by_hand and OTHER_CLASSES not in exclude:
        raise DataError(
            f"{dataset.name}: the label '{unlisted[0]}' is not in classes ({join_words(kept)}){did_you_mean(unlisted[0], kept)}; "
            f"correct it, or leave it out with exclude: ['{unlisted[0]}'] (exclude: ['{OTHER_CLASSES}'] leaves out all such)"
        )
    if kept == dataset.classes:
        return dataset
    place = np.array([kept.index(name) if name in kept else UNLABELLED - 1 for name in dataset.classes] + [UNLABELLED])
    labels = place[dataset.labels]  # UNLABELLED is -1: the last place
    rows = np.flatnonzero(labels >= UNLABELLED)
    out = replace(dataset.select_rows(rows), classes=kept, labels=labels[rows])
    gone = [name for name in dataset.classes if name not in kept]
    if gone:
        out = replace(out, notes=(*out.notes, f"left out {len(dataset) - len(rows)} rows of {join_words(gone, 5)}"))
    return out


def extract_from_ids(dataset: Dataset, pattern: str, column: str) -> NDArray[np.str_]:
    """`group_from`, `site_from`: (N,) what the pattern's one group finds in each id. Raises DataError where it finds nothing."""
    if getattr(dataset, f"{column}s") is not None:
        raise DataError(f"{dataset.name} names its {column}s already, and {column}_from was given too: keep one")
    found = re.compile(pattern)
    names = [match.group(1) if (match := found.search(str(name))) else None for name in dataset.ids]
    if None in names:
        raise DataError(
            f"{column}_from: {pattern!r} finds no {column} in {names.count(None)} of {len(names)} ids, "
            f"the first '{dataset.ids[names.index(None)]}'; it must match every one"
        )
    return np.array(names, dtype=np.str_)


def require_two_classes(dataset: Dataset) -> None:
    """Raises DataError unless two classes have pictures."""
    full = [name for name, count in zip(dataset.classes, dataset.class_counts, strict=True) if count]
    if len(full) < 2:
        there = f"only the class '{full[0]}' has" if full else "no class has"
        raise DataError(f"{dataset.name}: {there} pictures; expected at least two classes with pictures in each")


def _check_known_classes(dataset: Dataset, classes: Sequence[str], exclude: Collection[str]) -> None:
    full = {name for name, count in zip(dataset.classes, dataset.class_counts, strict=True) if count}
    for name in classes:
        if name not in full:
            near = did_you_mean(name, full)
            raise DataError(
                f"classes: {dataset.name} has no pictures of '{name}'{near or f'; it has {join_words(sorted(full))}'}"
            )
    for name in exclude:
        if name not in dataset.classes and name != OTHER_CLASSES and (near := did_you_mean(name, dataset.classes)):
            raise DataError(f"exclude: {dataset.name} has no class '{name}'{near}")
