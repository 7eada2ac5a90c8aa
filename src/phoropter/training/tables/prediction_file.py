"""Predictions that another tool made: read from a file and matched with the rows and the splits of a study.

A file has an `id` and either `probabilities` or `logits` of (n, C) (npz), or a column for each class: `p_CLASS` or `logit_CLASS`
(of two classes one `p_CLASS` is enough). Further columns are `label`, `seed`, `repeat` and `fold`. Which of our splits a fold is,
its tested rows say and not its number, so tools may count as they like. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import find_columns
from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.data.dataset import Dataset
from phoropter.data.splits.protocol import Split
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.tables.id_table import IdTable, compare_labels, find_table_file, match_ids, read_id_table

SUM_TOLERANCE = 1e-3  # by which the probabilities of a row may miss a sum of 1: tools write them with few digits
_SMALLEST = 1e-30  # in place of a probability of 0, whose logarithm is not finite
_PLACE = ("seed", "repeat", "fold")
_PREFIXES = {"probabilities": "p_", "logits": "logit_"}  # of the column of a class, by what the file has


@dataclass(frozen=True, eq=False)
class FoldPredictions:
    """What a file says of one split. rows: (n,) of the dataset · logits: (n, C) float32, in the order of the dataset's classes"""

    rows: NDArray[np.int64]
    logits: NDArray[np.float32]

    def of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(m, C) logits of rows of the dataset, all of which are here."""
        order = np.argsort(self.rows)
        found: NDArray[np.float32] = self.logits[order[np.searchsorted(self.rows, rows, sorter=order)]]
        return found


def read_fold_predictions(table: TableSpec, dataset: Dataset, splits: list[Split], base: Path | None) -> list[FoldPredictions]:
    """The predictions for each split, in order.

    Raises DataError for ids that are unknown, missing or there twice, for labels and folds that differ from the study's, for
    values that are no probabilities, and for a file without folds where the study has several splits.
    """
    path = find_table_file(table, base)
    state = path.stat()
    found = _read_matched(path, (state.st_size, state.st_mtime_ns), tuple(table.columns.items()), _HeldDataset(dataset))
    return _assign_splits(found, dataset, splits)


class _HeldDataset:
    """A dataset as the key of a cache, by its identity in memory."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _HeldDataset) and other.dataset is self.dataset

    def __hash__(self) -> int:
        return id(self.dataset)


@dataclass(frozen=True, eq=False)
class _MatchedFile:
    """place: of the file in messages · folds: (seed, repeat, fold) as the file has them → its rows in the order of the file"""

    place: str
    folds: dict[tuple[str, ...], FoldPredictions]
    has_folds: bool


@lru_cache(maxsize=2)  # a study reads the same file once for its plan and once for each run
def _read_matched(path: Path, state: tuple[int, int], columns: tuple[tuple[str, str], ...], held: _HeldDataset) -> _MatchedFile:
    renamed, dataset = dict(columns), held.dataset
    _check_renamed(path.name, renamed, dataset.classes)
    table = read_id_table(path, renamed)
    rows = match_ids(table.ids, dataset, table.place)
    if (labels := table.find("label", renamed)) is not None:
        compare_labels([_as_text(v) for v in labels.tolist()], rows, dataset, table.place)
    logits = _read_logits(table, renamed, dataset)
    places = [c for name in _PLACE if (c := table.find(name, renamed)) is not None]
    keys = list(zip(*([_as_text(v) for v in c.tolist()] for c in places), strict=True)) if places else [()] * len(rows)
    numbers: dict[tuple[str, ...], list[int]] = {}
    for at, key in enumerate(keys):
        numbers.setdefault(key, []).append(at)
    folds = {key: FoldPredictions(rows[at], logits[at]) for key, at in numbers.items()}
    for fold in folds.values():
        _, counts = np.unique(fold.rows, return_counts=True)
        if twice := int((counts > 1).sum()):
            first = dataset.ids[np.unique(fold.rows)[counts > 1][0]]
            hint = "" if places else "; a row that is tested in several repeats needs a column `repeat` or `seed`"
            ids = "1 id comes" if twice == 1 else f"{twice:,} ids come"
            raise DataError(f"{table.place}: {ids} more than once in a fold ({first}); keep one row of each{hint}")
    return _MatchedFile(table.place, folds, table.find("fold", renamed) is not None)


def _check_renamed(place: str, renamed: Mapping[str, str], classes: tuple[str, ...]) -> None:
    """Raises DataError for a name of ours that no column of predictions has, which would rename nothing."""
    known = ["id", "label", *_PLACE, "probabilities", "logits", *(p + c for p in _PREFIXES.values() for c in classes)]
    for ours in renamed:
        if ours not in known:
            words = f"id, label, {', '.join(_PLACE)}, p_CLASS, logit_CLASS, probabilities or logits"
            raise DataError(f"{place}: columns names '{ours}', and predictions have {words}{did_you_mean(ours, known)}")


