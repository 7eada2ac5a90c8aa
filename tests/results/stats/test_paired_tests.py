"""Paired tests: worked vectors, brute force, statsmodels and SciPy as oracles, degenerate input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as oracle_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from phoropter.core.errors import DataError
from phoropter.results.intervals.bootstrap import Bootstrap, UnitRows
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.stats.paired_tests import (
    adjust_holm,
    auc_covariance,
    cohens_d,
    corrected_resampled_ttest,
    delong_test,
    is_equivalent,
    mcnemar_test,
    minimum_detectable_effect,
    paired_z_test,
    wilcoxon_signed_rank,
)

A = np.array([0.02, 0.01, 0.03, -0.01, 0.02, 0, 0.04, 0.01, 0.02, 0.02])
B = np.concatenate([A, A + 0.005, A - 0.005])
TRUTH = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
S1 = np.array([0.9, 0.8, 0.6, 0.4, 0.7, 0.5, 0.3, 0.2, 0.2, 0.1])
S2 = np.array([0.8, 0.5, 0.6, 0.3, 0.7, 0.6, 0.4, 0.2, 0.3, 0.1])


def test_corrected_t_vector_a():
    found = corrected_resampled_ttest(A, 1 / 9)
    assert (found.difference, found.df, found.n_units) == (pytest.approx(0.016), 9, 10)
    assert found.se == pytest.approx(0.00657, abs=5e-6)
    assert found.statistic == pytest.approx(2.4354, abs=5e-5)
    assert found.p == pytest.approx(0.0376, abs=5e-5)
    assert found.effect == pytest.approx(0.016 / 0.014298, abs=1e-4)


def test_corrected_t_vector_b():
    found = corrected_resampled_ttest(B, 1 / 9)
    assert found.statistic == pytest.approx(2.9219, abs=5e-5)
    assert found.p == pytest.approx(0.00668, abs=5e-6)


def test_corrected_t_by_hand_to_the_last_digits():
    found = corrected_resampled_ttest(list(A), 1 / 9)
    variance = sum((x - sum(A) / 10) ** 2 for x in A) / 9
    t = (sum(A) / 10) / ((1 / 10 + 1 / 9) * variance) ** 0.5
    law = stats.t(9)
    assert found.statistic == pytest.approx(t, abs=1e-12)
    assert found.p == pytest.approx(2 * law.sf(t), abs=1e-12)
    half = law.ppf(0.975) * ((1 / 10 + 1 / 9) * variance) ** 0.5
    assert (found.low, found.high) == (pytest.approx(0.016 - half), pytest.approx(0.016 + half))


def test_corrected_t_without_the_correction_is_scipys():
    """As test_to_train goes to 0."""
    assert corrected_resampled_ttest(A, 1e-15).p == pytest.approx(stats.ttest_1samp(A, 0).pvalue)


def test_corrected_t_without_spread():
    assert (corrected_resampled_ttest(np.zeros(5), 0.25).statistic, corrected_resampled_ttest(np.zeros(5), 0.25).p) == (0, 1)
    constant = corrected_resampled_ttest(np.full(5, 0.1) + 1e-16, 0.25)
    assert (constant.statistic, constant.p, constant.low) == (np.inf, 0, pytest.approx(0.1))
    assert corrected_resampled_ttest(np.full(5, -0.1), 0.25).statistic == -np.inf


def test_rounding_dust_is_no_difference():
    assert corrected_resampled_ttest([1e-17, 2e-17, 1e-17, 1e-17], 0.25).p == 1


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, np.nan]])
def test_corrected_t_of_less_than_two_splits_says_so(differences):
    found = corrected_resampled_ttest(differences, 0.25)
    assert np.isnan(found.p)
    assert "needs two" in found.note


@pytest.mark.parametrize("ratio", [0, -1, float("nan")])
def test_corrected_t_refuses_a_ratio_that_corrects_nothing(ratio):
    with pytest.raises(DataError, match="test_to_train"):
        corrected_resampled_ttest(A, ratio)


def test_delong_vector():
    areas, s = auc_covariance(TRUTH == 1, [S1, S2])
    assert list(areas) == pytest.approx([0.875, 0.708333], abs=1e-6)
    np.testing.assert_allclose(s, [[0.0136574, 0.0179398], [0.0179398, 0.0318287]], atol=5e-8)
    found = delong_test(TRUTH, S1, S2)
    assert found.statistic == pytest.approx(1.70046, abs=5e-6)
    assert found.p == pytest.approx(0.08904, abs=5e-6)
    assert np.sqrt(s[0, 0]) == pytest.approx(0.11686, abs=5e-6)


@settings(deadline=None, max_examples=60, database=None)
@given(st.integers(0, 2**32), st.integers(2, 15), st.integers(2, 15))
def test_delong_equals_the_literal_components(seed, m, n):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.r_[np.ones(m, dtype=int), np.zeros(n, dtype=int)])
    scores = [np.round(rng.normal(size=m + n) + truth, 1) for _ in range(2)]
    psi = [(s[truth == 1][:, None] > s[truth == 0]) + 0.5 * (s[truth == 1][:, None] == s[truth == 0]) for s in scores]
    v10, v01 = [x.mean(1) for x in psi], [x.mean(0) for x in psi]
    areas, covariance = auc_covariance(truth == 1, scores)
    assert list(areas) == pytest.approx([roc_auc_score(truth, s) for s in scores])
    np.testing.assert_allclose(covariance, np.cov(v10) / m + np.cov(v01) / n, atol=1e-12)


def test_delong_of_a_model_with_itself():
    found = delong_test(TRUTH, S1, S1)
    assert (found.difference, found.statistic, found.p) == (0, 0, 1)


def test_delong_without_two_of_each_says_so():
    assert "two of each" in delong_test(np.r_[1, np.zeros(9)], S1, S2).note


def answers_with(only_a: int, only_b: int, both: int = 20, neither: int = 10):
    a = np.r_[np.ones(only_a + both), np.zeros(only_b + neither)].astype(bool)
    b = np.r_[np.zeros(only_a), np.ones(both + only_b), np.zeros(neither)].astype(bool)
    return a, b


@pytest.mark.parametrize(("only_a", "only_b"), [(10, 3), (3, 10), (5, 5), (1, 0), (40, 21)])
def test_mcnemar_equals_statsmodels(only_a, only_b):
    a, b = answers_with(only_a, only_b)
    expected = oracle_mcnemar([[20, only_a], [only_b, 10]], exact=True).pvalue
    assert mcnemar_test(a, b).p == pytest.approx(min(1.0, expected))


def test_mcnemar_mid_p_by_summing_the_binomial():
    a, b = answers_with(10, 3)
    below = sum(stats.binom.pmf(k, 13, 0.5) for k in range(3))
    assert mcnemar_test(a, b, mid_p=True).p == pytest.approx(2 * (below + stats.binom.pmf(3, 13, 0.5) / 2))
    assert mcnemar_test(*answers_with(4, 4), mid_p=True).p == pytest.approx(1.0)


def test_mcnemar_without_disagreement_keeps_a_width():
    found = mcnemar_test(*answers_with(0, 0))
    assert (found.p, found.difference) == (1, 0)
    assert found.low < -0.03 < 0.03 < found.high


def test_mcnemar_interval_covers():
    rng = np.random.default_rng(0)
    draws = rng.multinomial(60, [0.5, 0.18, 0.08, 0.24], 3000)  # both, only a, only b, neither: difference 0.10
    covered = 0
    for (both, only_a, only_b, neither), count in zip(*np.unique(draws, axis=0, return_counts=True), strict=True):
        found = mcnemar_test(*answers_with(only_a, only_b, both, neither))
        covered += count * (found.low <= 0.10 <= found.high)
    assert 0.94 <= covered / 3000 <= 0.975


def test_wilcoxon_is_exact_for_few_units():
    d = np.array([0.03, 0.01, -0.02, 0.05, 0.04, 0.06])
    all_sums = [sum(r for r, s in zip(range(1, 7), np.binary_repr(i, 6), strict=True) if s == "1") for i in range(64)]
    extreme = sum(min(w, 21 - w) <= 2 for w in all_sums) / 64  # the one negative has rank 2
    assert wilcoxon_signed_rank(d).p == pytest.approx(extreme)
    assert wilcoxon_signed_rank(d).effect == pytest.approx((21 - 2 * 2) / 21)


def test_wilcoxon_of_no_difference_and_of_one_unit():
    assert wilcoxon_signed_rank(np.zeros(6)).p == 1
    assert "at least two" in wilcoxon_signed_rank([0.1]).note


@settings(deadline=None, max_examples=60, database=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_statsmodels(p):
    np.testing.assert_allclose(adjust_holm(p), multipletests(p, method="holm")[1])


def test_holm_worked_example_and_missing_values():
    assert list(adjust_holm([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(adjust_holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert len(adjust_holm([])) == 0


@pytest.mark.parametrize(("df", "n"), [(9, 10), (29, 30), (99, 100)])
def test_smallest_detectable_equals_statsmodels(df, n):
    se = 0.5 / np.sqrt(n)
    effect = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    assert minimum_detectable_effect(se, df) == pytest.approx(effect * 0.5, rel=1e-5)


def test_smallest_detectable_under_the_normal_law_and_without_a_spread():
    assert minimum_detectable_effect(1.0, np.inf) == pytest.approx(1.959964 + 0.841621, abs=1e-6)
    assert np.isnan(minimum_detectable_effect(np.nan, 9))


def test_effect_size():
    assert cohens_d([1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert cohens_d([0.0, 0.0]) == 0
    assert cohens_d([-1.0, -1.0]) == -np.inf
    assert np.isnan(cohens_d([1.0]))


@pytest.mark.parametrize(
    ("low", "high", "same"), [(-0.004, 0.009, True), (-0.011, 0.0, False), (0.001, 0.02, False), (np.nan, np.nan, False)]
)
def test_practically_same_needs_the_whole_interval_inside(low, high, same):
    assert is_equivalent(low, high, 0.01) is same


def two_sheets(rows: int, seed: int = 0, classes: int = 2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    common = rng.normal(size=(rows, classes))
    lift = np.eye(classes)[labels]
    return labels, *(softmax(common + rng.normal(size=(rows, classes)) + k * lift) for k in (1.2, 0.9))


def test_paired_z_of_an_auc_is_delong():
    """Both are first order; DeLong divides by n - 1 where influences divide by n."""
    labels, a, b = two_sheets(1500)
    ours, theirs = paired_z_test("roc_auc", UnitRows(labels), a, b), delong_test(labels, a[:, 1], b[:, 1])
    assert ours.difference == pytest.approx(theirs.difference)
    assert ours.se == pytest.approx(theirs.se, rel=2e-3)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "log_loss"])
def test_paired_z_agrees_with_resampling(name):
    labels, a, b = two_sheets(1200, classes=4)
    found = paired_z_test(name, UnitRows(labels), a, b)
    draws = Bootstrap(labels)
    resampled = draws.compute_replicates(name, a).paired_values(draws.compute_replicates(name, b))
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert (found.low, found.high) == (
        pytest.approx(low, abs=0.08 * (high - low)),
        pytest.approx(high, abs=0.08 * (high - low)),
    )


def test_paired_z_of_nothing_says_so():
    labels, a, b = two_sheets(30)
    assert paired_z_test("roc_auc", UnitRows(np.zeros(30, dtype=int)), a, b).note == "undefined"
    assert "1 units" in paired_z_test("accuracy", UnitRows(labels, np.zeros(30)), a, b).note
    assert paired_z_test("accuracy", UnitRows(labels), a, a).p == 1
