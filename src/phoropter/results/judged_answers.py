"""Which rows are answered right, and how sure the answers are: of one class a row, and of several labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.results.run_folder import Predictions


@dataclass(frozen=True, eq=False)
class JudgedAnswers:
    """is_right: (n,) whether a row is answered right, with all its labels · confidence: (n,) probability of the answer

    predicted: (n,) classes, or (n, C) of 0 and 1 · accuracy: the share of right answers, of several labels over rows and labels
    """

    is_right: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    predicted: NDArray[np.int64]
    accuracy: float


def judge_answers(predictions: Predictions) -> JudgedAnswers:
    """Of several labels, a wrong row is as sure as its surest wrong answer, a right row as its least sure one."""
    p, labels = predictions.probabilities, predictions.labels
    if not predictions.is_multi_label:
        predicted = predictions.logits.argmax(1)
        right = predicted == labels
        return JudgedAnswers(right, p.max(1), predicted, float(right.mean()))
    predicted = (predictions.logits > 0).astype(np.int64)
    hits, sure = predicted == labels, np.maximum(p, 1 - p)
    right = hits.all(axis=1)
    confidence = np.where(right, sure.min(axis=1), np.where(hits, 0, sure).max(axis=1))
    return JudgedAnswers(right, confidence, predicted, float(hits.mean()))


def find_confused_rows(
    wrong: NDArray[np.int64], labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int, pairs: int, each: int
) -> dict[tuple[int, int], NDArray[np.int64]]:
    """(true, predicted) class → the first `each` rows of each of the `pairs` most frequent confusions, the most frequent first.

    wrong: (w,) the rows that are answered wrong, in the order in which they are preferred · labels, predicted: (n,) classes
    """
    codes = labels[wrong] * n_classes + predicted[wrong]
    found, counts = np.unique(codes, return_counts=True)
    frequent = found[np.argsort(-counts, kind="stable")][:pairs].tolist()
    return {divmod(code, n_classes): wrong[codes == code][:each] for code in frequent}