def _as_text(value: object) -> str:
    """A cell as text; 1.0 is 1, as tools write whole numbers beside missing ones."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _read_logits(table: IdTable, renamed: Mapping[str, str], dataset: Dataset) -> NDArray[np.float32]:
    """(n, C) logits, of probabilities their logarithms. Raises DataError."""
    for kind, prefix in _PREFIXES.items():
        values = _find_values(table, renamed, dataset.classes, kind, prefix)
        if values is None:
            continue
        bad = ~np.isfinite(values).all(axis=1)
        what = "finite numbers"
        if kind == "probabilities":
            what = "probabilities: numbers from 0 to 1 with a sum of 1"
            bad |= (values < 0).any(axis=1) | (values > 1).any(axis=1) | (np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE)
            values = np.log(np.maximum(values, _SMALLEST))
        if bad.any():
            first = table.ids[np.flatnonzero(bad)[0]]
            rows = "1 row is" if bad.sum() == 1 else f"{int(bad.sum()):,} rows are"
            raise DataError(f"{table.place}: {rows} no {what} (row {first}); mend the file")
        return values.astype(np.float32)
    names = ", ".join(f"p_{c}" for c in dataset.classes[:4])
    raise DataError(
        f"{table.place} has no predictions: expected columns {names}, or logit_… in their place (in an npz an array "
        f"`probabilities` or `logits`); it has {join_words(table.columns)}; name them with columns: {{p_CLASS: NAME}}"
    )


def _find_values(
    table: IdTable, renamed: Mapping[str, str], classes: tuple[str, ...], kind: str, prefix: str
) -> NDArray[np.float64] | None:
    """(n, C) values of one kind; None where the file has none of them. Raises DataError where it has some."""
    whole = table.columns.get(renamed.get(kind, kind))
    if whole is not None and whole.ndim == 2:
        return _order_classes(table, whole, classes)
    header, wanted = list(table.columns), [prefix + c for c in classes]
    exact = {ours: ours for ours in wanted if ours in header}  # classes may differ in capitals alone
    places = find_columns(table.place, header, wanted, exact | {k: v for k, v in renamed.items() if k in wanted})
    if len(set(places.values())) < len(places):
        raise DataError(f"{table.place}: one column would be of two classes; expected a column for each: {join_words(wanted)}")
    there = [header[places[ours]] if ours in places else None for ours in wanted]
    if not any(there):
        return None
    if kind == "probabilities" and len(classes) == 2 and there.count(None) == 1:
        known = table.parse_numbers([name for name in there if name])
        return np.concatenate([known, 1 - known] if there[0] else [1 - known, known], axis=1)
    if None in there:
        raise DataError(f"{table.place} has no column '{wanted[there.index(None)]}': expected one for each class")
    return table.parse_numbers([name for name in there if name])


def _order_classes(table: IdTable, values: NDArray[np.float64], classes: tuple[str, ...]) -> NDArray[np.float64]:
    """(n, C) values of an npz in the order of the dataset's classes: by its array `classes`, else as they are."""
    if values.shape[1] != len(classes):
        raise DataError(f"{table.place}: predictions of {values.shape[1]} classes came, and the study has {len(classes)}")
    if "classes" not in table.columns:
        return values.astype(np.float64)
    theirs = [str(c) for c in table.columns["classes"].tolist()]
    if sorted(theirs) != sorted(classes):
        raise DataError(f"{table.place}: its classes are {join_words(theirs)}, and the study's {join_words(classes)}")
    return values[:, [theirs.index(c) for c in classes]].astype(np.float64)


def _assign_splits(found: _MatchedFile, dataset: Dataset, splits: list[Split]) -> list[FoldPredictions]:
    """The fold of the file that has the rows of each split. Raises DataError where one has none, or the file has others."""
    if not found.has_folds and len(splits) > 1:
        raise DataError(
            f"{found.place} has no column 'fold', and the study has {len(splits)} splits: only a study of one split can take "
            "predictions without folds; add the fold in which each row was tested"
        )
    left: dict[bytes, list[tuple[str, ...]]] = {}  # tested rows → the folds that have them, in the order of the file
    for key, fold in found.folds.items():
        left.setdefault(np.sort(fold.rows).tobytes(), []).append(key)
    assigned = []
    for split in splits:
        external = split.external if split.external is not None else split.test[:0]
        wanted = (np.sort(rows).tobytes() for rows in (split.test, np.concatenate([split.test, external])))
        keys = next((keys for rows in wanted if (keys := left.get(rows))), None)
        if keys is None:
            raise DataError(_describe_other_folds(found, split, dataset))
        assigned.append(found.folds[keys.pop(0)])
    if count := sum(map(len, left.values())):
        words = "1 fold" if count == 1 else f"{count} folds"
        raise DataError(f"{found.place} has {words} more than the {len(splits)} splits of the study; leave them out")
    return assigned


def _describe_other_folds(found: _MatchedFile, split: Split, dataset: Dataset) -> str:
    """How the folds of the file differ from a split, in a sentence, by the fold that is most like it."""
    nearest = max(found.folds.values(), key=lambda fold: len(np.intersect1d(fold.rows, split.test)))
    missing, extra = np.setdiff1d(split.test, nearest.rows), np.setdiff1d(nearest.rows, split.test)
    counts = [
        f"{len(rows):,} {word} ({dataset.ids[rows[0]]})" for rows, word in ((missing, "missing"), (extra, "others")) if len(rows)
    ]
    if not counts:
        return (
            f"{found.place}: no fold is left for '{split.name}', which another split has the same rows as; give each a `seed` or "
            "`repeat` of its own"
        )
    return (
        f"{found.place}: no fold has the {len(split.test):,} tested rows of '{split.name}'; of the one that is most like it, "
        f"{' and '.join(counts)}. To compare on their folds, give these to the study as a folds file (protocol: {{split: file, "
        "folds_file: …}); to compare on the study's, write those with `phoropter folds` and predict again"
    )
