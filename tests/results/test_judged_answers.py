"""Which answers are right and how sure they are, of one class a row and of several labels."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.results.judged_answers import find_confused_rows, judge_answers
from phoropter.results.run_folder import Predictions


def test_of_one_class_a_row_it_is_the_likeliest() -> None:
    logits = np.log(np.array([[0.7, 0.3], [0.4, 0.6]], dtype=np.float32))
    found = judge_answers(Predictions(np.array(["a", "b"]), np.array([0, 0]), logits))
    assert found.is_right.tolist() == [True, False] and found.accuracy == 0.5 and found.predicted.tolist() == [0, 1]
    np.testing.assert_allclose(found.confidence, [0.7, 0.6], atol=1e-6)


def test_of_several_labels_a_wrong_row_is_as_sure_as_its_surest_wrong_answer() -> None:
    p = np.array([[0.9, 0.2], [0.8, 0.9], [0.4, 0.55]])
    logits = np.log(p / (1 - p)).astype(np.float32)
    found = judge_answers(Predictions(np.array(["a", "b", "c"]), np.array([[1, 0], [0, 0], [0, 0]]), logits))
    assert found.is_right.tolist() == [True, False, False] and found.accuracy == pytest.approx(3 / 6)
    np.testing.assert_allclose(found.confidence, [0.8, 0.9, 0.55], atol=1e-6)
    assert found.predicted.tolist() == [[1, 0], [1, 1], [0, 1]]


def test_the_first_rows_of_the_most_frequent_confusions() -> None:
    labels, predicted = np.array([0, 2, 0, 1, 2, 0, 2, 1]), np.array([1, 0, 1, 1, 0, 1, 1, 0])
    wrong = np.array([5, 6, 4, 0, 2, 7, 1])
    found = find_confused_rows(wrong, labels, predicted, 3, pairs=3, each=2)
    assert {pair: rows.tolist() for pair, rows in found.items()} == {(0, 1): [5, 0], (2, 0): [4, 1], (1, 0): [7]}
    assert list(found) == [(0, 1), (2, 0), (1, 0)] and find_confused_rows(wrong[:0], labels, predicted, 3, 3, 2) == {}
