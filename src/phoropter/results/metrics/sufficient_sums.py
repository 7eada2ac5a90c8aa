"""Sufficient sums: every metric is a function of sums over rows, so one definition serves runs, resamples and permutations.

A row (one held-out prediction) adds to a few sums: its class to the counts, its loss to a total, its score to a slot of a ranking
(ranking.py). A bootstrap only weights rows, and weighting rows weights the sums: 2,000 resamples are one sparse product
instead of 2,000 calls.

Letters: N rows · C classes · M sums · U units · B resamples.

Left out: the full C×C counts of a resample. Every metric here needs only the diagonal and the two margins; for 1,000 classes the
rest would take 16 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError

N_BINS = 15  # of the calibration error: Guo et al. 2017, "On Calibration of Modern Neural Networks", §2
TOP_K = 5
DIFFERENCE_STEP = 1e-4  # of a row, in numeric derivatives

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Layout = tuple[Any, ...]  # numbers; of a user's metric the rows themselves
PerClassFunction = Callable[[Floats, Floats, Floats], Floats]  # right, actual, predicted, each (C, B) → (C, B)
SumsFunction = Callable[[Floats, Layout], Floats]  # (M, B) → (B,)


@dataclass(frozen=True, eq=False)
class LabelledProbabilities:
    """Validated labels (N,) int64 in 0..C-1 and probabilities (N, C) float64, with columns that several metrics derive.

    Of rows with several labels, labels are (N, C) of 0 and 1, and each probability is that of its own label.
    """

    labels: Ints
    probabilities: Floats

    @classmethod
    def from_arrays(cls, labels: NDArray[Any], probabilities: NDArray[Any]) -> LabelledProbabilities:
        """Raises DataError for shapes that do not fit, labels outside the columns, and rows that are not probabilities."""
        values = np.asarray(probabilities, dtype=np.float64)
        truth = np.asarray(labels)
        if truth.ndim == 2:
            _check_label_sets(truth, values)
            return cls(truth.astype(np.int64, copy=False), values)
        if values.ndim != 2 or truth.shape != values.shape[:1]:
            raise DataError(f"metrics take labels (N,) and probabilities (N, C), not {truth.shape} and {values.shape}")
        if truth.size and not np.issubdtype(truth.dtype, np.integer):
            raise DataError(f"labels are column numbers (int64), not {truth.dtype}: look them up in the list of classes")
        if truth.size and not 0 <= truth.min() <= truth.max() < values.shape[1]:
            raise DataError(f"labels run from {truth.min()} to {truth.max()}, but there are {values.shape[1]} columns of classes")
        if truth.size and not (values.min() >= 0 and np.abs(values @ np.ones(values.shape[1]) - 1).max() < 1e-3):
            raise DataError("each row of probabilities must be at least 0 and add up to 1: pass logits through softmax first")
        return cls(truth.astype(np.int64, copy=False), values)

    @classmethod
    def join(cls, parts: Sequence[LabelledProbabilities]) -> LabelledProbabilities:
        """One after another, with the answers that were found already."""
        labels = np.concatenate([part.labels for part in parts]).astype(np.int64, copy=False)
        joined = cls(labels, np.concatenate([part.probabilities for part in parts]))
        if all("predicted_labels" in vars(part) for part in parts):
            vars(joined)["predicted_labels"] = np.concatenate([part.predicted_labels for part in parts])
        return joined

    def select_rows(self, rows: Ints) -> LabelledProbabilities:
        """Some rows by their numbers, in ascending order, with their answers: no copy where they stand side by side."""
        is_block = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
        chosen: Any = slice(int(rows[0]), int(rows[-1]) + 1) if is_block else rows
        part = LabelledProbabilities(self.labels[chosen], self.probabilities[chosen])
        vars(part)["predicted_labels"] = self.predicted_labels[chosen]  # found once for all parts, and all ways to part them
        return part

    @property
    def n_classes(self) -> int:
        return int(self.probabilities.shape[1])

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have several labels."""
        return self.labels.ndim == 2

    @cached_property
    def predicted_labels(self) -> Ints:
        """(N,) the most likely class; of equal ones the first. Of several labels (N, C), 1 above a probability of a half."""
        if self.is_multi_label:
            return (self.probabilities > 0.5).astype(np.int64)
        return np.asarray(self.probabilities.argmax(axis=1))

    @cached_property
    def confidence(self) -> Floats:
        """(N,) the probability of the most likely class, of one class a row."""
        return self.probabilities[np.arange(len(self.labels)), self.predicted_labels]

    @cached_property
    def label_probabilities(self) -> Floats:
        """(N,) the probability of the true class; of several labels (N, C) that of each true answer."""
        if self.is_multi_label:
            return np.where(self.labels == 1, self.probabilities, 1 - self.probabilities)
        return self.probabilities[np.arange(len(self.labels)), self.labels]

    @cached_property
    def support(self) -> Ints:
        """(C,) rows of each true class, or with each label."""
        return self.labels.sum(axis=0) if self.is_multi_label else np.bincount(self.labels, minlength=self.n_classes)

    @cached_property
    def answer_counts(self) -> Ints:
        """`count_answers` of these labels."""
        return count_answers(self.labels, self.n_classes)


