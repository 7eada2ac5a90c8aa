"""Predictions made elsewhere → the statistics and the page of a study: `ph.compare`.

They are written as the results folder of a study that was run elsewhere, so nothing is computed in a second way.
"""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import phoropter
from phoropter.core.errors import DataError, SpecError, StoreError
from phoropter.core.files import digest, digest_array, make_temporary_folder
from phoropter.interface.results_view import Results
from phoropter.results.metrics.registry import get_metric
from phoropter.results.store import Predictions, Store

SUM_TOLERANCE = 1e-3  # how far the probabilities of a row may be from a sum of 1, for float16 and rounded tables
_DESCRIPTION = "probabilities that were given, trained elsewhere"


@dataclass(frozen=True, repr=False)
class ComparedPredictions(Results):
    """The results of `compare`. Their folder is a temporary one that is removed with them, unless one was named."""

    is_temporary: bool = False

    def report(self, path: Path | str | None = None, *, sections: Sequence[Any] = ()) -> Path:
        """Writes the page and its tables to a path, which must be given where no folder was. Raises SpecError, DiskError."""
        if path is None and self.is_temporary:
            raise SpecError("report: the results are in a temporary folder, so say where the page goes: .report('page.html')")
        return super().report(path, sections=sections)


@dataclass(frozen=True, eq=False)
class _GivenRows:
    """Rows with known labels: (n,) each; fold holds 0..F-1. positive: of two classes the last, where the caller ordered them."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]
    groups: NDArray[np.str_] | None
    fold: NDArray[np.int64]
    positive: str | None = None

    @cached_property
    def n_folds(self) -> int:
        return int(self.fold.max()) + 1


def compare_predictions(
    y: ArrayLike,
    probabilities: Mapping[str, ArrayLike],
    *,
    groups: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    classes: Sequence[Any] | None = None,
    metrics: Sequence[str] = ("accuracy",),
    folder: Path | str | None = None,
) -> ComparedPredictions:
    """Compares classifiers by their predictions on the same rows, with the statistics and the page of a study.

    y:             (n,) labels of any kind
    probabilities: name → (n, C), rows that sum to 1, columns in the order of `classes`; of two also (n,), that of the last class
    groups:        (n,) subject, patient, recording of each row; rows of one group are not independent
    folds:         (n,) in which fold each row was held out, one model trained for each; None: one test set, one model each
    ids:           (n,) unique names of the rows (default: their numbers)
    classes:       C labels in the order of the columns (default: those of y, sorted); of two, the last is the positive one
    metrics:       names as in a study file; the first one ranks
    folder:        a new results folder to keep them in

    Raises DataError for arrays that do not fit, SpecError for an unknown metric, StoreError for a folder that is in use.
    """
    for name in metrics:
        get_metric(name)
    rows = _read_rows(y, groups, folds, ids, classes)
    if not probabilities:
        raise DataError("probabilities is empty: expected a name and an (n, C) array for each classifier")
    given = {str(name): _read_probabilities(str(name), p, rows) for name, p in probabilities.items()}
    compared = _make_results(folder)
    store = compared.store
    if (store.folder / "study.json").exists():
        raise StoreError(f"{store.folder} holds the results of another study: name a new folder")
    plan = [_plan_run(name, p, fold, rows) for name, p in given.items() for fold in range(rows.n_folds)]
    store.write_study(_describe_rows(rows, list(given), list(metrics), plan, folds is not None))
    for item in plan:
        with store.hold_lease(item["key"]), store.create_run(item["key"]) as run:
            held_out = np.flatnonzero(rows.fold == item["fold"])
            run.write_predictions(_select_predictions(rows, given[item["candidate"]], held_out))
            run.write_record(_describe_item(item, rows))
    return compared


def _make_results(folder: Path | str | None) -> ComparedPredictions:
    if folder is not None:
        return ComparedPredictions(Store(folder))
    compared = ComparedPredictions(Store(make_temporary_folder("compare")), is_temporary=True)
    weakref.finalize(compared, shutil.rmtree, compared.store.folder, ignore_errors=True)
    return compared


compare = compare_predictions  # its public name: `ph.compare`


def _read_rows(y: Any, groups: Any, folds: Any, ids: Any, classes: Sequence[Any] | None) -> _GivenRows:
    labels = _read_column("y", y, None)
    count = len(labels)
    names = list(dict.fromkeys(classes)) if classes is not None else _sorted_labels(labels)
    place = {name: number for number, name in enumerate(names)}
    unknown = [label for label in labels if label not in place]
    if unknown:
        raise DataError(f"y holds the label {unknown[0]!r}, which is none of the classes {names}: name all of them")
    if len(names) < 2 or len({str(name) for name in names}) < len(names):
        raise DataError(f"the classes are {names}: expected at least two, with different names")
    given_ids = np.arange(count).tolist() if ids is None else _read_column("ids", ids, count)
    if len(set(map(str, given_ids))) < count:
        raise DataError("ids must be unique, but some came more than once: give each row its own")
    grouping = None if groups is None else np.array(list(map(str, _read_column("groups", groups, count))))
    given_folds = [0] * count if folds is None else _read_column("folds", folds, count)
    order = {fold: number for number, fold in enumerate(_sorted_labels(given_folds))}
    if folds is not None and len(order) < 2:
        raise DataError(f"folds holds one fold, {given_folds[0]!r}: expected at least two, or leave folds out for one test set")
    return _GivenRows(
        tuple(map(str, names)),
        np.array([place[label] for label in labels], dtype=np.int64),
        np.array(list(map(str, given_ids))),
        grouping,
        np.array([order[fold] for fold in given_folds], dtype=np.int64),
        str(names[1]) if classes is not None and len(names) == 2 else None,
    )


def _read_column(name: str, values: Any, count: int | None) -> list[Any]:
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or (count is not None and array.size != count):
        expected = "(n,) labels, at least one" if count is None else f"({count},), one for each label"
        raise DataError(f"{name} has the shape {array.shape}: expected {expected}")
    cells: list[Any] = array.tolist()
    missing = next((row for row, cell in enumerate(cells) if cell is None or cell != cell), None)
    if missing is not None:
        raise DataError(f"{name} has no value at row {missing}: leave such rows out of all arrays")
    return cells


def _sorted_labels(labels: Sequence[Any]) -> list[Any]:
    try:
        return sorted(set(labels))
    except TypeError:
        return sorted(set(labels), key=str)


def _read_probabilities(name: str, given: Any, rows: _GivenRows) -> NDArray[np.float64]:
    p = np.asarray(given, dtype=np.float64)
    if p.ndim == 1 and len(rows.classes) == 2:
        p = np.stack([1 - p, p], axis=1)
    if p.shape != (len(rows.labels), len(rows.classes)):
        raise DataError(
            f"probabilities of '{name}' have the shape {np.shape(given)}: expected ({len(rows.labels)}, {len(rows.classes)}), a "
            f"row for each label and a column for each of the classes {', '.join(rows.classes[:8])}"
        )
    wrong = np.flatnonzero(~((p >= 0) & (p <= 1)).all(axis=1) | ~(np.abs(p.sum(axis=1) - 1) <= SUM_TOLERANCE))
    if wrong.size:
        raise DataError(f"probabilities of '{name}', row {wrong[0]}: {p[wrong[0]].tolist()} are no probabilities with a sum of 1")
    return p


def _select_predictions(rows: _GivenRows, p: NDArray[np.float64], held_out: NDArray[np.int64]) -> Predictions:
    """Logarithms are logits whose softmax gives the probabilities back; float64, so that no two become equal."""
    logits = np.log(np.maximum(p[held_out], np.finfo(np.float64).tiny))
    groups = None if rows.groups is None else rows.groups[held_out]
    return Predictions(rows.ids[held_out], rows.labels[held_out], logits, groups)


def _plan_run(name: str, p: NDArray[np.float64], fold: int, rows: _GivenRows) -> dict[str, Any]:
    held_out = rows.fold == fold
    decides = [name, fold, digest_array(rows.ids[held_out]), digest_array(rows.labels[held_out]), digest_array(p[held_out])]
    n_test = int(held_out.sum())
    return {
        "key": digest(decides),
        "candidate": name,
        "seed": 0,
        "repeat": 0,
        "fold": fold,
        "folds": rows.n_folds,
        "split": f"fold {fold + 1} of {rows.n_folds}" if rows.n_folds > 1 else "test set",
        "n_train": len(rows.labels) - n_test,
        "n_test": n_test,
        "settings": {},
    }


def _describe_item(item: Mapping[str, Any], rows: _GivenRows) -> dict[str, Any]:
    split = {key: item[key] for key in ("repeat", "fold", "folds", "n_train", "n_test")}
    key = digest_array(rows.ids[rows.fold == item["fold"]])
    return {
        "key": item["key"],
        "candidate": {"name": item["candidate"], "description": f"{item['candidate']}: {_DESCRIPTION}"},
        "settings": {},
        "seed": 0,
        "split": {"name": item["split"], "key": key, "n_validation": 0, "n_external": 0, **split},
        "recipe": {},
        "classes": list(rows.classes),
        "metrics": {},
        "cost": {},
        "digests": {},
        "versions": {"phoropter": phoropter.__version__},
        "machine": {},
    }


def _describe_rows(
    rows: _GivenRows, candidates: list[str], metrics: list[str], plan: list[dict[str, Any]], is_folded: bool
) -> dict[str, Any]:
    group_word = "group-k-fold" if rows.groups is not None and _keeps_groups(rows) else "k-fold"
    split = f"{group_word} as given" if is_folded else "one test set as given"
    name = "compared predictions"
    more = (", groups=…" if rows.groups is not None else "") + (", folds=…" if is_folded else "")
    return {
        "name": name,
        "study": {"name": name, "data": {}, "protocol": {"split": split}, "candidates": candidates, "metrics": metrics},
        "dataset": {
            "name": name,
            "fingerprint": digest([digest_array(rows.ids), digest_array(rows.labels)]),
            "rows": len(rows.labels),
            "classes": list(rows.classes),
            "counts": np.bincount(rows.labels, minlength=len(rows.classes)).tolist(),
            "groups": None if rows.groups is None else len(np.unique(rows.groups)),
            "positive": rows.positive,
            "notes": ["The predictions were given; how they were made, and on which rows, is not known here."],
            "problems": [],
        },
        "given_predictions": f"phoropter.compare(y, {{{', '.join(f'{json.dumps(name)}: …' for name in candidates)}}}{more})",
        "plan": plan,
        "versions": {"phoropter": phoropter.__version__},
        "machine": {},
    }


def _keeps_groups(rows: _GivenRows) -> bool:
    """Whether every group is held out in one fold only."""
    assert rows.groups is not None
    pairs = set(zip(rows.groups.tolist(), rows.fold.tolist(), strict=True))
    return len(pairs) == len(np.unique(rows.groups))
