"""Draws by name: the same for the same name, whoever else is there, and uniform."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from phoropter.core.seeds import hash_ids, named_generator, random_permutation, seed_of, uniform_numbers

IDS = np.array([f"picture-{i}" for i in range(5000)])


def test_a_name_gives_one_seed_and_types_count() -> None:
    assert seed_of(0, "order", 3) == seed_of(0, "order", 3)
    assert len({seed_of(0, "a"), seed_of("0", "a"), seed_of(0, "a", 0), seed_of(0, "b"), seed_of("0a")}) == 5
    assert 0 <= seed_of("x") < 2**63


def test_a_generator_is_its_name() -> None:
    assert named_generator(1, "x").random() == named_generator(1, "x").random() != named_generator(2, "x").random()


def test_a_draw_does_not_depend_on_who_else_is_drawn() -> None:
    hashes = hash_ids(IDS)
    all_of_them = uniform_numbers(hashes, 3, 0, "flip", 7)
    some = np.array([4, 17, 4999])
    np.testing.assert_array_equal(uniform_numbers(hashes[some], 3, 0, "flip", 7), all_of_them[some])
    np.testing.assert_array_equal(uniform_numbers(hashes, 2, 0, "flip", 7), all_of_them[:, :2])


@pytest.mark.parametrize("names", [(0, "a", 0), (1, "a", 0), (0, "a", 1), (0, "b", 0)])
def test_draws_are_uniform(names: tuple[str | int, ...]) -> None:
    draws = uniform_numbers(hash_ids(IDS), 4, *names)
    assert draws.min() >= 0 and draws.max() < 1
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4


def test_columns_epochs_and_seeds_are_unrelated() -> None:
    hashes = hash_ids(IDS)
    columns = [
        *uniform_numbers(hashes, 3, 0, "x", 0).T,
        *uniform_numbers(hashes, 3, 0, "x", 1).T,
        *uniform_numbers(hashes, 3, 1, "x", 0).T,
    ]
    correlation = np.corrcoef(columns)
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(IDS))


def test_order_is_a_permutation_that_leaving_one_out_does_not_reshuffle() -> None:
    hashes = hash_ids(IDS[:200])
    whole = random_permutation(hashes, 3, "order", 1)
    assert sorted(whole) == list(range(200))
    without_last = random_permutation(hashes[:-1], 3, "order", 1)
    np.testing.assert_array_equal(without_last, whole[whole != 199])
    assert (random_permutation(hashes, 3, "order", 2) != whole).any()
