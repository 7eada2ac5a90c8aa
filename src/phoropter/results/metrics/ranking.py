"""Rank-based metrics: ROC-AUC and average precision as functions of sums (sufficient_sums.py), and placements for DeLong's test.

Rows are sorted once by score. Neighbouring scores that the value does not depend on share a slot: a good classifier then has few
slots, and resampling it is cheap.

Letters: N rows · L distinct scores · S slots · B resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities, Layout, MetricSums, safe_divide


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows from the lowest score to the highest, and the distinct scores as L levels.

    order (N,) rows · level (N,) number of the distinct score of order[i] · positive (N,) of order[i] ·
    positives, negatives (L,) how many at each level
    """

    order: Ints
    level: Ints
    positive: NDArray[np.bool_]
    positives: Ints
    negatives: Ints

    @classmethod
    def from_scores(cls, positive: NDArray[np.bool_], scores: NDArray[Any]) -> Ranking:
        order = np.argsort(scores, kind="stable")
        ordered, truth = scores[order], positive[order]
        level = np.cumsum(np.diff(ordered, prepend=ordered[:1]) > 0, dtype=np.int64)
        levels = int(level[-1]) + 1 if len(level) else 0
        hits = np.bincount(level[truth], minlength=levels)
        return cls(order, level, truth, hits, np.bincount(level, minlength=levels) - hits)

    @property
    def area(self) -> float:
        """ROC-AUC: the share of (positive, negative) pairs in the right order, ties counted half; NaN where there is none."""
        return float(self.placement_values()[0].mean()) if self.negatives.sum() and self.positives.sum() else float("nan")

    def placement_values(self) -> tuple[Floats, Floats]:
        """(m,) for each positive the share of negatives below it, (n,) for each negative the share of positives above it; ties
        for half; both in the order of the rows. The means of both are the AUC (Sun & Xu 2014, V10 and V01)."""
        m, n = self.positives.sum(), self.negatives.sum()
        below = (np.cumsum(self.negatives) - self.negatives / 2) / max(n, 1)
        above = (m - np.cumsum(self.positives) + self.positives / 2) / max(m, 1)
        back = np.argsort(self.order)
        truth = self.positive[back]
        return below[self.level][back][truth], above[self.level][back][~truth]


def rank_classes(predictions: LabelledProbabilities) -> list[Ranking]:
    """One ranking for two classes (the second against the first); for more, each class against the rest; one for each label."""
    if predictions.is_multi_label:
        return [Ranking.from_scores(y == 1, p) for y, p in zip(predictions.labels.T, predictions.probabilities.T, strict=True)]
    classes = [1] if predictions.n_classes == 2 else range(predictions.n_classes)
    return [Ranking.from_scores(predictions.labels == c, predictions.probabilities[:, c]) for c in classes]


def rank_all_answers(predictions: LabelledProbabilities) -> list[Ranking]:
    """One ranking of the answers to all labels together: N · C of them, row by row."""
    return [Ranking.from_scores(predictions.labels.ravel() == 1, predictions.probabilities.ravel())]


def roc_auc_sums(predictions: LabelledProbabilities) -> MetricSums:
    """Per ranking S slots of positives, then S of negatives, ascending; neighbouring scores of one class only share a slot."""
    return _build_slot_sums(rank_classes(predictions), _assign_area_slots)


def average_precision_sums(predictions: LabelledProbabilities) -> MetricSums:
    """As `roc_auc_sums`; negatives go to the next lower score that has positives, where precision is next evaluated."""
    return _build_slot_sums(rank_classes(predictions), _assign_precision_slots)


def micro_roc_auc_sums(predictions: LabelledProbabilities) -> MetricSums:
    """As `roc_auc_sums`, of one ranking of all answers."""
    return _of_rows(_build_slot_sums(rank_all_answers(predictions), _assign_area_slots), predictions.n_classes)


def micro_average_precision_sums(predictions: LabelledProbabilities) -> MetricSums:
    """As `average_precision_sums`, of one ranking of all answers."""
    return _of_rows(_build_slot_sums(rank_all_answers(predictions), _assign_precision_slots), predictions.n_classes)


