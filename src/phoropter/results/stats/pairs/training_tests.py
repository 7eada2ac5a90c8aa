"""The second question: would this way of training, trained again on other data of this size, differ again?

splits by folds or repeats, with predictions  two components (two_components.py)
the same from scores alone                    corrected resampled t over the splits (Nadeau & Bengio 2003)
one group a split                             the same over the groups, and never more sure than their signed ranks: what the
                                              groups vary by is not told apart from what training varies by
one training part                             no answer
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from phoropter.results.metrics.sufficient_sums import Floats, Ints
from phoropter.results.stats.paired_tests import NAN, PairedTest, corrected_resampled_ttest
from phoropter.results.stats.pairs.row_tests import row_variance
from phoropter.results.stats.pairs.two_components import TwoComponents, average_variances
from phoropter.results.stats.pairs.unit_contributions import UnitContributions

MIN_CONSTANT_SPLITS = 5  # splits that must agree to the last digit before t = ∞ is accepted; scores of small folds are coarse


def split_components(difference: UnitContributions, test_to_train: float) -> TwoComponents | None:
    """The parts of the variance of the mean difference over J splits; None for fewer than two splits or units.

    test_to_train: rows tested / rows trained on. Spreads are taken within the rounds, where the test parts are disjoint; if each
    round has one split (repeated hold-out), over all of them, less what they share.
    """
    values, layout = difference.values, difference.layout
    variance, df = row_variance(difference)
    if len(values) < 2 or np.isnan(variance):
        return None
    members = np.bincount(layout.spread_rounds)
    means = np.bincount(layout.spread_rounds, values) / np.maximum(members, 1)
    several = members > 1
    freedom = (members - 1)[several].astype(np.float64)
    squares = np.bincount(layout.spread_rounds, (values - means[layout.spread_rounds]) ** 2)[several]
    spread, total = average_variances(squares / freedom, freedom)
    rows = average_variances(_row_parts(difference, members)[several], freedom)[0]
    factor = 1 / len(values) + test_to_train
    return TwoComponents(float(values.mean()), variance, df, spread, total, rows, factor, len(values))


def _row_parts(difference: UnitContributions, members: Ints) -> Floats:
    """What rows contribute to the variance of the splits of each round: their own variances, less what splits with common units
    share. members: splits of each round"""
    layout, n = difference.layout, len(members)
    means = np.bincount(layout.spread_rounds, difference.split_variances, minlength=n) / np.maximum(members, 1)
    if layout.shared_cells is None:
        return np.asarray(means)
    cell_of, round_of_cell = layout.shared_cells
    slopes = difference.centred_slopes
    sums = np.bincount(round_of_cell, np.bincount(cell_of, slopes) ** 2, minlength=n)
    own = np.bincount(np.repeat(layout.spread_rounds, layout.sizes), slopes**2, minlength=n)
    return np.asarray(np.maximum(0.0, means - (sums - own) / np.maximum(members * (members - 1), 1)))


def score_t_test(differences: Floats, test_to_train: float, level: float) -> PairedTest:
    """The corrected resampled t; no p for the same difference in a few splits, which may be chance."""
    test = corrected_resampled_ttest(differences, test_to_train, level)
    if test.se == 0 and test.difference and test.n_units < MIN_CONSTANT_SPLITS:
        note = f"the same difference in all {test.n_units} splits may be chance, and leaves no spread to test by"
        return replace(test, p=NAN, low=NAN, high=NAN, note=note)
    return test


def group_t_test(differences: Floats, of_groups: PairedTest, level: float) -> PairedTest:
    """Over left-out groups: each is a test part of 1/G. of_groups: the test of the groups themselves, whose p is a floor."""
    if len(differences) < 2 or np.isnan(of_groups.p):
        return PairedTest(
            "corrected resampled t", of_groups.difference, NAN, level=level, n_units=len(differences), note=of_groups.note
        )
    test = score_t_test(differences, 1 / (len(differences) - 1), level)
    return replace(test, p=max(test.p, of_groups.p), least_p=of_groups.least_p, n_counted=of_groups.n_counted)


def untested_training(difference: float, level: float) -> PairedTest:
    """Of a study with one training part."""
    note = "there is one training part: how much another would change is not known"
    return PairedTest("none", difference, NAN, level=level, note=note)
