"""Fits the classifier of a candidate of features on the training rows of one split, or reads its predictions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.errors import DataError, LeakageError
from phoropter.core.seeds import seed_of
from phoropter.data.dataset import Dataset
from phoropter.data.splits.protocol import Split
from phoropter.training.candidates.presets import L2_PENALTIES
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.loop.history import HistoryRow
from phoropter.training.solved_heads.logistic_regression import fit_logistic
from phoropter.training.solved_heads.problem import LogisticProblem
from phoropter.training.tables.prediction_file import FoldPredictions
from phoropter.training.tables.row_features import RowFeatures

INNER_FOLDS = 3
_SMALLEST = 1e-30  # in place of a probability of 0, whose logarithm is not finite
Rows = NDArray[np.int64]
Logits = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FittedTable:
    """predict: (m,) rows → (m, C) float32 logits · parameters: numbers that were fitted, None where nobody knows
    train_seconds: of the classifier alone · info: what the record says of it · rows: that it can predict, None for all
    history: a row an epoch of what is trained by epochs · choice: the epoch that predicts, and by what it was chosen
    device: where it was fitted
    predict_values: (m, D) features of any rows → (m, C) logits, where it is a classifier of features
    predict_other: rows of another dataset of such recordings → logits, where it is a network on samples"""

    split: Split
    predict: Callable[[Rows], Logits]
    parameters: int | None
    train_seconds: float
    info: dict[str, Any] = field(default_factory=dict)
    rows: Rows | None = None
    history: list[HistoryRow] = field(default_factory=list)
    choice: tuple[int, str] = (0, "last")
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    predict_values: Callable[[NDArray[np.float32]], Logits] | None = None
    predict_other: Callable[[Dataset, Rows], Logits] | None = None

    def can_predict(self, rows: Rows) -> bool:
        """Whether it has an answer for all of these rows."""
        return self.rows is None or bool(np.isin(rows, self.rows).all())

    def predict_held_out(self, rows: Rows) -> Logits:
        """(m,) rows → (m, C) logits. Raises LeakageError for a training row."""
        trained = np.intersect1d(rows, self.split.train)
        if len(trained):
            raise LeakageError(f"{self.split.name}: {len(trained)} rows to be tested were trained on; mend the split")
        return self.predict(rows)


def fit_table(table: TableSpec, features: RowFeatures, dataset: Dataset, split: Split) -> FittedTable:
    """Fits the classifier of a table to the training rows of a split.

    A feature that a row lacks has the median of the training rows in a logistic regression; gradient boosting learns what a
    missing one means. Raises DataError where no row that is trained on has any feature.
    """
    train = features.values[split.train]
    if not np.isfinite(train).any():
        raise DataError(f"{split.name}: no training row has a feature that could be measured; choose another baseline")
    fit = _fit_boosting if table.classifier == "gradient-boosting" else _fit_penalised
    return fit(features.values, dataset, split)


def _fit_penalised(values: NDArray[np.float32], dataset: Dataset, split: Split) -> FittedTable:
    began = time.monotonic()
    medians = measure_medians(values[split.train])
    filled = fill_missing(values, medians)
    fit = fit_logistic(filled, [LogisticProblem(dataset, split)], L2_PENALTIES, INNER_FOLDS, torch.device("cpu"))[0]
    weight, bias = fit.weight.numpy(), fit.bias.numpy()

    def predict_values(measured: NDArray[np.float32]) -> Logits:
        return np.asarray(fill_missing(measured, medians) @ weight.T + bias, dtype=np.float32)

    seconds, info = time.monotonic() - began, {"logistic": fit.info}
    return _fitted_to(values, split, predict_values, weight.size + bias.size, seconds, info)


def _fitted_to(
    values: NDArray[np.float32],
    split: Split,
    predict_values: Callable[[NDArray[np.float32]], Logits],
    parameters: int,
    seconds: float,
    info: dict[str, Any],
) -> FittedTable:
    def predict(rows: Rows) -> Logits:
        return predict_values(values[rows])

    return FittedTable(split, predict, parameters, seconds, info, predict_values=predict_values)


def measure_medians(known: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, D) training rows → (D,) the median of each column; 0 where it has no number."""
    empty = ~np.isfinite(known).any(axis=0)
    return np.asarray(np.nanmedian(np.where(empty, np.float32(0), known), axis=0), dtype=np.float32)


def fill_missing(values: NDArray[np.float32], medians: NDArray[np.float32]) -> NDArray[np.float32]:
    """(m, D) with every NaN replaced by the median of its column, of (D,) over the training rows."""
    return np.where(np.isfinite(values), values, medians).astype(np.float32)


def _fit_boosting(values: NDArray[np.float32], dataset: Dataset, split: Split) -> FittedTable:
    from sklearn.ensemble import HistGradientBoostingClassifier

    began = time.monotonic()
    columns = np.isfinite(values[split.train]).any(axis=0)  # scikit-learn fails on a column without any number
    # Its own early stopping would draw rows at random and put people on both sides
    model = HistGradientBoostingClassifier(early_stopping=False, random_state=seed_of(split.seed, "boosting") % 2**31)
    model.fit(values[split.train][:, columns], dataset.labels[split.train])
    classes = np.asarray(model.classes_, dtype=np.int64)

    def predict_values(measured: NDArray[np.float32]) -> Logits:
        logits = np.full((len(measured), len(dataset.classes)), np.log(_SMALLEST), dtype=np.float32)
        logits[:, classes] = np.log(np.maximum(model.predict_proba(measured[:, columns]), _SMALLEST))
        return logits

    nodes = sum(len(tree.nodes) for trees in model._predictors for tree in trees)
    seconds, info = time.monotonic() - began, {"boosting": {"rounds": int(model.n_iter_)}}
    return _fitted_to(values, split, predict_values, nodes, seconds, info)


def take_predictions(table: TableSpec, found: FoldPredictions, split: Split) -> FittedTable:
    """The predictions of a file for one of the splits of a study. found: what `read_fold_predictions` found for it"""
    return FittedTable(
        split, found.of_rows, None, 0.0, {"imported": {"digest": table.digest, "rows": len(found.rows)}}, found.rows
    )