def _of_rows(sums: MetricSums, n_labels: int) -> MetricSums:
    """Sums of answers, as many to each row as there are labels, as sums of rows."""
    return replace(sums, row_index=sums.row_index // n_labels)


def _assign_area_slots(r: Ranking) -> Ints:
    kind = np.where(r.negatives == 0, 1, np.where(r.positives == 0, 2, 3))
    changes = np.diff(kind, prepend=kind[:1]) != 0
    return np.cumsum(changes | ((kind == 3) & (np.arange(len(kind)) > 0)), dtype=np.int64)


def _assign_precision_slots(r: Ranking) -> Ints:
    return np.cumsum(r.positives > 0, dtype=np.int64)


def _build_slot_sums(rankings: list[Ranking], slots: Callable[[Ranking], Ints]) -> MetricSums:
    index, rows, layout, start = [], [], [], 0
    for ranking in rankings:
        slot_of = slots(ranking)
        size = int(slot_of[-1]) + 1
        index.append(start + slot_of[ranking.level] + np.where(ranking.positive, 0, size))
        rows.append(ranking.order)
        layout.append(size)
        start += 2 * size
    return MetricSums(np.concatenate(index), np.concatenate(rows), np.ones(sum(map(len, rows))), start, tuple(layout))


def roc_auc_from_sums(sums: Floats, layout: Layout) -> Floats:
    """Mann–Whitney: the share of (positive, negative) pairs in the right order, ties counted half; mean over the rankings."""

    def ranking_auc(positives: Floats, negatives: Floats) -> Floats:
        below = np.cumsum(negatives, axis=0) - negatives / 2
        return safe_divide((positives * below).sum(axis=0), positives.sum(axis=0) * negatives.sum(axis=0))

    return np.asarray(np.mean([ranking_auc(p, n) for p, n in _split_rankings(sums, layout)], axis=0))


def roc_auc_gradient(sums: Floats, layout: Layout) -> Floats:
    """(M, 1) sums → (M,) derivatives of ROC-AUC."""
    out = []
    for p, n in _split_rankings(sums[:, 0], layout):
        m, k = p.sum(), n.sum()
        below, above = (np.cumsum(n) - n / 2) / k, (m - np.cumsum(p) + p / 2) / m
        area = (p * below).sum() / m
        out += [(below - area) / m, (above - area) / k]
    return np.concatenate(out) / len(layout)


def average_precision_from_sums(sums: Floats, layout: Layout) -> Floats:
    """Σ (step of recall) × precision from the highest score down, without interpolation; mean over the rankings."""

    def ranking_average_precision(positives: Floats, negatives: Floats) -> Floats:
        found = np.cumsum(positives[::-1], axis=0)
        precisions = safe_divide(found, found + np.cumsum(negatives[::-1], axis=0), 0.0)
        return safe_divide((positives[::-1] * precisions).sum(axis=0), found[-1])

    return np.asarray(np.mean([ranking_average_precision(p, n) for p, n in _split_rankings(sums, layout)], axis=0))


def average_precision_gradient(sums: Floats, layout: Layout) -> Floats:
    """(M, 1) sums → (M,) derivatives of average precision: a row changes every precision at or below its score."""
    out = []
    for p, n in _split_rankings(sums[:, 0], layout):
        down = p[::-1]
        found, wrong, m = np.cumsum(down), np.cumsum(n[::-1]), p.sum()
        ranked = found + wrong
        precisions = safe_divide(found, ranked, 0.0)
        by_found, by_wrong = safe_divide(down * wrong, ranked**2, 0.0), safe_divide(-down * found, ranked**2, 0.0)
        later_found, later_wrong = np.cumsum(by_found[::-1]), np.cumsum(by_wrong[::-1])  # ascending again
        area = (down * precisions).sum() / m
        out += [(precisions[::-1] - area + later_found) / m, later_wrong / m]
    return np.concatenate(out) / len(layout)


def _split_rankings(sums: Floats, layout: Layout) -> list[tuple[Floats, Floats]]:
    ends = np.cumsum(2 * np.array(layout))
    return [(sums[end - 2 * s : end - s], sums[end - s : end]) for s, end in zip(layout, ends, strict=True)]
