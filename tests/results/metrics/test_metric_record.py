"""What tables and intervals read of a metric: bounds, chance, and the two ways to its derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.results.metrics import registry
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities


@pytest.mark.parametrize(
    ("name", "bounds", "chance"),
    [
        ("accuracy", (0, 1), None),
        ("roc_auc", (0, 1), 0.5),
        ("mcc", (-1, 1), 0.0),
        ("kappa", (-1, 1), 0.0),
        ("log_loss", (0, np.inf), None),
        ("ece", (0, np.inf), None),
    ],
)
def test_bounds_and_chance(name: str, bounds: tuple[float, float], chance: float | None) -> None:
    metric = registry.get_metric(name)
    assert metric.value_range == bounds and metric.chance_value(np.array([0, 1])) == chance


def test_only_names_keep_their_capital() -> None:
    assert {m.name for m in registry.METRICS.values() if m.is_proper_name} == {
        "roc_auc",
        "brier",
        "mcc",
        "kappa",
        "hamming_loss",
    }


@pytest.mark.parametrize("name", [m for m in registry.list_metrics() if m != "top5_accuracy"])
def test_unit_gradients_of_one_unit_a_row_add_up_to_nothing(name: str) -> None:
    """Weighting all rows alike leaves every metric as it is (Euler's theorem for degree 0)."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    answers = LabelledProbabilities.from_arrays(labels, softmax(random.normal(size=(90, 3)) + np.eye(3)[labels]))
    value, slopes = registry.get_metric(name).compute_unit_gradient(answers, np.arange(90), 90)
    assert value == registry.get_metric(name).compute_value(answers)
    assert slopes.any() and slopes.sum() == pytest.approx(0, abs=1e-8)


def test_rows_that_are_selected_keep_their_answers_and_are_no_copy_where_they_are_a_block() -> None:
    draw = np.random.default_rng(3)
    for labels in (draw.integers(0, 4, 30), draw.integers(0, 2, (30, 4))):  # of one class a row, and of several labels
        given = LabelledProbabilities(labels, draw.dirichlet(np.ones(4), 30))
        for rows in (np.arange(7, 19), np.array([2, 3, 5, 11]), np.array([], dtype=np.int64)):
            part, plain = given.select_rows(rows), LabelledProbabilities(labels[rows], given.probabilities[rows])
            assert np.array_equal(part.labels, plain.labels) and np.array_equal(part.probabilities, plain.probabilities)
            assert np.array_equal(part.predicted_labels, plain.predicted_labels)
            assert np.array_equal(part.label_probabilities, plain.label_probabilities)
            assert np.shares_memory(part.probabilities, given.probabilities) == (len(rows) == 12)
            if labels.ndim == 1:
                assert np.array_equal(part.confidence, plain.probabilities.max(axis=1, initial=0))
