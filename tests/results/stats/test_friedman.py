"""Friedman and Nemenyi: Demšar's figures, SciPy and scikit-posthocs as oracles, bars of the diagram."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from phoropter.core.errors import DataError
from phoropter.results.stats.friedman import (
    find_cliques,
    friedman_from_mean_ranks,
    friedman_test,
    nemenyi_critical_difference,
    nemenyi_test,
)

ROWS = [[0.80, 0.82, 0.84], [0.79, 0.80, 0.83], [0.81, 0.80, 0.85], [0.78, 0.82, 0.81], [0.80, 0.83, 0.86]]


def test_worked_rows():
    found = friedman_test(ROWS)
    assert found.mean_ranks == pytest.approx((2.8, 2.0, 1.2))
    assert (found.chi2, found.p) == (pytest.approx(6.4), pytest.approx(0.04076, abs=5e-6))
    assert found.f == pytest.approx(7.111, abs=5e-4)
    assert found.critical_difference == pytest.approx(1.4823, abs=5e-5)


def test_demsars_mean_ranks():
    found = friedman_from_mean_ranks([44 / 14, 28 / 14, 40.5 / 14, 27.5 / 14], 14)
    assert found.chi2 == pytest.approx(9.2786, abs=5e-5)
    assert found.f == pytest.approx(3.686, abs=5e-4)
    assert found.critical_difference == pytest.approx(1.2536, abs=5e-5)
    assert found.f_p == pytest.approx(stats.f.sf(found.f, 3, 39))


def test_critical_values_of_two_to_ten_candidates():
    q = [1.960, 2.344, 2.569, 2.728, 2.850, 2.948, 3.031, 3.102, 3.164]
    for k, expected in zip(range(2, 11), q, strict=True):
        assert nemenyi_critical_difference(k, 1) / np.sqrt(k * (k + 1) / 6) == pytest.approx(expected, abs=1e-3)


@settings(deadline=None, max_examples=60, database=None)
@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(3, 6))
def test_equals_scipy_ties_included(seed, blocks, candidates):
    table = np.random.default_rng(seed).integers(0, 4, (blocks, candidates)) / 4
    if (np.ptp(table, axis=1) == 0).all():
        assert friedman_test(table).p == 1
        return
    expected = stats.friedmanchisquare(*table.T)
    found = friedman_test(table)
    assert (found.chi2, found.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))


def test_nemenyi_equals_scikit_posthocs():
    import scikit_posthocs

    table = np.random.default_rng(0).normal(size=(9, 5)) + np.arange(5) / 2
    expected = scikit_posthocs.posthoc_nemenyi_friedman(table).to_numpy()
    np.testing.assert_allclose(nemenyi_test(friedman_test(table).mean_ranks, 9), expected, atol=1e-6)


def test_lower_is_better_turns_the_ranks():
    table = np.array(ROWS)
    assert friedman_test(-table, higher_is_better=False).mean_ranks == friedman_test(table).mean_ranks


def test_blocks_with_a_missing_score_are_left_out_and_counted():
    found = friedman_test([*ROWS, [0.8, np.nan, 0.9]])
    assert (found.blocks, found.left_out, found.chi2) == (5, 1, pytest.approx(6.4))


def test_agreement_of_all_blocks_and_too_few_blocks():
    agreed = friedman_test([[1, 2, 3]] * 4)
    assert (agreed.f, agreed.f_p) == (np.inf, 0)
    assert np.isnan(friedman_test([[1, 2, 3]]).p)
    with pytest.raises(DataError, match="table of blocks"):
        friedman_test([1.0, 2.0])


@settings(deadline=None, max_examples=80, database=None)
@given(st.lists(st.floats(1, 8), min_size=2, max_size=8), st.floats(0.1, 4))
def test_cliques_are_the_maximal_groups_within_reach(ranks, critical):
    """Against all subsets."""
    fits = [
        set(s)
        for size in range(2, len(ranks) + 1)
        for s in combinations(range(len(ranks)), size)
        if max(ranks[i] for i in s) - min(ranks[i] for i in s) <= critical + 1e-12
    ]
    maximal = [s for s in fits if not any(s < other for other in fits)]
    assert sorted(map(sorted, find_cliques(ranks, critical))) == sorted(map(sorted, maximal))


def test_cliques_best_first():
    assert find_cliques([3.0, 1.0, 1.5, 4.2], 1.6) == [(1, 2), (2, 0), (0, 3)]
    assert find_cliques([1.0, 2.0], 0.5) == []
