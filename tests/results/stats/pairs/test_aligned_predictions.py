"""Rows that two sets of predictions share, whatever their order."""

from __future__ import annotations

import numpy as np

from phoropter.results.stats.pairs.aligned_predictions import align_predictions, find_id_rows
from phoropter.results.store import Predictions


def sheet(ids: str, salt: int) -> Predictions:
    names = np.array(list(ids))
    labels = np.array([ord(c) % 2 for c in ids])
    logits = np.array([[salt, ord(c)] for c in ids], dtype=np.float32) / 100
    return Predictions(names, labels, logits, np.array([c.upper() for c in ids]))


def test_common_rows_in_one_order():
    a, b = sheet("dbca", 1), sheet("xbdy", 2)
    labels, units, pa, pb = align_predictions(a, b)
    assert units.tolist() == ["B", "D"] and labels.tolist() == [0, 0]
    np.testing.assert_array_equal(pa, a.probabilities[[1, 0]])
    np.testing.assert_array_equal(pb, b.probabilities[[1, 2]])


def test_equal_ids_are_left_as_they_are():
    a = sheet("cab", 1)
    assert align_predictions(a, sheet("cab", 2))[1].tolist() == ["C", "A", "B"]
    assert find_id_rows(a, np.array(["b", "a"])).tolist() == [1, 2]
