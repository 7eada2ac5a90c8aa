"""Are these models different on new rows: the t over units, its degrees of freedom, and its rates with few and rare units."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from phoropter.results.stats.paired_tests import PairedTest, mcnemar_test, wilcoxon_signed_rank
from phoropter.results.stats.pairs.row_tests import add_interval, compare_on_test_set, group_rank_test, row_variance, unit_t_test
from phoropter.results.stats.pairs.unit_contributions import EntryLayout, UnitContributions
from phoropter.results.store import Predictions


def one_split(values) -> UnitContributions:
    """A mean of one value per unit, in one split."""
    x = np.asarray(values, dtype=float)
    n = len(x)
    layout = EntryLayout("one", ("s",), np.zeros(1, int), np.zeros(n, int), np.arange(n), np.arange(n).astype(str))
    return UnitContributions(layout, np.array([x.mean()]), (x - x.mean()) / n, np.ones(1))


def test_of_one_value_per_unit_it_is_students_t():
    x = np.random.default_rng(0).uniform(-1, 1.4, 40)  # flat: a kurtosis below 3, so that all degrees of freedom are left
    found, expected = unit_t_test(one_split(x)), stats.ttest_1samp(x, 0)
    low, high = expected.confidence_interval()
    assert (found.p, found.df, found.n_units) == (pytest.approx(expected.pvalue), 39, 40)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_few_units_that_carry_the_difference_leave_few_degrees_of_freedom():
    x = np.zeros(500)
    x[:4] = 1
    variance, df = row_variance(one_split(x))
    assert variance == pytest.approx(x.var(ddof=1) / 500) and df == pytest.approx(8, rel=0.05)
    exact = mcnemar_test(np.arange(500) < 4, np.zeros(500, bool))
    assert unit_t_test(one_split(x)).p > 0.05 and exact.p == pytest.approx(0.125)


@pytest.mark.parametrize("rows, share", [(20, 0.4), (30, 0.2), (60, 0.1), (300, 0.03)])
def test_false_positives_of_rows_that_differ_rarely(rows, share):
    """Rows that only one gets right, either one with the same probability."""
    draw = np.random.default_rng(rows)
    wrong = 0
    for _ in range(2000):
        x = (draw.random(rows) < share) * np.where(draw.random(rows) < 0.5, 1.0, -1.0)
        found = unit_t_test(one_split(x))
        wrong += found.p <= 0.05 and (found.low > 0 or found.high < 0)
    assert wrong / 2000 <= 0.06


def test_all_units_alike_is_a_sign_test():
    found = unit_t_test(one_split(np.full(8, 0.25)))
    assert (found.test, found.p, found.low) == ("sign test", pytest.approx(2 / 2**8), 0.25)
    assert unit_t_test(one_split(np.zeros(8))).p == 1
    assert np.isnan(unit_t_test(one_split([0.3, 0.1])).p)


def test_ranks_are_of_the_groups_by_themselves_and_the_mean_is_weighted():
    alone = np.array([0.1, -0.2, 0.3, 0.05, 0.15, 0.25])
    weighted = alone * np.array([0.5, 1, 1.5, 1, 1, 1])
    found = group_rank_test(weighted, alone, 0.95, 0)
    assert found.p == wilcoxon_signed_rank(alone).p and found.difference == pytest.approx(weighted.mean())
    assert found.se == pytest.approx(weighted.std(ddof=1) / np.sqrt(6)) and found.low < found.difference < found.high


def test_percentiles_are_stretched_around_the_difference():
    drawn = np.random.default_rng(0).normal(0.08, 0.02, 1000)
    found = add_interval(PairedTest("t", 0.1, 0.04, n_units=30), drawn, 0.95)
    stretch = 2.045230 / 1.959964 * np.sqrt(30 / 29)  # Student's t with 29 degrees of freedom, from a printed table
    assert (found.low, found.high) == pytest.approx(tuple(0.1 + stretch * (np.quantile(drawn, [0.025, 0.975]) - 0.1)), abs=1e-6)


def test_an_interval_keeps_the_standard_error_that_is_known():
    drawn = np.random.default_rng(0).normal(0.1, 0.02, 500)
    assert add_interval(PairedTest("t", 0.1, 0.04, se=0.5, n_units=10), drawn, 0.95).se == 0.5
    assert add_interval(PairedTest("t", 0.1, 0.04, n_units=10), drawn, 0.95).se == pytest.approx(0.02, rel=0.1)


def test_one_test_set_needs_predictions():
    sheet = Predictions(np.array(["a", "b"]), np.array([0, 1]), np.zeros((2, 2), np.float32))
    assert "nothing to test" in compare_on_test_set({}, {("t", 0): sheet}, [("t", 0)], "accuracy", 0.95, 0).note