def count_answers(labels: NDArray[Any], n_classes: int) -> Ints:
    """(C,) rows of each class, which decide what a metric can say; of several labels (2, C): rows with each label and without."""
    if labels.ndim == 2:
        return np.stack([labels.sum(axis=0), (1 - labels).sum(axis=0)]).astype(np.int64)
    return np.bincount(labels, minlength=n_classes).astype(np.int64)


def count_rows(support: Ints) -> int:
    """The rows that `count_answers` counted; of several labels, each has an answer to every label."""
    return int(support.sum() if support.ndim == 1 else support[:, 0].sum())


def _check_label_sets(truth: NDArray[Any], values: Floats) -> None:
    if values.shape != truth.shape:
        raise DataError(f"metrics of several labels take labels and probabilities (N, C), not {truth.shape} and {values.shape}")
    if truth.size and not np.isin(truth, (0, 1)).all():
        raise DataError("labels of rows that may have several are 0 and 1")
    if truth.size and not (values.min() >= 0 and values.max() <= 1):
        raise DataError("probabilities lie from 0 to 1: pass logits of several labels through the sigmoid first")


@dataclass(frozen=True, eq=False)
class MetricSums:
    """What each row adds to which of M sums: row `rows[e]` adds `values[e]` to sum `index[e]`.

    `layout` is what the function of the sums must know of their order (number of classes, slots of each ranking).
    """

    sum_index: Ints
    row_index: Ints
    values: Floats
    n_sums: int
    layout: Layout

    def total_column(self) -> Floats:
        """(M, 1) every row once."""
        return np.bincount(self.sum_index, self.values, minlength=self.n_sums).astype(np.float64)[:, None]

    def part_columns(self, parts: Ints, count: int) -> Floats:
        """(M, P) the sums of each part by itself, added in the order of its rows. parts: (N,) of each row, 0..P-1"""
        cells = self.sum_index * count + parts[self.row_index]
        sums = np.bincount(cells, self.values, minlength=self.n_sums * count).astype(np.float64)
        return sums.reshape(self.n_sums, count)

    def unit_gradient(self, gradient: Floats, units: Ints, count: int) -> Floats:
        """(M,) derivatives by the sums → (U,) derivatives by the weights of the units."""
        return np.bincount(units[self.row_index], gradient[self.sum_index] * self.values, minlength=count).astype(np.float64)

    def unit_matrix(self, units: Ints, count: int) -> Any:
        """(M, U) sparse, the rows of one unit added up; times weights (U, B) it gives the sums (M, B)."""
        from scipy.sparse import csr_array

        return csr_array((self.values, (self.sum_index, units[self.row_index])), shape=(self.n_sums, count))


# What rows add


