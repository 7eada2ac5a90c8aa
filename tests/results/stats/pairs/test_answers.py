"""Verdicts: corrected p and interval together, what cannot be reached, and which answer leads."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.results.stats.paired_tests import PairedTest
from phoropter.results.stats.pairs.answers import Answer, Comparison

FOUND = PairedTest("paired t over units", 0.1, 0.001, 0.05, 0.15, se=0.025, df=50, n_units=100)
FEW = PairedTest("Wilcoxon signed-rank", 0.346, 1 / 16, 0.318, 0.374, se=0.01, n_units=5, least_p=1 / 16, n_counted=5)


def test_a_verdict_needs_p_and_interval():
    assert Answer("rows", FOUND).with_verdict(0.01, 3, "accuracy", None).verdict == "ahead"
    assert Answer("rows", FOUND).with_verdict(0.01, 3, "log_loss", None).verdict == "behind"
    assert Answer("rows", FOUND).with_verdict(0.06, 60, "accuracy", None).verdict == "cannot tell"
    across = PairedTest("t", 0.1, 0.01, -0.01, 0.2)
    assert Answer("rows", across).with_verdict(0.01, 1, "accuracy", None).verdict == "cannot tell"
    assert Answer("rows", FOUND).with_verdict(0.01, 1, "accuracy", 0.2).verdict == "practically the same"


def test_five_people_cannot_reach_the_level_and_detect_nothing():
    """The page once said of these: `would have found a true difference of 5.4 points 8 times in 10`."""
    answer = Answer("rows", FEW).with_verdict(1 / 16, 1, "accuracy", None)
    assert (answer.verdict, answer.level_reachable) == ("cannot tell", False)
    assert np.isnan(answer.detectable)


def test_eight_groups_reach_it_alone_but_not_among_ten_pairs():
    test = PairedTest("Wilcoxon signed-rank", 0.3, 2 / 2**8, 0.2, 0.4, se=0.02, n_units=8, least_p=2 / 2**8, n_counted=8)
    assert Answer("rows", test).with_verdict(2 / 2**8, 1, "accuracy", None).level_reachable
    assert not Answer("rows", test).with_verdict(0.08, 10, "accuracy", None).level_reachable


def test_detectable_is_after_the_correction():
    one, many = (Answer("rows", FOUND).with_verdict(0.01, n, "accuracy", None).detectable for n in (1, 10))
    assert many > one > 0
    assert np.isnan(Answer("training", PairedTest("none", 0.1, np.nan)).detectable)


def test_the_answer_about_rows_leads_unless_there_are_no_rows():
    untested = PairedTest("none", 0.1, np.nan, note="no predictions")
    again = PairedTest("corrected resampled t", 0.1, 0.2, -0.1, 0.3, se=0.07, df=4, n_units=5)
    both = Comparison("a", "b", "accuracy", 0.1, Answer("rows", FOUND), Answer("training", again), 5)
    assert (both.test, both.p, both.low, both.n_units) == ("paired t over units", 0.001, 0.05, 100)
    alone = Comparison("a", "b", "accuracy", 0.1, Answer("rows", untested), Answer("training", again), 5)
    assert (alone.test, alone.p) == ("corrected resampled t", 0.2)
    assert Comparison("a", "b", "accuracy", 0.0, both.rows, both.training, 5, identical=True).verdict == "identical"
    assert both.detectable == pytest.approx(both.rows.detectable)
