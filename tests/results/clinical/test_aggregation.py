"""One answer of several by each rule, against a loop over the owners."""

from __future__ import annotations

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
