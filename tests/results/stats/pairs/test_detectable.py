"""Detectable differences: studies drawn at the difference are found 8 times in 10 by the very test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from phoropter.results.stats.paired_tests import PairedTest, mcnemar_test, minimum_detectable_effect, wilcoxon_signed_rank
from phoropter.results.stats.pairs.detectable import detectable_difference
from phoropter.results.stats.pairs.two_components import TwoComponents, two_component_test


@pytest.mark.parametrize("units, alpha", [(8, 0.05), (15, 0.05 / 3), (25, 0.05)])
def test_signed_ranks(units, alpha):
    test = PairedTest("Wilcoxon signed-rank", 0.1, 0.01, se=0.1 / np.sqrt(units), n_units=units)
    size = detectable_difference(test, alpha)
    draw = np.random.default_rng(1)
    found = np.mean([wilcoxon_signed_rank(draw.normal(size, 0.1, units)).p <= alpha for _ in range(800)])
    assert found == pytest.approx(0.8, abs=0.05)


def test_five_groups_detect_nothing():
    assert np.isnan(detectable_difference(PairedTest("Wilcoxon signed-rank", 0.1, 0.06, se=0.05, n_units=5), 0.05))


@pytest.mark.parametrize("rows, apart, alpha", [(200, 30, 0.05), (120, 40, 0.05 / 6)])
def test_mcnemar(rows, apart, alpha):
    test = replace(mcnemar_test(np.arange(rows) < apart, np.zeros(rows, bool)), n_counted=apart)
    size = detectable_difference(test, alpha)
    share, draw, found = apart / rows, np.random.default_rng(2), []
    for _ in range(1500):
        moved = draw.random(rows) < share
        mine = draw.random(rows) < (1 + size / share) / 2
        found.append(mcnemar_test(moved & mine, moved & ~mine).p <= alpha)
    assert np.mean(found) == pytest.approx(0.8, abs=0.035)


def test_four_rows_that_differ_detect_nothing():
    assert np.isnan(detectable_difference(mcnemar_test(np.arange(50) < 4, np.zeros(50, bool)), 0.01))


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 6])
def test_two_components(alpha):
    """Drawn again with the spread as it is on average."""
    parts = TwoComponents(0.0, 1 / 5, 1000, 1.8, 12, 1.0, 1 / 15 + 1 / 4, 15)
    size, draw = detectable_difference(two_component_test(parts), alpha), np.random.default_rng(3)
    found = []
    for _ in range(3000):
        mean = size + draw.normal() * parts.standard_error
        one = replace(parts, difference=mean, spread=1.8 * draw.chisquare(12) / 12)
        found.append(abs(mean) >= one.critical_value(alpha))
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


def test_others_are_those_of_the_noncentral_t():
    test = PairedTest("paired t over units", 0.1, 0.01, se=0.02, df=30)
    assert detectable_difference(test, 0.01) == minimum_detectable_effect(0.02, 30, alpha=0.01)
    size = detectable_difference(test, 0.05) / 0.02
    assert stats.nct.sf(stats.t.ppf(0.975, 30), 30, size) == pytest.approx(0.8, abs=1e-6)
    assert np.isnan(detectable_difference(PairedTest("none", 0.1, 0.5), 0.05))
