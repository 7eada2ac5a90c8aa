"""Permutation tests against full enumeration, and their behaviour under no difference."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from phoropter.results.metrics import registry
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.stats.permutation import sign_flip_test, unit_swap_test


def two_sheets(rows: int, seed: int, better: float = 1.2, worse: float = 0.6):
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    return labels, *(softmax(rng.normal(size=(rows, 2)) + k * np.eye(2)[labels]) for k in (better, worse))


def test_sign_flip_tries_all_signs_of_few_units():
    d = np.array([0.03, 0.01, -0.02, 0.05, 0.04, 0.0])
    means = [np.mean(np.multiply(s, d)) for s in product([1, -1], repeat=6)]
    assert sign_flip_test(d).p == np.mean([abs(m) >= d.mean() - 1e-12 for m in means])


def test_sign_flip_draws_signs_of_many_units_and_is_never_0():
    d = np.random.default_rng(0).normal(0.3, 1, 60)
    found = sign_flip_test(d, seed=1)
    z = d.sum() / np.sqrt((d**2).sum())
    from scipy.stats import norm

    assert found.p == pytest.approx(2 * norm.sf(z), abs=0.01)
    assert sign_flip_test(np.ones(60)).p == 1 / 10_001
    assert repr(sign_flip_test(d, seed=1)) == repr(found)  # NaN is in it


def test_sign_flip_of_one_unit_says_so():
    assert "at least two" in sign_flip_test([0.1]).note


@pytest.mark.parametrize("name", ["macro_f1", "roc_auc"])
def test_swap_test_equals_swapping_by_hand(name):
    labels, a, b = two_sheets(24, seed=3)
    groups = np.arange(24) // 4

    def value(p):
        if name == "macro_f1":
            return f1_score(labels, p.argmax(1), average="macro")
        return roc_auc_score(labels, p)

    # for AUC the rank in its own sheet stands for the score
    sheets = [a, b] if name == "macro_f1" else [np.argsort(np.argsort(s[:, 1])) for s in (a, b)]
    drawn = []
    for swap in product([False, True], repeat=6):
        chosen = np.array(swap)[groups].reshape(-1, *[1] * (sheets[0].ndim - 1))
        drawn.append(value(np.where(chosen, sheets[1], sheets[0])) - value(np.where(chosen, sheets[0], sheets[1])))
    found = unit_swap_test(name, labels, a, b, groups)
    assert found.difference == pytest.approx(drawn[0])
    assert found.p == pytest.approx(np.mean(np.abs(drawn) >= abs(drawn[0]) - 1e-12))
    assert found.n_units == 6


def test_swap_test_within_splits_averages_them():
    labels, a, b = two_sheets(60, seed=0)
    splits = np.arange(60) // 30
    found = unit_swap_test("macro_f1", labels, a, b, np.arange(60) // 4, splits)
    each = [
        registry.compute_metrics(["macro_f1"], labels[s], a[s])["macro_f1"]
        - registry.compute_metrics(["macro_f1"], labels[s], b[s])["macro_f1"]
        for s in (splits == 0, splits == 1)
    ]
    assert found.difference == pytest.approx(np.mean(each))


def test_swap_test_of_undefined_metrics_and_one_unit_says_so():
    labels, a, b = two_sheets(20, seed=0)
    assert "needs every class" in unit_swap_test("roc_auc", np.zeros(20, dtype=int), a, b).note
    assert "at least two" in unit_swap_test("accuracy", labels, a, b, np.zeros(20)).note


def test_swap_test_keeps_its_level_under_no_difference():
    rng = np.random.default_rng(0)
    rejected = 0
    for i in range(300):
        labels, a, b = two_sheets(60, seed=int(rng.integers(1 << 30)), better=1.0, worse=1.0)
        rejected += unit_swap_test("macro_f1", labels, a, b, np.arange(60) // 5, seed=i).p <= 0.05
    assert rejected / 300 <= 0.08
