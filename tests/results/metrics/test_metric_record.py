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
