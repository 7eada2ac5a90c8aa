"""The ranking metric by unit: only where a unit has the rows, and the classes, that the metric needs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from phoropter.report.summary.unit_scores import UnitScores, score_units
from phoropter.results.metrics.registry import compute_metrics
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities, count_answers
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


def score_named(metric: str, labels: np.ndarray, p: np.ndarray, names: np.ndarray, rounds: np.ndarray) -> UnitScores:
    """By names in place of numbers; the numbers are not in the order of the names."""
    units = sorted(set(names.tolist()), reverse=True)
    unit_of = np.array([units.index(name) for name in names.tolist()])
    return score_units(estimand_of(metric), LabelledProbabilities.from_arrays(labels, p), units, unit_of, rounds)


def test_an_area_needs_both_classes_and_ten_rows() -> None:
    labels, p, names, rounds = some_rows([(6, 6), (12, 0), (5, 4), (8, 4)])
    scores = score_named("roc_auc", labels, p, names, rounds)
    assert set(scores.values) == {"u0", "u3"} and scores.n_left_out == 2 and scores.is_shown
    assert scores.values["u3"] == pytest.approx(roc_auc_score(labels[names == "u3"], p[names == "u3", 1]))
    assert scores.row_counts == {"u0": 12, "u1": 12, "u2": 9, "u3": 12} and np.isnan(scores.value_of("u1"))


def test_accuracy_needs_ten_rows_of_any_class() -> None:
    labels, p, names, rounds = some_rows([(6, 6), (12, 0), (5, 4)])
    assert set(score_named("accuracy", labels, p, names, rounds).values) == {"u0", "u1"}


def test_ten_predictions_of_five_rows_are_not_ten_rows() -> None:
    labels, p, names, rounds = some_rows([(3, 2), (10, 10)], rounds=2)
    scores = score_named("accuracy", labels, p, names, rounds)
    assert set(scores.values) == {"u1"} and scores.row_counts["u0"] == 10 and not scores.is_shown
    inside = names == "u1"
    assert scores.values["u1"] == pytest.approx(np.mean(p[inside].argmax(1) == labels[inside]))


def test_units_are_not_shown_where_most_cannot_carry_the_metric() -> None:
    counts = dict.fromkeys("abcde", 12)
    assert not UnitScores({"a": 1.0, "b": 0.5}, counts).is_shown and UnitScores({"a": 1.0, "b": 0.5, "c": 0.2}, counts).is_shown
    assert not UnitScores({"a": 1.0}, {"a": 12}).is_shown


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "macro_f1"])
def test_scores_are_those_of_the_rows_of_each_unit_and_round(metric: str) -> None:
    labels, p, names, rounds = some_rows([(11, 14), (13, 10), (3, 4)], rounds=2)
    order = np.random.default_rng(1).permutation(len(labels))  # people's rows stand anywhere
    labels, p, names, rounds = labels[order], p[order], names[order], rounds[order]
    found = score_named(metric, labels, p, names, rounds)
    assert list(found.values) == ["u0", "u1"] and list(found.row_counts) == ["u0", "u1", "u2"]
    for unit, value in found.values.items():
        rows = [np.flatnonzero((names == unit) & (rounds == number)) for number in (0, 1)]
        of_round = [compute_metrics([metric], labels[r], p[r])[metric] for r in rows]
        assert value == pytest.approx(np.average(of_round, weights=[len(r) for r in rows]), abs=1e-15)


def test_several_labels_are_counted_for_each_unit() -> None:
    """The loss of several labels needs ten rows; the area under the curve rows with and without every label."""
    random = np.random.default_rng(3)
    labels, p = (random.random((36, 2)) < 0.5).astype(np.int64), random.random((36, 2))
    unit_of = np.repeat([1, 0], [24, 12])
    labels[unit_of == 0, 1] = 1
    rows = LabelledProbabilities.from_arrays(labels, p)
    support = [count_answers(labels, 2)]
    loss = score_units(choose_estimand("log_loss", support), rows, ("b", "a"), unit_of, np.zeros(36, dtype=np.int64))
    area = score_units(choose_estimand("micro_roc_auc", support), rows, ("b", "a"), unit_of, np.zeros(36, dtype=np.int64))
    assert loss.row_counts == {"a": 24, "b": 12} and list(loss.values) == ["a", "b"] and list(area.values) == ["a"]
    truth = np.where(labels == 1, p, 1 - p)
    assert loss.values["b"] == pytest.approx(-np.log(truth[unit_of == 0]).mean())


@pytest.mark.parametrize("metric", ["log_loss", "hamming_loss", "micro_f1"])
def test_ten_answers_of_two_rows_with_five_labels_are_not_ten_rows(metric: str) -> None:
    random = np.random.default_rng(4)
    labels, p = (random.random((42, 5)) < 0.5).astype(np.int64), random.random((42, 5))
    labels[40], labels[41] = 1, 0  # with and without every label
    unit_of = np.repeat([0, 1, 2], [20, 20, 2])
    rows = LabelledProbabilities.from_arrays(labels, p)
    estimand = choose_estimand(metric, [count_answers(labels, 5)])
    found = score_units(estimand, rows, ("a", "b", "c"), unit_of, np.zeros(42, dtype=np.int64))
    assert list(found.values) == ["a", "b"] and found.row_counts["c"] == 2