def class_count_sums(predictions: LabelledProbabilities) -> MetricSums:
    """3C sums: rows of each class answered correctly · truly of it · predicted as it."""
    n, c = len(predictions.labels), predictions.n_classes
    if predictions.is_multi_label:
        truth, answer = predictions.labels == 1, predictions.predicted_labels == 1
        found = [np.nonzero(cells) for cells in (truth & answer, truth, answer)]
        rows, index = np.concatenate([r for r, _ in found]), np.concatenate([k * c + at for k, (_, at) in enumerate(found)])
        return MetricSums(index, rows, np.ones(len(rows)), 3 * c, (c,))
    right = np.flatnonzero(predictions.labels == predictions.predicted_labels)
    index = np.concatenate([predictions.labels[right], c + predictions.labels, 2 * c + predictions.predicted_labels])
    rows = np.concatenate([right, np.arange(n), np.arange(n)])
    return MetricSums(index, rows, np.ones(len(rows)), 3 * c, (c,))


def top_k_sums(predictions: LabelledProbabilities) -> MetricSums:
    """Whether the label is among the TOP_K most likely classes; of equal probabilities the first columns count as higher."""
    p, own = predictions.probabilities, predictions.label_probabilities[:, None]
    earlier = np.arange(predictions.n_classes)[None, :] < predictions.labels[:, None]
    ahead = (p > own).sum(axis=1) + ((p == own) & earlier).sum(axis=1)
    return sums_for_mean((ahead < TOP_K).astype(np.float64))


def log_loss_sums(predictions: LabelledProbabilities) -> MetricSums:
    """Negative log of the label's probability, clipped as scikit-learn clips it; the mean over several labels."""
    eps = np.finfo(np.float64).eps
    losses = -np.log(np.clip(predictions.label_probabilities, eps, 1 - eps))
    return sums_for_mean(losses.mean(axis=1) if predictions.is_multi_label else losses)


def brier_sums(predictions: LabelledProbabilities) -> MetricSums:
    """Brier 1950, summed over classes; half of it for two classes, as in scikit-learn. Of several labels the mean over them."""
    if predictions.is_multi_label:
        return sums_for_mean(np.square(1 - predictions.label_probabilities).mean(axis=1))
    score = np.square(predictions.probabilities).sum(axis=1) - 2 * predictions.label_probabilities + 1
    return sums_for_mean(score / 2 if predictions.n_classes == 2 else score)


def calibration_sums(predictions: LabelledProbabilities) -> MetricSums:
    """N_BINS sums of (confidence - correct), then the weight of all rows; of several labels as many sums of (p - label) each."""
    n = len(predictions.labels)
    if predictions.is_multi_label:
        c, p = predictions.n_classes, predictions.probabilities
        bins = assign_bins(p, N_BINS) + N_BINS * np.arange(c)
        index, rows = (
            np.concatenate([bins.ravel(), np.full(n, N_BINS * c)]),
            np.concatenate([np.repeat(np.arange(n), c), np.arange(n)]),
        )
        values = np.concatenate([(p - predictions.labels).ravel(), np.full(n, float(c))])
        return MetricSums(index, rows, values, N_BINS * c + 1, ())
    gap = predictions.confidence - (predictions.labels == predictions.predicted_labels)
    index = np.concatenate([assign_bins(predictions.confidence, N_BINS), np.full(n, N_BINS)])
    return MetricSums(index, np.tile(np.arange(n), 2), np.concatenate([gap, np.ones(n)]), N_BINS + 1, ())


def hamming_sums(predictions: LabelledProbabilities) -> MetricSums:
    """The share of labels that are answered wrongly."""
    return sums_for_mean((predictions.predicted_labels != predictions.labels).mean(axis=1))


def exact_match_sums(predictions: LabelledProbabilities) -> MetricSums:
    """Whether every label is answered right."""
    return sums_for_mean((predictions.predicted_labels == predictions.labels).all(axis=1).astype(np.float64))


