"""Which interval a metric has: each rule against its formula written out, its published figures, and its limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score
from statsmodels.stats.proportion import proportion_confint

from phoropter.results.intervals.bootstrap import Bootstrap
from phoropter.results.intervals.bootstrap_intervals import bootstrap_interval
from phoropter.results.intervals.interval_rules import choose_interval, clip_difference, student_quantile
from phoropter.results.metrics import registry
from phoropter.results.metrics.probabilities import softmax


def answer_rows(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    answers = np.where(right, labels, 1 - labels)
    return np.where(np.arange(2) == answers[:, None], 0.8, 0.2)


def area_case(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % 2
    return labels, softmax(np.stack([np.zeros(n), np.random.default_rng(seed).normal(size=n) + labels], axis=1))


def logit_interval(centre: float, error: float, quantile: float) -> list[float]:
    odds, half = centre / (1 - centre), quantile * error / (centre * (1 - centre))
    return [odds * np.exp(sign * half) / (1 + odds * np.exp(sign * half)) for sign in (-1, 1)]


@pytest.mark.parametrize(("right", "n"), [(80, 100), (1, 30), (29, 30), (990, 1000)])
def test_accuracy_of_independent_rows_is_wilsons(right, n):
    found = bootstrap_interval("accuracy", np.zeros(n, dtype=int), answer_rows(np.arange(n) < right, np.zeros(n, dtype=int)))
    assert (found.low, found.high) == pytest.approx(proportion_confint(right, n, method="wilson"))
    assert found.method == f"Wilson's interval of {n:,} independent rows"


@pytest.mark.parametrize("n", [5, 30, 1000])
def test_all_or_none_right_has_clopper_and_pearsons_bound(n):
    labels = np.zeros(n, dtype=int)
    found = bootstrap_interval("accuracy", labels, answer_rows(labels == 0, labels))
    assert (found.low, found.high) == (pytest.approx(proportion_confint(n, n, method="beta")[0]), 1)
    found = bootstrap_interval("accuracy", labels, answer_rows(labels == 1, labels))
    assert (found.low, found.high) == (0, pytest.approx(proportion_confint(0, n, method="beta")[1]))


def test_thirty_of_thirty_is_not_certain_by_any_metric_of_answers():
    labels = np.arange(30) % 2
    p = answer_rows(labels >= 0, labels)
    assert bootstrap_interval("accuracy", labels, p).low == pytest.approx(0.884, abs=5e-4)  # printed in tables of exact limits
    for name in ("macro_f1", "balanced_accuracy", "macro_recall"):
        found = bootstrap_interval(name, labels, p)
        assert (found.low, found.high) == (pytest.approx(0.025 ** (1 / 15)), 1)  # 15 rows of either class
    assert bootstrap_interval("mcc", labels, p).low == pytest.approx(2 * 0.025 ** (1 / 15) - 1)


def test_accuracy_over_folds_is_wilsons_of_all_rows():
    labels = np.zeros(100, dtype=int)
    p = answer_rows(np.arange(100) % 10 > 0, labels)
    found = Bootstrap(labels, np.arange(100), splits=np.arange(100) // 20).compute_replicates("accuracy", p).confidence_interval()
    assert (found.low, found.high) == pytest.approx(proportion_confint(90, 100, method="wilson"))


def test_accuracy_of_groups_has_students_t_on_the_logit_scale():
    right = np.repeat([0.9, 0.8, 0.7, 1.0], 10) > np.tile(np.arange(10) / 10 + 0.05, 4)
    labels = np.zeros(40, dtype=int)
    found = bootstrap_interval("accuracy", labels, answer_rows(right, labels), np.repeat(np.arange(4), 10))
    error = np.std([0.9, 0.8, 0.7, 1.0], ddof=1) / 2
    assert (found.low, found.high) == pytest.approx(logit_interval(0.85, error, 3.182446), abs=1e-6)
    assert found.method == "Student's t with 3 degrees of freedom on the logit scale, 4 units"


def test_equally_right_groups_have_no_fewer_errors_than_rows():
    labels, right = np.zeros(40, dtype=int), np.tile(np.arange(10) < 8, 4)
    found = bootstrap_interval("accuracy", labels, answer_rows(right, labels), np.repeat(np.arange(4), 10))
    assert (found.low, found.high) == pytest.approx(logit_interval(0.8, np.sqrt(0.8 * 0.2 / 40), 3.182446), abs=1e-6)


def test_all_groups_right_rests_on_the_number_of_groups():
    labels = np.zeros(40, dtype=int)
    found = bootstrap_interval("accuracy", labels, answer_rows(labels == 0, labels), np.repeat(np.arange(4), 10))
    assert (found.low, found.high) == (pytest.approx(0.025**0.25), 1)


def test_area_of_independent_rows_is_delongs_on_the_logit_scale():
    """By hand: AUC 11/12; the placement values of the positives 1, 1, 3/4, of the negatives 2/3, 1, 1, 1."""
    labels, scores = np.r_[1, 1, 1, 0, 0, 0, 0], np.array([0.9, 0.8, 0.35, 0.4, 0.3, 0.2, 0.1])
    found = bootstrap_interval("roc_auc", labels, np.stack([1 - scores, scores], axis=1))
    of_positives, of_negatives = np.var([1, 1, 0.75], ddof=1) / 3, np.var([2 / 3, 1, 1, 1], ddof=1) / 4
    both = of_positives + of_negatives
    df = both**2 / (of_positives**2 / 2 + of_negatives**2 / 3)  # Welch and Satterthwaite
    expected = logit_interval(11 / 12, np.sqrt(both), stats.t.ppf(0.975, df))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.method == "DeLong's variance, Welch's degrees of freedom, on the logit scale, 7 independent rows"


def test_perfect_area_has_an_exact_bound():
    labels = (np.arange(30) < 6).astype(int)
    p = answer_rows(labels >= 0, labels)
    found = bootstrap_interval("roc_auc", labels, p)
    assert (found.low, found.high) == (pytest.approx(0.025 ** (1 / 6)), 1)  # six disjoint pairs, all in order
    assert found.method == "exact bound from 6 independent pairs"


def test_area_within_people_rests_on_people():
    """Leave one person out: the mean of areas, each of one person, all 1."""
    labels = np.arange(32) % 2
    people = np.repeat(np.arange(8), 4)
    p = answer_rows(labels >= 0, labels)
    found = Bootstrap(labels, people, splits=people).compute_replicates("roc_auc", p).confidence_interval()
    assert (found.low, found.high) == (pytest.approx(0.025 ** (1 / 8)), 1)


def test_area_of_groups_has_students_t_of_their_derivatives():
    """Of five groups: the derivative by the weight of each, by a small change of the weights of its rows."""
    from sklearn.metrics import roc_auc_score

    labels, p = area_case(60, seed=3)
    groups = np.arange(60) // 12
    area = roc_auc_score(labels, p[:, 1])
    slopes = [(roc_auc_score(labels, p[:, 1], sample_weight=1 + 1e-5 * (groups == g)) - area) / 1e-5 for g in range(5)]
    error = np.sqrt(5 / 4 * np.square(slopes).sum())
    found = bootstrap_interval("roc_auc", labels, p, groups)
    assert (found.low, found.high) == pytest.approx(logit_interval(area, error, 2.776445), abs=1e-4)


def test_other_bounded_metrics_take_the_standard_error_of_the_bootstrap():
    labels = np.arange(60) % 2
    p = answer_rows(np.random.default_rng(0).random(60) < 0.8, labels)
    replicates = Bootstrap(labels, np.arange(60) % 12).compute_replicates("macro_f1", p)
    found = replicates.confidence_interval()
    centre = f1_score(labels, p.argmax(1), average="macro")
    error = np.std(replicates.values) * np.sqrt(12 / 11)
    assert (found.low, found.high) == pytest.approx(logit_interval(centre, error, 2.200985), abs=1e-6)


def test_losses_have_students_t_on_the_log_scale():
    labels, p = area_case(60)
    replicates = Bootstrap(labels, np.arange(60) % 6).compute_replicates("log_loss", p)
    found = replicates.confidence_interval()
    half = 2.570582 * np.std(replicates.values) * np.sqrt(6 / 5) / found.estimate
    assert (found.low, found.high) == pytest.approx([found.estimate * np.exp(-half), found.estimate * np.exp(half)], abs=1e-6)
    assert found.method == "Student's t with 5 degrees of freedom on the log scale, 6 units"


def test_metrics_of_any_value_have_stretched_percentiles():
    labels, p = area_case(60)
    drawn = Bootstrap(labels, np.arange(60) % 6).compute_replicates("log_loss", p)
    unbounded = replace(registry.get_metric("log_loss"), lowest=-np.inf)
    found = choose_interval(unbounded, drawn.estimate, drawn.values, drawn.design)
    bounds = np.quantile(drawn.values, [0.025, 0.975])
    stretch = 2.570582 / 1.959964 * np.sqrt(6 / 5)
    assert (found.low, found.high) == pytest.approx(found.estimate + stretch * (bounds - found.estimate), abs=1e-6)
    assert found.method == "percentile bootstrap of 6 units, stretched by Student's t"


@pytest.mark.parametrize("name", ["accuracy", "roc_auc", "macro_f1", "mcc", "log_loss"])
def test_intervals_shrink_as_rows_are_added(name):
    """The same rows twice and eight times, as further independent rows."""
    labels, p = area_case(40)
    widths = []
    for times in (1, 2, 8):
        found = bootstrap_interval(name, np.tile(labels, times), np.tile(p, (times, 1)))
        widths.append(found.high - found.low)
    assert widths[0] > widths[1] > widths[2] > 0


@pytest.mark.parametrize("name", [m for m in registry.list_metrics() if m != "top5_accuracy"])
def test_names_of_groups_and_order_of_rows_change_no_rule(name):
    labels, p = area_case(60, seed=1)
    groups = np.arange(60) % 10
    order = np.random.default_rng(0).permutation(60)
    one = bootstrap_interval(name, labels, p, groups)
    other = bootstrap_interval(name, labels[order], p[order], np.array([f"person {g}" for g in groups])[order])
    assert (other.low, other.high, other.method) == (pytest.approx(one.low), pytest.approx(one.high), one.method)
    assert one.low <= one.estimate <= one.high


@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("name", ["accuracy", "roc_auc", "macro_f1", "log_loss"])
def test_under_three_units_there_is_no_interval(name, units):
    labels, p = area_case(40)
    found = bootstrap_interval(name, labels, p, np.repeat(np.arange(units), 40 // units))
    assert np.isnan([found.low, found.high]).all()
    assert found.method == f"no interval: {units} independent units, at least 3 are needed"


def test_students_quantile_is_the_printed_one():
    assert student_quantile(0.95, 2) == pytest.approx(4.302653, abs=1e-6)


def test_coverage_of_five_groups():
    """Accuracies of groups by a beta law of mean 0.9 and an intraclass correlation of 0.1; the percentiles covered 79 %."""
    rng = np.random.default_rng(0)
    labels, groups = np.zeros(100, dtype=int), np.repeat(np.arange(5), 20)
    covered = 0
    for _ in range(400):
        right = rng.random(100) < rng.beta(8.1, 0.9, 5)[groups]
        found = bootstrap_interval("accuracy", labels, answer_rows(right, labels), groups, resamples=2)
        covered += found.low <= 0.9 <= found.high
    assert 0.93 <= covered / 400 <= stats.binom.ppf(0.999, 400, 0.97) / 400


def test_a_difference_is_bounded_by_the_values_that_differ() -> None:
    assert clip_difference(-4.4, 5.5, (0.0, 1.0)) == (-1.0, 1.0) and clip_difference(-4.4, 0.5, (-1.0, 1.0)) == (-2.0, 0.5)
    assert clip_difference(-4.4, 5.5, (0.0, np.inf)) == (-4.4, 5.5)
    assert np.isnan(clip_difference(np.nan, np.nan, (0.0, 1.0))).all(), "no interval stays none"
