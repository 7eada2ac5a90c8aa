"""The value that a metric has without information: what a candidate must clear to be called better than guessing.

It is the better of two, each taken within the parts of the estimand and averaged over them, as the candidate's own value is:

    the candidate's answers in random order   each row gets the answer of a row drawn from all splits; the mean over 200 draws
    the best constant answer                  always the commonest class, or the frequencies of the classes for every row

Answers are exchanged between splits, because labels permuted within a split say nothing where a split is one person of one
class: a perfect candidate would not be better than guessing there. Labels stay in their split, and so do its frequencies.

The draws have a closed form for accuracy, recall, top-5 accuracy and average precision; AUC, MCC and kappa have a known value.
Log-loss and Brier score are proper: no random answers are better than the frequencies of the classes (Gibbs' inequality).

Left out: the calibration error. Frequencies for every row are perfectly calibrated, which no candidate can improve on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator
from phoropter.results.intervals.bootstrap import encode_names, group_rows_by_split, weighted_mean
from phoropter.results.metrics import ranking, sufficient_sums
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities

OWN_ANSWERS = "its own answers in random order"
DRAWS = 200
MAX_DRAWN_CLASSES = 50  # above, the metric of the expected counts: draws of 1,000 classes take a million counts each
MAX_CALLS, MIN_DRAWS = 2000, 20  # of a user's metric: calls over all splits, and draws in each split at least

_COUNTS = sufficient_sums.class_count_sums
_LINEAR = ("accuracy", "balanced_accuracy", "macro_recall", "weighted_recall")  # in the right answers of each class
_PROPER = (sufficient_sums.log_loss_sums, sufficient_sums.brier_sums)
PartValues = tuple[list[float], str]  # of each part, and the source


@dataclass(frozen=True)
class NoInformation:
    """value: of a predictor without information · source: that predictor in words that may follow `better than`"""

    value: float
    source: str


def value_without_information(
    name: str,
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    splits: NDArray[Any] | None = None,
    *,
    weigh_rows: bool = False,
) -> NoInformation | None:
    """Of a metric and the answers of one candidate; None where it is unknown, or the metric has no value in any split.

    labels (N,), probabilities (N, C) · splits (N,), weigh_rows: the parts within which the metric is taken before it is averaged,
    and whether they count by their rows (`Estimand.part_numbers`).
    Raises SpecError for an unknown metric and DataError for arrays that do not fit.
    """
    metric, predictions = get_metric(name), LabelledProbabilities.from_arrays(labels, probabilities)
    n = len(predictions.labels)
    rows = group_rows_by_split(np.zeros(n, dtype=np.int64) if splits is None else encode_names(splits, n, "splits"))
    parts = [predictions.select_rows(r) for r in rows]
    parts = [part for part in parts if not metric.undefined_reason(part)]
    weights = np.array([len(part.labels) if weigh_rows else 1 for part in parts])
    if not parts or metric.compute_sums is sufficient_sums.calibration_sums:
        return None
    if isinstance(metric.chance, float | int):
        return NoInformation(float(metric.chance), "chance")
    answers = [*_constant_answers(metric, parts, predictions), *_random_answers(metric, parts, predictions)]
    found = [NoInformation(weighted_mean(np.array(values), weights), source) for values, source in answers]
    known = [one for one in found if not np.isnan(one.value)]
    sign = 1 if metric.higher_is_better else -1
    return max(known, key=lambda one: sign * round(one.value, 9)) if known else None  # equal but for rounding: the constant


def _random_answers(metric: MetricRecord, parts: list[LabelledProbabilities], rows: LabelledProbabilities) -> list[PartValues]:
    """In each part, the mean over draws of answers from all rows; none for a proper score and a metric that knows its chance."""
    if metric.compute_sums in _PROPER or callable(metric.chance):
        return []
    draw = named_generator(0, "no information", metric.name)
    if rows.is_multi_label and metric.compute_sums is not ranking.average_precision_sums:
        values = _mean_of_drawn_rows(metric, parts, rows, draw)
    elif metric.compute_sums is _COUNTS:
        answered = np.bincount(rows.predicted_labels, minlength=rows.n_classes) / len(rows.labels)
        values = [_mean_of_drawn_counts(metric, part.support, answered, draw) for part in parts]
    elif metric.compute_sums is sufficient_sums.top_k_sums:
        first = np.argsort(-rows.probabilities, axis=1, kind="stable")[:, : sufficient_sums.TOP_K]
        within = np.bincount(first.ravel(), minlength=rows.n_classes) / len(rows.labels)  # how often a class is among the first
        values = [float(part.support @ within / len(part.labels)) for part in parts]
    elif metric.compute_sums is ranking.average_precision_sums:
        one_of_two = rows.n_classes == 2 and not rows.is_multi_label
        ranked = slice(1, 2) if one_of_two else slice(None)  # as ranking.rank_classes: of two classes only the second
        values = [
            float(np.mean([_expected_average_precision(int(m), len(part.labels)) for m in part.support[ranked]]))
            for part in parts
        ]
    else:
        values = _mean_of_drawn_rows(metric, parts, rows, draw)
    return [(values, OWN_ANSWERS)]


def _mean_of_drawn_counts(metric: MetricRecord, support: Ints, answered: Floats, draw: np.random.Generator) -> float:
    """Of a metric of counts. support: (C,) rows of each class · answered: (C,) how often each class is answered."""
    n_classes = len(support)
    if metric.name in _LINEAR or n_classes > MAX_DRAWN_CLASSES:
        sums = np.concatenate([support * answered, support, support.sum() * answered])[:, None]
        return float(metric.value_from_sums(sums, (n_classes,))[0])
    counts = np.stack([draw.multinomial(int(n), answered, DRAWS) for n in support])  # (C true, DRAWS, C answered)
    right = np.stack([counts[c, :, c] for c in range(n_classes)])
    sums = np.concatenate([right, np.repeat(support[:, None], DRAWS, axis=1), counts.sum(axis=0).T]).astype(np.float64)
    return float(np.nanmean(metric.value_from_sums(sums, (n_classes,))))


def _mean_of_drawn_rows(
    metric: MetricRecord, parts: list[LabelledProbabilities], rows: LabelledProbabilities, draw: np.random.Generator
) -> list[float]:
    """In each split, the metric's mean over draws of rows and their answers."""
    times = max(MIN_DRAWS, min(DRAWS, MAX_CALLS // len(parts)))

    def draw_value(part: LabelledProbabilities) -> float:
        drawn = rows.probabilities[draw.integers(0, len(rows.labels), len(part.labels))]
        return metric.compute_value(LabelledProbabilities(part.labels, drawn))

    return [float(np.mean([draw_value(part) for _ in range(times)])) for part in parts]


def _mean_random_order(positives: Ints, n: int) -> float:
    return float(np.mean([_expected_average_precision(int(m), n) for m in positives]))


def _expected_average_precision(m: int, n: int) -> float:
    """Of m positives among n rows in random order: a positive at place k has 1 + (k - 1)(m - 1)/(n - 1) positives up to it."""
    k = np.arange(1, n + 1)
    return float(((1 + (k - 1) * (m - 1) / max(n - 1, 1)) / k).mean())


def _constant_answers(metric: MetricRecord, parts: list[LabelledProbabilities], rows: LabelledProbabilities) -> list[PartValues]:
    """In each part, of the built-in metrics; a user's metric may not be defined for them, and says itself what chance reaches."""
    if callable(metric.chance):
        return [([float(metric.chance(part.labels)) for part in parts], "chance")]
    if rows.is_multi_label:
        answers = {"the frequencies of the labels for every row": rows.support / len(rows.labels)}
        if metric.compute_sums is _COUNTS:  # F1 and recall reward yes to everything
            answers["every label for every row"] = np.ones(rows.n_classes)
        return [(_constant_values(metric, parts, answer), words) for words, answer in answers.items()]
    if metric.compute_sums not in (_COUNTS, sufficient_sums.top_k_sums, *_PROPER):
        return []
    frequencies = rows.support / len(rows.labels)
    if metric.compute_sums in _PROPER:
        return [(_constant_values(metric, parts, frequencies), "the frequencies of the classes for every row")]
    # of the frequencies, the first is the commonest class
    return [(_constant_values(metric, parts, frequencies), "the majority-class baseline")]


def _constant_values(metric: MetricRecord, parts: list[LabelledProbabilities], answer: Floats) -> list[float]:
    def value_of(labels: Ints) -> float:
        return metric.compute_value(LabelledProbabilities(labels, np.broadcast_to(answer, (len(labels), len(answer)))))

    return [value_of(part.labels) for part in parts]
