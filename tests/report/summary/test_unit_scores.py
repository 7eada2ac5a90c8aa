"""The ranking metric by unit: only where a unit has the rows, and the classes, that the metric needs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from phoropter.report.summary.unit_scores import UnitScores, score_units
from phoropter.results.stats.estimand import Estimand, choose_estimand


def some_rows(per_unit: list[tuple[int, int]], rounds: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """per_unit: rows of each class in each unit → labels, probabilities, names, rounds."""
    random = np.random.default_rng(0)
    labels = np.concatenate([np.repeat([0, 1], counts) for counts in per_unit])
    names = np.repeat([f"u{i}" for i in range(len(per_unit))], [sum(counts) for counts in per_unit])
    labels, names = np.tile(labels, rounds), np.tile(names, rounds)
    scores = 1 / (1 + np.exp(-random.normal(labels, 1)))
    return labels, np.stack([1 - scores, scores], 1), names, np.repeat(np.arange(rounds), len(labels) // rounds)


def estimand_of(name: str) -> Estimand:
    return choose_estimand(name, [np.array([30, 30])])


def test_an_area_needs_both_classes_and_ten_rows() -> None:
    labels, p, names, rounds = some_rows([(6, 6), (12, 0), (5, 4), (8, 4)])
    scores = score_units(estimand_of("roc_auc"), labels, p, names, rounds)
    assert set(scores.values) == {"u0", "u3"} and scores.n_left_out == 2 and scores.is_shown
    assert scores.values["u3"] == pytest.approx(roc_auc_score(labels[names == "u3"], p[names == "u3", 1]))
    assert scores.row_counts == {"u0": 12, "u1": 12, "u2": 9, "u3": 12} and np.isnan(scores.value_of("u1"))


def test_accuracy_needs_ten_rows_of_any_class() -> None:
    labels, p, names, rounds = some_rows([(6, 6), (12, 0), (5, 4)])
    assert set(score_units(estimand_of("accuracy"), labels, p, names, rounds).values) == {"u0", "u1"}


def test_ten_predictions_of_five_rows_are_not_ten_rows() -> None:
    labels, p, names, rounds = some_rows([(3, 2), (10, 10)], rounds=2)
    scores = score_units(estimand_of("accuracy"), labels, p, names, rounds)
    assert set(scores.values) == {"u1"} and scores.row_counts["u0"] == 10 and not scores.is_shown
    inside = names == "u1"
    assert scores.values["u1"] == pytest.approx(np.mean(p[inside].argmax(1) == labels[inside]))


def test_units_are_not_shown_where_most_cannot_carry_the_metric() -> None:
    counts = dict.fromkeys("abcde", 12)
    assert not UnitScores({"a": 1.0, "b": 0.5}, counts).is_shown and UnitScores({"a": 1.0, "b": 0.5, "c": 0.2}, counts).is_shown
    assert not UnitScores({"a": 1.0}, {"a": 12}).is_shown
