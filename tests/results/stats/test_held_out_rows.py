"""Rows of a candidate joined over runs: their metric is the mean over runs, and derivatives of two studies meet by unit name."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.results.metrics import registry
from phoropter.results.stats.held_out_rows import HeldOutRows, paired_influences
from phoropter.results.store import Predictions


def some_predictions(rows: list[int], groups: list[str] | None, seed: int) -> Predictions:
    random = np.random.default_rng(seed)
    labels = np.array(rows) % 2
    logits = (random.normal(size=(len(rows), 2)) + 0.7 * np.eye(2)[labels]).astype(np.float32)
    return Predictions(np.array([f"r{i:02d}" for i in rows]), labels, logits, None if groups is None else np.array(groups))


def accuracy(predictions: Predictions) -> float:
    return registry.compute_metrics(["accuracy"], predictions.labels, predictions.probabilities)["accuracy"]


def test_the_metric_is_the_mean_over_runs_and_runs_without_predictions_are_left_out() -> None:
    each = [some_predictions([*range(12)], None, 0), some_predictions([*range(12, 30)], None, 1)]
    joined = HeldOutRows.from_predictions([each[0], None, each[1]])
    assert joined.units.tolist() == [f"r{i:02d}" for i in range(30)]
    assert joined.compute_influences("accuracy")[0] == pytest.approx(np.mean([accuracy(p) for p in each]))


def test_groups_are_the_units_where_rows_have_them() -> None:
    joined = HeldOutRows.from_predictions([some_predictions([0, 1, 2, 3], ["b", "a", "b", "a"], 0)])
    assert joined.units.tolist() == ["a", "b"] and joined.compute_influences("accuracy")[1].shape == (2,)


def test_derivatives_of_two_studies_are_subtracted_by_unit() -> None:
    a = HeldOutRows.from_predictions([some_predictions([0, 1, 2, 3, 4, 5], list("ccbbaa"), 0)])
    b = HeldOutRows.from_predictions([some_predictions([0, 1, 2, 3, 6, 7], list("bbccdd"), 1)])
    first, second, slopes = paired_influences("accuracy", a, b)
    by_a, by_b = (dict(zip(side.units, side.compute_influences("accuracy")[1], strict=True)) for side in (a, b))
    assert (first, second) == (a.compute_influences("accuracy")[0], b.compute_influences("accuracy")[0])
    assert slopes == pytest.approx([by_a.get(u, 0) - by_b.get(u, 0) for u in "abcd"])
