"""Subsets of a dataset (an official part, some classes), and groups and sites extracted from ids."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import clean_cell, parse_number
from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.folders.masks import MASKS_NOTE
from phoropter.data.labels.label_sets import keep_labels, require_both_answers

OTHER_CLASSES = "*"  # in `exclude`: every class that `classes` does not name


def keep_official_split(dataset: Dataset, part: str) -> Dataset:
    """Rows of one official part. Raises DataError when the dataset has no official parts, or not this one."""
    if dataset.parts is None:
        raise DataError(f"{dataset.name} has no official parts, but official_split: {part} was given; remove it")
    rows = np.flatnonzero(dataset.parts == part)
    if not rows.size:
        known = sorted({str(p) for p in dataset.parts if p})
        raise DataError(f"{dataset.name} has no official part '{part}'; it has {join_words(known)}")
    return dataset.note_exclusion(dataset.select_rows(rows), f"not in the official part {part}")


def keep_classes(dataset: Dataset, classes: Sequence[str] | None, exclude: Collection[str], typed_by_hand: bool) -> Dataset:
    """Rows of `classes` (None: all), in this order, without those of `exclude`; rows without a label stay.

    typed_by_hand: labels were typed row by row, so a label that is neither kept nor excluded is taken for a typing error
    Raises DataError for such a label, and for a class that the dataset does not have.
    """
    classes = None if classes is None else [find_class(name, dataset.classes) for name in classes]
    exclude = [find_class(name, dataset.classes) for name in exclude]
    _check_known_classes(dataset, classes or (), exclude)
    kept = tuple(name for name in (classes or dataset.classes) if name not in exclude)
    unlisted = [name for name in dataset.classes if name not in kept and name not in exclude]
    if unlisted and typed_by_hand and OTHER_CLASSES not in exclude:
        raise DataError(
            f"{dataset.name}: the label '{unlisted[0]}' is not in classes ({join_words(kept)}){did_you_mean(unlisted[0], kept)}; "
            f"correct it, or leave it out with exclude: ['{unlisted[0]}'] (exclude: ['{OTHER_CLASSES}'] leaves out all such)"
        )
    if kept == dataset.classes:
        return dataset
    removed = [name for name in dataset.classes if name not in kept]
    if dataset.is_multi_label:
        if len(kept) < 2:
            raise DataError(f"{dataset.name}: {join_words(kept) or 'no label'} would be left; expected two labels or more")
        notes = (*dataset.notes, *((f"left out the labels {join_words(removed, 5)}",) if removed else ()))
        return replace(dataset, classes=kept, labels=keep_labels(dataset, kept), notes=notes)
    new_label = np.array([kept.index(name) if name in kept else UNLABELLED - 1 for name in dataset.classes] + [UNLABELLED])
    labels = new_label[dataset.labels]  # UNLABELLED is -1: the last entry
    rows = np.flatnonzero(labels >= UNLABELLED)
    chosen = dataset.note_exclusion(dataset.select_rows(rows), f"of other classes ({join_words(removed, 3)})")
    out = replace(chosen, classes=kept, labels=labels[rows])
    if removed:
        out = replace(out, notes=(*out.notes, f"left out {len(dataset) - len(rows)} rows of {join_words(removed, 5)}"))
    return out


def extract_from_ids(dataset: Dataset, pattern: str, column: str) -> NDArray[np.str_]:
    """(N,) the match of the pattern's group in each id, for `group_from` and `site_from`. Raises DataError without a match."""
    if getattr(dataset, f"{column}s") is not None:
        raise DataError(f"{dataset.name} names its {column}s already, and {column}_from was given too: keep one")
    expression = re.compile(pattern)
    names = [match.group(1) if (match := expression.search(str(name))) else None for name in dataset.ids]
    if None in names:
        raise DataError(
            f"{column}_from: {pattern!r} finds no {column} in {names.count(None)} of {len(names)} ids, "
            f"the first '{dataset.ids[names.index(None)]}'; it must match every one"
        )
    return np.array(names, dtype=np.str_)


def require_two_classes(dataset: Dataset) -> None:
    """Raises DataError unless two classes have pictures, or each of several labels is there and not there."""
    if dataset.is_multi_label:
        require_both_answers(dataset)
        return
    filled = [name for name, count in zip(dataset.classes, dataset.class_counts, strict=True) if count]
    if len(filled) < 2:
        found = f"only the class '{filled[0]}' has" if filled else "no class has"
        left_out = dataset.problems
        why = f" (left out as unusable: {len(left_out):,}, the first {left_out[0]})" if left_out else ""
        taken = "".join(f"; {note}" for note in dataset.notes if MASKS_NOTE in note)  # a class may have been taken for masks
        raise DataError(f"{dataset.name}: {found} pictures{why}; expected at least two classes with pictures in each{taken}")


def find_class(name: str, known: Sequence[str]) -> str:
    """A class as the user wrote it → as the dataset spells it, where exactly one reads the same."""
    same = [other for other in known if clean_cell(other) == clean_cell(name)] if name not in known else []
    return same[0] if len(same) == 1 else name


def _check_known_classes(dataset: Dataset, classes: Sequence[str], exclude: Collection[str]) -> None:
    filled = {name for name, count in zip(dataset.classes, dataset.class_counts, strict=True) if count}
    there = f"; it has {join_words(sorted(filled))}"
    for name in classes:
        if name not in filled:
            hint = _suggest_quotes(name, filled) or did_you_mean(name, filled) or there
            raise DataError(f"classes: {dataset.name} has no pictures of '{name}'{hint}")
    for name in exclude:
        if name not in dataset.classes and name != OTHER_CLASSES:
            hint = _suggest_quotes(name, dataset.classes) or did_you_mean(name, dataset.classes) or there
            raise DataError(f"exclude: {dataset.name} has no class '{name}'{hint}")


def _suggest_quotes(name: str, known: Collection[str]) -> str:
    """A hint where a class is the same number written in another way: YAML reads 3.10 as 3.1 and 1e3 as 1000."""
    same = sorted(other for other in known if parse_number(other) == parse_number(name))
    return f"; YAML reads a name without quotes as a number: write '{same[0]}' in quotes" if same else ""
