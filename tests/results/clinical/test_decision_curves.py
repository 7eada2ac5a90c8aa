"""Precision by recall against scikit-learn, net benefit against its definition in plain lines."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from phoropter.results.clinical import decision_curves as curves
from phoropter.results.stats.held_out_rows import HeldOutRows


def draw_rows(n: int = 180, rounds: int = 2) -> HeldOutRows:
    draw = np.random.default_rng(3)
    labels = np.tile(draw.random(n) < 0.3, rounds).astype(np.int64)
    p = np.round(1 / (1 + np.exp(1 - 1.3 * labels - draw.normal(size=n * rounds))), 2)  # with ties
    names = np.tile(np.arange(n).astype(str), rounds)
    repeats = np.repeat(np.arange(rounds), n)
    return HeldOutRows(labels, np.stack([1 - p, p], axis=1), names, repeats * 5 + np.tile(np.arange(n) % 5, rounds), repeats)


def test_precision_by_recall_is_scikit_learns() -> None:
    rows = draw_rows()
    expected = []
    for number in (0, 1):
        some = rows.repeats == number
        precision, recall, _ = precision_recall_curve(rows.labels[some], rows.probabilities[some, 1])
        # recall falls along scikit-learn's arrays: the last place that reaches it is the highest threshold
        expected.append([precision[np.flatnonzero(recall >= r - 1e-12)[-1]] for r in curves.RECALLS])
    np.testing.assert_allclose(curves.mean_precision_by_recall(rows, 1), np.mean(expected, axis=0))


def test_net_benefit_is_its_definition() -> None:
    rows = draw_rows()
    found = curves.compute_decision_curve(rows, 1)
    for t, benefit, everybody in zip(curves.THRESHOLDS, found.net_benefit, found.alarm_all, strict=True):
        alarmed, ill, n = rows.probabilities[:, 1] >= t, rows.labels == 1, len(rows.labels)
        assert benefit == pytest.approx((alarmed & ill).sum() / n - (alarmed & ~ill).sum() / n * t / (1 - t))
        assert everybody == pytest.approx(ill.mean() - (1 - ill.mean()) * t / (1 - t))


def test_a_class_may_be_any_column() -> None:
    rows = draw_rows()
    flipped = HeldOutRows(1 - rows.labels, rows.probabilities[:, ::-1], rows.unit_names, rows.splits, rows.repeats)
    np.testing.assert_array_equal(
        curves.compute_decision_curve(flipped, 0).net_benefit, curves.compute_decision_curve(rows, 1).net_benefit
    )
