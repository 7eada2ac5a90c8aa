"""Intervals of published figures against other libraries and simulation; differences of two independent figures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from phoropter.results.intervals.derived_intervals import (
    derive_auc_interval,
    derive_mean_interval,
    derive_share_interval,
    difference_bounds,
)
from phoropter.results.stats.paired_tests import corrected_resampled_ttest


@pytest.mark.parametrize(("share", "rows", "half_unit"), [(0.8171, 10_000, 5e-5), (0.89, 3000, 5e-3), (0.4181, 50_000, 5e-5)])
def test_a_share_has_wilson_s_interval_and_its_rounding(share: float, rows: int, half_unit: float) -> None:
    low, high = proportion_confint(round(share * rows), rows, method="wilson")
    found = derive_share_interval(share, rows)
    assert (found.low, found.high) == (pytest.approx(low - half_unit), pytest.approx(high + half_unit))


def test_an_auc_has_the_spread_of_samples_of_its_size() -> None:
    """Normal scores, for which Hanley and McNeil's formula is nearly exact: 40 positives and 711 negatives, as in Hemmi 2024."""
    random = np.random.default_rng(0)
    labels = np.repeat([1, 0], [40, 711])
    shift = 0.55  # an AUC of 0.65
    drawn = [roc_auc_score(labels, random.normal(size=751) + shift * labels) for _ in range(400)]
    found = derive_auc_interval(0.6513, 40, 711)
    assert np.mean(drawn) == pytest.approx(0.6513, abs=0.01)
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.12)
    assert found.low < 0.56 and found.high > 0.73, "a standard error of nearly 0.05"


def test_a_mean_over_folds_has_the_corrected_resampled_interval() -> None:
    values = np.random.default_rng(1).normal(0.80, 0.025, 30)
    expected = corrected_resampled_ttest(values, test_to_train=1 / 9)
    found = derive_mean_interval(float(values.mean()), float(values.std(ddof=1)), 30, 10)
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))


def test_two_figures_differ_by_the_roots_of_squared_arms() -> None:
    """Method 10 of Newcombe 1998 for proportions, of which it is the general form: 56/70 and 48/80."""
    wilson = [proportion_confint(k, n, method="wilson") for k, n in ((56, 70), (48, 80))]
    low, high = difference_bounds((0.8, *wilson[0]), (0.6, *wilson[1]))
    assert (low, high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))
