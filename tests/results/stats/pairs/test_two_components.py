"""The two-component test against plain formulas, its limits and its rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from phoropter.results.stats.paired_tests import corrected_resampled_ttest
from phoropter.results.stats.pairs.two_components import (
    TwoComponents,
    average_variances,
    effective_df,
    two_component_test,
)

ONE = TwoComponents(
    difference=0.05, rows=0.0004, rows_df=300, spread=0.004, spread_df=4, rows_in_spread=0.002, factor=0.45, n_splits=5
)


def plain_critical(parts: TwoComponents, alpha: float) -> float:
    of_rows, of_spread = stats.t.ppf(1 - alpha / 2, parts.rows_df), stats.t.ppf(1 - alpha / 2, parts.spread_df)
    together = of_rows**2 * parts.rows + parts.factor * (of_spread**2 * parts.spread - of_rows**2 * parts.rows_in_spread)
    return float(np.sqrt(max(together, of_rows**2 * parts.rows)))


@pytest.mark.parametrize("spread", [0.0005, 0.002, 0.004, 0.03])
@pytest.mark.parametrize("difference", [0.02, -0.05, 0.2])
def test_p_and_interval_are_those_of_the_critical_value(spread, difference):
    parts = TwoComponents(difference, 0.0004, 300, spread, 4, 0.002, 0.45, 5)
    found = two_component_test(parts)
    half = plain_critical(parts, 0.05)
    assert (found.low, found.high) == (pytest.approx(difference - half), pytest.approx(difference + half))
    expected = optimize.brentq(lambda log_p: plain_critical(parts, np.exp(log_p)) - abs(difference), np.log(1e-15), 0)
    assert found.p == pytest.approx(max(np.exp(expected), 1e-12), rel=1e-6)
    assert (found.p <= 0.05) == (found.low > 0 or found.high < 0)


def test_where_training_is_all_it_is_the_corrected_resampled_t():
    d = np.array([0.03, 0.01, 0.05, -0.01, 0.04])
    parts = TwoComponents(float(d.mean()), 0.0, 300, float(d.var(ddof=1)), 4, 0.0, 1 / 5 + 1 / 4, 5)
    found, expected = two_component_test(parts), corrected_resampled_ttest(d, 1 / 4)
    assert (found.p, found.low, found.high) == (
        pytest.approx(expected.p),
        pytest.approx(expected.low),
        pytest.approx(expected.high),
    )
    assert found.df == pytest.approx(4) and found.se == pytest.approx(expected.se)


def test_where_splits_differ_as_their_rows_do_it_is_the_test_of_the_rows():
    parts = TwoComponents(0.05, 0.0004, 60, 0.0001, 4, 0.002, 0.45, 5)
    found = two_component_test(parts)
    assert found.p == pytest.approx(2 * stats.t.sf(0.05 / 0.02, 60))
    assert parts.training_variance == 0 and found.se == pytest.approx(0.02)


def test_nothing_varies():
    still = TwoComponents(0.0, 0.0, 10, 0.0, 4, 0.0, 0.45, 5)
    assert two_component_test(still).p == 1
    moved = two_component_test(TwoComponents(0.1, 0.0, 10, 0.0, 4, 0.0, 0.45, 5))
    assert np.isnan(moved.p) and "no spread" in moved.note


def test_effective_df_gives_back_the_ratio():
    assert stats.t.ppf(0.975, effective_df(2.5, 1.0)) == pytest.approx(2.5)
    assert np.isinf(effective_df(1.9, 1.0))


def test_rounds_count_by_their_degrees_of_freedom():
    assert average_variances(np.array([1.0, 4.0]), np.array([4.0, 2.0])) == (2.0, 6.0)


def drawn_parts(ratio: float, draw: np.random.Generator, difference: float = 0.0) -> TwoComponents:
    """5 folds, rows' part of variance 1/5, training of variance `ratio`, effects of folds correlated 1/5."""
    spread = (1 + 0.8 * ratio) * draw.chisquare(4) / 4
    mean = difference + draw.normal() * np.sqrt(1 / 5 + 9 / 25 * ratio)
    return TwoComponents(float(mean), 1 / 5, 1000, float(spread), 4, 1.0, 1 / 5 + 1 / 4, 5)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0, 4.0, 16.0])
def test_false_positives_stay_below_six_percent_and_power_above_the_corrected_t(ratio):
    draw, found, today = np.random.default_rng(int(ratio * 4)), [], []
    for _ in range(4000):
        false, true = drawn_parts(ratio, draw), drawn_parts(ratio, draw, 3 / np.sqrt(5))
        found.append([abs(p.difference) >= p.critical_value(0.05) for p in (false, true)])
        critical = stats.t.ppf(0.975, 4) * np.sqrt(0.45 * true.spread)
        today.append(abs(true.difference) >= critical)
    false_rate, power = np.mean(found, axis=0)
    assert false_rate <= 0.06 + 2 * np.sqrt(0.06 * 0.94 / 4000)
    assert power >= np.mean(today) - 0.005
    assert ratio or power > 1.35 * np.mean(today)
