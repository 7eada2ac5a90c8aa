"""Temperature scaling on made data of known calibration."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.results.metrics import registry
from phoropter.results.metrics.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature
from phoropter.results.metrics.probabilities import softmax


def drawn(rows: int, classes: int, temperature_of_truth: float, seed: int = 0):
    """Labels drawn from the softmax of the logits / T: the very temperature that mends them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 3
    p = softmax(logits, temperature_of_truth)
    return (p.cumsum(1) > rng.random((rows, 1))).argmax(1), logits


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_temperature_is_found_again(truth):
    labels, logits = drawn(20_000, 5, truth)
    assert fit_temperature(labels, logits) == pytest.approx(truth, rel=0.04)


def test_temperature_has_the_least_loss():
    labels, logits = drawn(400, 3, 2.0)
    best = fit_temperature(labels, logits)

    def loss(t: float) -> float:
        return registry.compute_metrics(["log_loss"], labels, softmax(logits, t))["log_loss"]

    assert all(loss(best) <= loss(t) for t in np.geomspace(MIN_TEMPERATURE, MAX_TEMPERATURE, 400))


def test_scaling_mends_calibration_and_keeps_answers():
    labels, logits = drawn(5000, 4, 3.0)
    before, after = softmax(logits), softmax(logits, fit_temperature(labels, logits))
    ece = [registry.compute_metrics(["ece"], labels, p)["ece"] for p in (before, after)]
    assert ece[1] < 0.03 < 0.2 < ece[0]
    np.testing.assert_array_equal(before.argmax(1), after.argmax(1))


def test_temperature_of_perfect_and_hopeless_rows_stays_within_limits():
    labels = np.arange(20) % 2
    perfect = np.eye(2)[labels] * 1.0
    assert MIN_TEMPERATURE <= fit_temperature(labels, perfect) < 0.1
    assert fit_temperature(labels, -perfect) == pytest.approx(MAX_TEMPERATURE, rel=1e-3)


@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        (np.zeros(0, dtype=int), np.zeros((0, 2))),
        (np.array([0]), np.array([[np.inf, 0.0]])),
        (np.array([0, 1]), np.zeros((3, 2))),
    ],
)
def test_temperature_refuses_what_cannot_be_fitted(labels, logits):
    with pytest.raises(DataError, match="temperature takes"):
        fit_temperature(labels, logits)
