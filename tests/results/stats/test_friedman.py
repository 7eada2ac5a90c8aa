"""Friedman and Nemenyi: worked rows, SciPy and scikit-posthocs as oracles, Demšar's critical values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from phoropter.core.errors import DataError
from phoropter.results.stats.friedman import friedman_test, nemenyi_critical_difference, studentized_range_quantile

ROWS = [[0.80, 0.82, 0.84], [0.79, 0.80, 0.83], [0.81, 0.80, 0.85], [0.78, 0.82, 0.81], [0.80, 0.83, 0.86]]


def test_worked_rows():
    found = friedman_test(ROWS)
    assert found.mean_ranks == pytest.approx((2.8, 2.0, 1.2))
    assert (found.chi2, found.p) == (pytest.approx(6.4), pytest.approx(0.04076, abs=5e-6))
    assert found.f == pytest.approx(7.111, abs=5e-4)
    assert found.f_p == pytest.approx(stats.f.sf(64 / 9, 2, 8))
    assert found.critical_difference == pytest.approx(1.4823, abs=5e-5)


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


@pytest.mark.parametrize("seed", range(5))
def test_ranks_further_apart_than_the_critical_difference_are_scikit_posthocs_pairs_below_the_level(seed):
    import scikit_posthocs

    table = np.random.default_rng(seed).normal(size=(9, 5)) + np.arange(5)
    found = friedman_test(table)
    expected = scikit_posthocs.posthoc_nemenyi_friedman(table).to_numpy() < 0.05
    apart = np.abs(np.subtract.outer(found.mean_ranks, found.mean_ranks)) > found.critical_difference
    assert 2 <= expected.sum() <= 18
    np.testing.assert_array_equal(apart, expected)


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


@pytest.mark.parametrize("count", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize("p", [0.9, 0.95, 0.99])
def test_the_quantile_of_the_studentized_range_is_that_of_scipy(count, p):
    from scipy.stats import studentized_range

    assert studentized_range_quantile(p, count) == pytest.approx(studentized_range.ppf(p, count, np.inf), abs=1e-8)
