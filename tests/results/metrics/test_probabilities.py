"""Probabilities of logits against torch's functions, and averages of several classifiers'."""

from __future__ import annotations

import numpy as np
import torch

from phoropter.results.metrics.probabilities import (
    MAX_TURNED_CLASSES,
    average_probabilities,
    softmax,
    sum_classes,
    to_probabilities,
)

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


def test_turned_around_they_are_those_of_row_by_row() -> None:
    """To the rounding of a sum, for few and many classes; no row at all is none."""
    draw = np.random.default_rng(0)
    for count in (1, 2, 7, 8, 9, 15, 16, 23, MAX_TURNED_CLASSES, MAX_TURNED_CLASSES + 1, 200):
        logits = draw.normal(0, 20, (33, count)).astype(np.float32)
        rows = [np.exp(row - row.max()) / sum(np.exp(row - row.max())) for row in logits.astype(np.float64) / 1.7]
        np.testing.assert_allclose(softmax(logits, 1.7), rows, rtol=1e-13, atol=0)
        assert np.array_equal(softmax(np.asfortranarray(logits)), softmax(logits)), "the layout in memory changes no bit"
        terms = draw.random((count, 40))
        np.testing.assert_allclose(sum_classes(terms), [sum(column) for column in terms.T], rtol=1e-13)
        assert softmax(logits).flags.c_contiguous and softmax(logits[:0]).shape == (0, count)
