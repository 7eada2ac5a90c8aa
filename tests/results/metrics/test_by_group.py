"""Scores by group, and the worst of them."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.results.metrics import registry
from phoropter.results.metrics.by_group import GroupScore, find_worst_groups, score_by_group
from phoropter.results.metrics.probabilities import softmax


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "log_loss"])
def test_each_group_is_scored_on_its_own_rows(name):
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 3, 90), rng.choice(["b", "a", "c"], 90)
    p = softmax(rng.normal(size=(90, 3)))
    found = score_by_group(name, labels, p, groups)
    assert [g.group for g in found] == ["a", "b", "c"]
    for entry in found:
        own = groups == entry.group
        assert entry.n_rows == own.sum()
        assert entry.value == registry.compute_metrics([name], labels[own], p[own])[name]


def test_undefined_groups_are_nan_and_left_out_of_the_worst():
    labels = np.array([0, 1, 0, 1, 0, 0])
    p = softmax(np.random.default_rng(0).normal(size=(6, 2)))
    found = score_by_group("roc_auc", labels, p, np.array(["x", "x", "y", "y", "z", "z"]))
    assert np.isnan(found[2].value)
    assert (find_worst_groups("roc_auc", found).n_left_out, len(find_worst_groups("roc_auc", found).groups)) == (1, 2)


def scores(*values: float) -> list[GroupScore]:
    return [GroupScore(f"g{i}", v, 10) for i, v in enumerate(values)]


def test_worst_fifth_is_the_mean_of_the_lowest_values():
    found = find_worst_groups("accuracy", scores(0.9, 0.5, 0.8, 0.7, 0.95, 0.6, 0.85, 0.75, 0.99, 0.4))
    assert (found.groups[0].value, found.n_worst, found.worst_mean) == (0.4, 2, pytest.approx(0.45))


def test_worst_of_a_loss_is_the_highest():
    assert find_worst_groups("log_loss", scores(0.2, 0.9, 0.5)).groups[0].value == 0.9


def test_worst_share_has_at_least_one_group_and_none_of_none():
    assert find_worst_groups("accuracy", scores(0.5, 0.7)).n_worst == 1
    assert np.isnan(find_worst_groups("accuracy", []).worst_mean)


def test_groups_of_wrong_length_are_refused():
    with pytest.raises(DataError, match="groups has 1 entries for 2"):
        score_by_group("accuracy", np.array([0, 1]), np.full((2, 2), 0.5), np.array(["a"]))
