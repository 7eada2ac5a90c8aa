"""Shares, likelihood ratios and predictive values with their intervals, against statsmodels and plain lines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from phoropter.results.clinical.alarm_statistics import AlarmStatistics, share_interval

DRAW = np.random.default_rng(5)
N = 240
POSITIVE = DRAW.random(N) < 0.25
ALARMS = DRAW.random(N) < np.where(POSITIVE, 0.7, 0.2)
IDS = np.array([f"r{i}" for i in range(N)])
TP, FP = int((POSITIVE & ALARMS).sum()), int((~POSITIVE & ALARMS).sum())
P, Q = int(POSITIVE.sum()), int((~POSITIVE).sum())


def test_shares_of_independent_rows_have_wilsons_interval() -> None:
    found = AlarmStatistics.from_alarms(POSITIVE, ALARMS, IDS)
    assert (found.n_positive, found.n_negative) == (P, Q)
    counts = {
        "sensitivity": (TP, P),
        "specificity": (Q - FP, Q),
        "ppv": (TP, TP + FP),
        "npv": (Q - FP, N - TP - FP),
        "alarms": (TP + FP, N),
    }
    for name, (hits, of) in counts.items():
        interval = getattr(found, name)
        assert interval.estimate == pytest.approx(hits / of)
        assert (interval.low, interval.high) == pytest.approx(proportion_confint(hits, of, method="wilson"))


def test_likelihood_ratios_of_independent_rows_are_those_of_simel() -> None:
    found = AlarmStatistics.from_alarms(POSITIVE, ALARMS, IDS)
    for estimate, a, b in ((found.positive_ratio, TP, FP), (found.negative_ratio, P - TP, Q - FP)):
        ratio = (a / P) / (b / Q)
        half = 1.959964 * np.sqrt(1 / a - 1 / P + 1 / b - 1 / Q)
        assert estimate == pytest.approx((ratio, ratio * np.exp(-half), ratio * np.exp(half)), rel=1e-6)


def test_predictive_values_at_a_prevalence_follow_from_bayes() -> None:
    found, prevalence = AlarmStatistics.from_alarms(POSITIVE, ALARMS, IDS), 0.01
    sensitivity, specificity = TP / P, 1 - FP / Q
    ppv = sensitivity * prevalence / (sensitivity * prevalence + (1 - specificity) * (1 - prevalence))
    npv = specificity * (1 - prevalence) / (specificity * (1 - prevalence) + (1 - sensitivity) * prevalence)
    assert found.ppv_at(prevalence).value == pytest.approx(ppv) and found.npv_at(prevalence).value == pytest.approx(npv)
    own = found.ppv_at(P / N)
    assert own.value == pytest.approx(TP / (TP + FP)) and own.low < own.value < own.high
    low, high = (r * prevalence / (r * prevalence + 1 - prevalence) for r in found.positive_ratio[1:])
    assert found.ppv_at(prevalence)[1:] == pytest.approx((low, high))
    assert found.npv_at(prevalence).low < npv < found.npv_at(prevalence).high


def test_rows_of_one_person_count_as_one_unit() -> None:
    people = np.array([f"p{i}" for i in range(N // 8)])[np.arange(N) // 8]
    found = AlarmStatistics.from_alarms(POSITIVE, ALARMS, people)
    units = np.unique(people[POSITIVE])
    hits = np.array([ALARMS[POSITIVE & (people == u)].sum() for u in units])
    size = np.array([(POSITIVE & (people == u)).sum() for u in units])
    share, g = hits.sum() / size.sum(), len(units)
    error = np.sqrt(((hits - share * size) ** 2).sum() * g / (g - 1)) / size.sum()
    half = stats.t.ppf(0.975, g - 1) * error / (share * (1 - share))
    bounds = [1 / (1 + (1 - share) / share * np.exp(-sign * half)) for sign in (-1, 1)]
    assert (found.sensitivity.low, found.sensitivity.high) == pytest.approx(bounds)
    everyone = np.unique(people)  # of the ratio: influences of units that have rows of both classes, added up
    of = [((people == u) & POSITIVE, (people == u) & ~POSITIVE) for u in everyone]
    slopes = [((ALARMS & a).sum() - TP / P * a.sum()) / TP - ((ALARMS & b).sum() - FP / Q * b.sum()) / FP for a, b in of]
    n = len(everyone)
    half = stats.t.ppf(0.975, n - 1) * np.sqrt(np.square(slopes).sum() * n / (n - 1))
    ratio = (TP / P) / (FP / Q)
    assert found.positive_ratio == pytest.approx((ratio, ratio * np.exp(-half), ratio * np.exp(half)))


def test_rounds_on_the_same_rows_make_nothing_surer() -> None:
    once = AlarmStatistics.from_alarms(POSITIVE, ALARMS, IDS)
    twice = AlarmStatistics.from_alarms(np.tile(POSITIVE, 2), np.tile(ALARMS, 2), np.tile(IDS, 2), np.repeat([0, 1], N))
    for name in ("sensitivity", "specificity", "ppv", "npv", "alarms"):
        one, two = getattr(once, name), getattr(twice, name)
        assert (one.estimate, one.low, one.high) == pytest.approx((two.estimate, two.low, two.high))
    assert once.positive_ratio == pytest.approx(twice.positive_ratio)


def test_without_false_alarms_the_bounds_are_those_of_the_shares() -> None:
    alarms = POSITIVE & ALARMS
    found = AlarmStatistics.from_alarms(POSITIVE, alarms, IDS)
    assert found.positive_ratio.value == np.inf and found.ppv_at(0.01).value == 1.0
    worst = found.sensitivity.low / (1 - found.specificity.low)
    assert found.positive_ratio.low == pytest.approx(worst)
    assert found.ppv_at(0.01).low == pytest.approx(worst * 0.01 / (worst * 0.01 + 0.99))


def test_there_is_no_value_without_rows() -> None:
    found = AlarmStatistics.from_alarms(POSITIVE, np.zeros(N, dtype=bool), IDS)
    assert np.isnan(found.ppv.estimate) and found.alarms.estimate == 0 and "no such rows" in found.ppv.method
    assert np.isnan(share_interval(np.array([True, False]), IDS[:2]).low)  # two units


@pytest.mark.parametrize("alarmed", [False, True])
def test_a_ratio_is_not_certain_where_all_rows_are_answered_alike(alarmed: bool) -> None:
    found = AlarmStatistics.from_alarms(POSITIVE, np.full(N, alarmed), IDS)
    ratio, at = (found.positive_ratio, found.ppv_at(0.05)) if alarmed else (found.negative_ratio, found.npv_at(0.05))
    of_positive = proportion_confint(P, P, method="beta")[0]  # Clopper and Pearson's, of the rows that have this answer
    of_negative = proportion_confint(Q, Q, method="beta")[0]
    assert ratio.value == 1 and ratio.low == pytest.approx(of_positive) and ratio.high == pytest.approx(1 / of_negative)
    assert at.value == pytest.approx(0.05 if alarmed else 0.95) and at.low < at.value < at.high
