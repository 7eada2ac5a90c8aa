"""Probabilities of logits against torch's functions, and averages of several classifiers'."""

from __future__ import annotations

import numpy as np
import torch

from phoropter.results.metrics.probabilities import average_probabilities, to_probabilities

LOGITS = np.array([[3.0, -2.0, 0.0], [-800.0, 0.5, 700.0]])


def test_they_are_those_of_torch_without_overflow() -> None:
    given = torch.from_numpy(LOGITS)
    np.testing.assert_allclose(to_probabilities(LOGITS, False, 2.0), torch.softmax(given / 2, 1).numpy())
    np.testing.assert_allclose(to_probabilities(LOGITS, True, 2.0), torch.sigmoid(given / 2).numpy())


def test_averages_give_the_mean_of_the_probabilities_back() -> None:
    others = LOGITS[::-1]
    for several in (False, True):
        mean = to_probabilities(average_probabilities([LOGITS, others], [3, 1], several), several)
        expected = 0.75 * to_probabilities(LOGITS, several) + 0.25 * to_probabilities(others, several)
        np.testing.assert_allclose(mean, expected, atol=1e-6)
