"""One answer of several by each rule, against a loop over the owners."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from phoropter.core.errors import SpecError
from phoropter.results.clinical.aggregation import aggregate_probabilities, check_rule, describe_rule, needs_positive

DRAW = np.random.default_rng(1)
OWNERS = np.concatenate([np.arange(12), DRAW.integers(0, 12, 60)])
P = DRAW.dirichlet([1, 1, 1], len(OWNERS))


@pytest.mark.parametrize("rule", ["mean", "vote", "max", "top-1", "top-3", "top-9999"])
def test_each_rule_against_a_loop(rule: str) -> None:
    found = aggregate_probabilities(P, OWNERS, rule, 2)
    for owner in range(12):
        rows = P[owner == OWNERS]
        surest = sorted(rows.tolist(), key=lambda row: -row[2])
        if rule == "mean":
            expected = rows.mean(axis=0)
        elif rule == "vote":
            expected = np.array([np.mean([r.argmax() == c for r in rows]) for c in range(3)])
        else:
            expected = np.mean(surest[: {"max": 1}.get(rule) or int(rule[4:])], axis=0)
        np.testing.assert_allclose(found[owner], expected)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_tied_vote_goes_to_the_higher_mean_whatever_the_order_of_the_classes() -> None:
    """A loop over all orders of the columns: the same class is ahead in each."""
    rows = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1], [0.9, 0.05, 0.05], [0.4, 0.4, 0.2], [0.1, 0.2, 0.7]])
    owners = np.array([0, 0, 1, 1, 2, 2])
    expected = [2, 0, 2]  # means 0.3, 0.15, 0.55; 0.6, 0.325, 0.075; and of the third one vote to two halves
    for order in itertools.permutations(range(3)):
        found = aggregate_probabilities(rows[:, order], owners, "vote")
        assert [order[at] for at in found.argmax(axis=1)] == expected
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-15)
        np.testing.assert_allclose(found[:, np.argsort(order)], [[0.5, 0, 0.5], [0.5, 0.5, 0], [0.25, 0.25, 0.5]], atol=2e-9)
    untied = aggregate_probabilities(rows[[0, 0, 1]], np.zeros(3, np.int64), "vote")
    assert untied.tolist() == [[2 / 3, 0, 1 / 3]], "what is not tied is exactly the share"


def test_of_two_classes_max_is_the_highest_probability_of_the_positive_one() -> None:
    p = P[:, :2] / P[:, :2].sum(axis=1, keepdims=True)
    found = aggregate_probabilities(p, OWNERS, "max", 1)[:, 1]
    np.testing.assert_allclose(found, [p[o == OWNERS, 1].max() for o in range(12)])


def test_a_rule_that_looks_at_one_class_needs_to_know_which() -> None:
    assert [needs_positive(rule) for rule in ("mean", "vote", "max", "top-2")] == [False, False, True, True]
    with pytest.raises(SpecError, match="'top-2' looks at the probability of the positive class"):
        aggregate_probabilities(P, OWNERS, "top-2")


def test_rules_are_checked_and_described() -> None:
    assert check_rule("top-3") == "top-3" and describe_rule("top-3") == "the mean of the 3 highest probabilities"
    for wrong in ("top", "top-0", "median", "top-3 "):
        with pytest.raises(ValueError, match="is no rule; expected mean, vote, max, or top-K"):
            check_rule(wrong)