def assign_bins(confidence: Floats, bins: int) -> Ints:
    """(N,) the number of the equal-width bin (low, high] of each confidence; 0 belongs to the first."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def sums_for_mean(values: Floats) -> MetricSums:
    n = len(values)
    index = np.repeat(np.array([0, 1]), n)
    return MetricSums(index, np.tile(np.arange(n), 2), np.concatenate([values, np.ones(n)]), 2, ())


# Functions of the sums: (M, B) and the layout → (B,)


def mean_from_sums(sums: Floats, _: Layout) -> Floats:
    return safe_divide(sums[0], sums[1])


def calibration_error_from_sums(sums: Floats, _: Layout) -> Floats:
    return safe_divide(np.abs(sums[:-1]).sum(axis=0), sums[-1])


def accuracy_from_sums(sums: Floats, layout: Layout) -> Floats:
    right, actual, _ = _split_counts(sums, layout)
    return safe_divide(right.sum(axis=0), actual.sum(axis=0))


def balanced_accuracy_from_sums(sums: Floats, layout: Layout) -> Floats:
    right, actual, _ = _split_counts(sums, layout)
    return safe_divide(safe_divide(right, actual, 0.0).sum(axis=0), (actual > 0).sum(axis=0))


def macro_average(of_class: PerClassFunction) -> SumsFunction:
    """The mean over classes that occur among labels or predictions, as scikit-learn takes it when it is given no labels."""

    def macro_from_sums(sums: Floats, layout: Layout) -> Floats:
        right, actual, predicted = _split_counts(sums, layout)
        present = (actual + predicted) > 0
        return safe_divide(np.where(present, of_class(right, actual, predicted), 0).sum(axis=0), present.sum(axis=0))

    return macro_from_sums


def weighted_average(of_class: PerClassFunction) -> SumsFunction:
    """The mean over classes, each weighted by its true rows."""

    def weighted_from_sums(sums: Floats, layout: Layout) -> Floats:
        right, actual, predicted = _split_counts(sums, layout)
        return safe_divide((of_class(right, actual, predicted) * actual).sum(axis=0), actual.sum(axis=0))

    return weighted_from_sums


def micro_f1_from_sums(sums: Floats, layout: Layout) -> Floats:
    """F1 of the answers to all labels together."""
    right, actual, predicted = (counts.sum(axis=0) for counts in _split_counts(sums, layout))
    return safe_divide(2 * right, actual + predicted, 0.0)


def precision_per_class(right: Floats, actual: Floats, predicted: Floats) -> Floats:
    return safe_divide(right, predicted, 0.0)


def recall_per_class(right: Floats, actual: Floats, predicted: Floats) -> Floats:
    return safe_divide(right, actual, 0.0)


def f1_per_class(right: Floats, actual: Floats, predicted: Floats) -> Floats:
    return safe_divide(2 * right, actual + predicted, 0.0)


def matthews_from_sums(sums: Floats, layout: Layout) -> Floats:
    """Gorodkin 2004, for C classes; 0 where one side is constant, as scikit-learn has it."""
    right, actual, predicted = _split_counts(sums, layout)
    n = actual.sum(axis=0)
    covariance = right.sum(axis=0) * n - (actual * predicted).sum(axis=0)
    spread = (n**2 - (actual**2).sum(axis=0)) * (n**2 - (predicted**2).sum(axis=0))
    return safe_divide(covariance, np.sqrt(np.maximum(spread, 0)), 0.0)


def kappa_from_sums(sums: Floats, layout: Layout) -> Floats:
    """Cohen 1960; NaN where chance alone agrees everywhere."""
    right, actual, predicted = _split_counts(sums, layout)
    n = actual.sum(axis=0)
    by_chance = (actual * predicted).sum(axis=0)
    return safe_divide(right.sum(axis=0) * n - by_chance, n**2 - by_chance)


def _split_counts(sums: Floats, layout: Layout) -> tuple[Floats, Floats, Floats]:
    c = layout[0]
    return sums[:c], sums[c : 2 * c], sums[2 * c :]


def safe_divide(a: Floats, b: Any, undefined: float = np.nan) -> Floats:
    """a / b, and `undefined` where b is 0."""
    return np.asarray(np.divide(a, b, out=np.full(np.shape(a), undefined), where=np.asarray(b) != 0))


def numeric_gradient(value: SumsFunction, sums: Floats, layout: Layout) -> Floats:
    """(M,) derivatives of a metric by each of its sums (M, 1), central differences; 0 for empty sums, which no row adds to."""
    gradient = np.zeros(len(sums))
    used = np.flatnonzero(sums[:, 0])
    for some in np.array_split(used, len(used) // 256 + 1):
        steps = np.zeros((len(sums), len(some)))
        steps[some, np.arange(len(some))] = DIFFERENCE_STEP
        gradient[some] = (value(sums + steps, layout) - value(sums - steps, layout)) / (2 * DIFFERENCE_STEP)
    return gradient
