"""Ensemble selection against the optimum of the same problem, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from phoropter.training.selection.greedy_selection import BAGS, ROUNDS, Selection, count_initial, select_members

ROWS = 3000


def answer_rows(skills: dict[str, float], seed: int = 0) -> dict[str, np.ndarray]:
    """Probability of the true class of two, from independent members: the higher the skill, the higher it is."""
    draw = np.random.default_rng(seed)
    return {name: 1 / (1 + np.exp(-(skill + draw.normal(size=ROWS)))) for name, skill in skills.items()}


def select(truths: dict[str, np.ndarray], units: np.ndarray | None = None, seed: int = 0) -> Selection:
    return select_members(truths, np.arange(len(next(iter(truths.values())))) if units is None else units, seed, "fold 1 of 5")


def test_its_loss_is_that_of_the_best_weights() -> None:
    truths = answer_rows({"a": 1.0, "b": 0.8, "c": 0.2, "d": 0.9})
    matrix = np.stack([truths[name] for name in sorted(truths)])

    def loss(free: np.ndarray) -> float:
        weights = np.exp(free) / np.exp(free).sum()
        return float(-np.log(weights @ matrix).mean())

    found = select(truths)
    least = minimize(loss, np.zeros(4), method="BFGS").fun
    assert found.loss == pytest.approx(least, rel=2e-3)
    assert found.loss < min(found.member_loss.values())
    assert found.loss == pytest.approx(-np.log(sum(found.weights[name] * truths[name] for name in truths)).mean())


def test_a_member_that_is_wrong_gets_no_weight() -> None:
    found = select(answer_rows({"good": 2.0, "other": 1.8, "wrong": -2.0}))
    assert found.weights["wrong"] == 0 and found.times["wrong"] == 0
    assert sum(found.weights.values()) == pytest.approx(1)
    assert all(0 <= n <= BAGS * ROUNDS for n in found.times.values())


def test_members_alike_are_chosen_by_name_and_their_order_does_not_matter() -> None:
    truths = answer_rows({"b": 1.0})
    truths |= {"a": truths["b"].copy(), "c": truths["b"].copy()}
    found = select(truths)
    assert found.weights == {"a": 1.0, "b": 0.0, "c": 0.0}
    others = answer_rows({"x": 1.0, "y": 0.7, "z": 0.9})
    assert select(others) == select(dict(reversed(others.items())))


def test_draws_are_of_units_and_of_their_names() -> None:
    truths = answer_rows({"a": 0.4, "b": 0.4, "c": 0.4})
    assert select(truths) == select(truths)
    assert select(truths).weights != select(truths, seed=1).weights
    assert select(truths).weights != select(truths, units=np.arange(ROWS) // 100).weights


def test_one_unit_alone_is_enough() -> None:
    assert select(answer_rows({"a": 1.0, "b": -1.0}), units=np.zeros(ROWS, dtype=np.int64)).weights["a"] == 1


@pytest.mark.parametrize(("members", "first"), [(2, 1), (7, 1), (8, 2), (100, 10)])
def test_it_begins_with_the_best_few(members: int, first: int) -> None:
    assert count_initial(members) == first
