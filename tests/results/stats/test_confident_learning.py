"""Planted wrong labels are found; a plain loop over the definition, and cleanlab where it is installed, find the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from phoropter.results.stats.confident_learning import average_by_row, find_suspected_labels
from phoropter.results.store import Predictions


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, probabilities, planted): 600 digits, one label in fifteen replaced, answered out of fold."""
    rng = np.random.default_rng(0)
    x, y = load_digits(return_X_y=True)
    x, y = x[:600], y[:600].astype(np.int64)
    wrong = np.zeros(600, bool)
    wrong[rng.choice(600, 40, replace=False)] = True
    labels = np.where(wrong, (y + rng.integers(1, 10, 600)) % 10, y)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    return labels, cross_val_predict(model, x, labels, cv=5, method="predict_proba"), wrong


def test_planted_labels_are_found_with_few_others(planted: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, probabilities, wrong = planted
    found = find_suspected_labels(labels, probabilities)
    recall, precision = wrong[found.rows].sum() / 40, wrong[found.rows].mean()
    assert recall > 0.65 and precision > 0.7
    assert wrong[found.rows[:20]].mean() > 0.9  # the most suspicious are the surest
    assert (np.diff(found.margins) <= 0).all()


def test_the_rows_are_those_of_the_definition(planted: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, probabilities, _ = planted
    thresholds = [np.mean([p[k] for p, label in zip(probabilities, labels, strict=True) if label == k]) for k in range(10)]
    expected = set()
    for row, (p, label) in enumerate(zip(probabilities, labels, strict=True)):
        reached = [k for k in range(10) if p[k] >= thresholds[k] - 1e-6]
        if reached and (reached[0] if len(reached) == 1 else int(np.argmax(p))) != label:
            expected.add(row)
    assert set(find_suspected_labels(labels, probabilities).rows.tolist()) == expected


def test_cleanlab_agrees(planted: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    filters = pytest.importorskip("cleanlab.filter", reason="cleanlab is not installed")
    labels, probabilities, _ = planted
    mask = filters.find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    assert set(np.flatnonzero(mask)) == set(find_suspected_labels(labels, probabilities).rows.tolist())


def test_clean_labels_of_sure_answers_are_left_alone_and_absent_classes_do_no_harm() -> None:
    labels = np.array([0, 0, 1, 1])
    sure = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.2, 0.8, 0], [0.1, 0.9, 0]])
    assert len(find_suspected_labels(labels, sure).rows) == 0
    sure[0] = sure[3]
    found = find_suspected_labels(labels, sure)
    assert found.rows.tolist() == [0] and found.suggested.tolist() == [1] and found.margins.tolist() == pytest.approx([0.8])


def test_rounds_are_averaged_by_row() -> None:
    def make(ids: list[str], p: list[float], groups: list[str]) -> Predictions:
        logits = np.log(np.column_stack([1 - np.array(p), np.array(p)])).astype(np.float32)
        return Predictions(np.array(ids), np.array([0 if i == "a" else 1 for i in ids]), logits, np.array(groups))

    rows = average_by_row(
        [make(["b", "a"], [0.8, 0.4], ["y", "x"]), make(["a", "b"], [0.2, 0.6], ["x", "y"]), make(["c"], [0.5], ["z"])]
    )
    assert rows.ids.tolist() == ["a", "b", "c"] and rows.labels.tolist() == [0, 1, 1] and rows.counts.tolist() == [2, 2, 1]
    assert rows.probabilities[:, 1] == pytest.approx([0.3, 0.7, 0.5]) and rows.groups is not None
    assert rows.groups.tolist() == ["x", "y", "z"]
