"""The calibration error without its bias: near 0 for calibrated candidates, and covered by its interval."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from phoropter.results.metrics.registry import METRICS
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities
from phoropter.results.stats.calibration_error import (
    CalibrationEstimate,
    estimate_calibration_error,
    fit_calibration_line,
    summarize_bins,
)
from phoropter.results.stats.held_out_rows import HeldOutRows


def some_rows(n: int, slope: float = 1.0, seed: int = 0, rounds: int = 1) -> HeldOutRows:
    """Two classes, whose true log-odds are `slope` times the predicted ones."""
    random = np.random.default_rng(seed)
    x = random.normal(0, 1.5, n)
    labels = (random.random(n) < 1 / (1 + np.exp(-slope * x))).astype(np.int64)
    p = 1 / (1 + np.exp(-x))
    zeros = np.zeros(n, dtype=np.int64)
    names = np.arange(n)
    tiled = [np.tile(a, rounds) for a in (labels, p, names, zeros)]
    return HeldOutRows(tiled[0], np.stack([1 - tiled[1], tiled[1]], 1), tiled[2], tiled[3], np.repeat(np.arange(rounds), n))


def simulate_error(n: int, over: float, studies: int, groups: int = 0) -> tuple[list[CalibrationEstimate], float]:
    """Confidences of which a share `over` of the excess over one half is not earned; and the true error."""
    random = np.random.default_rng(n)
    sure = 0.5 + 0.5 * random.beta(2, 2, (studies, n))
    hit = random.random((studies, n)) < 0.5 + (sure - 0.5) * (1 - over)
    units = np.arange(n) % groups if groups else np.arange(n)
    zeros = np.zeros(n, dtype=np.int64)
    return [summarize_bins(s, h, units, zeros) for s, h in zip(sure, hit, strict=True)], 0.25 * over


def test_the_plain_error_is_the_metric_and_that_of_the_bins() -> None:
    rows = some_rows(300)
    found = estimate_calibration_error(rows)
    assert found.error == pytest.approx(METRICS["ece"].compute_value(LabelledProbabilities(rows.labels, rows.probabilities)))
    counts, sure, hits = found.bins.T
    assert counts.sum() == 300 and np.abs(sure - hits).sum() / 300 == pytest.approx(found.error), "table and curve share bins"


@pytest.mark.parametrize("column", [None, 1])
def test_the_points_of_the_curve_are_scikit_learns(column: int | None) -> None:
    rows = some_rows(3000, slope=0.5)
    sure = rows.probabilities.max(1) if column is None else rows.probabilities[:, column]
    hit = rows.probabilities.argmax(1) == rows.labels if column is None else rows.labels == column
    shares, means = calibration_curve(hit, sure, n_bins=15)
    counts, confidence, hits = estimate_calibration_error(rows, column).bins.T
    there = counts > 0
    assert counts.sum() == 3000 and there.sum() == len(shares)
    np.testing.assert_allclose(hits[there] / counts[there], shares)
    np.testing.assert_allclose(confidence[there] / counts[there], means)


def test_the_quoted_case_a_calibrated_candidate_of_120_rows_in_ten_folds() -> None:
    """Plain, it is 0.2 in the mean of folds and 0.08 pooled; without its bias under half of that, and its interval holds 0."""
    studies, _ = simulate_error(120, 0.0, 100)
    folds, _ = simulate_error(12, 0.0, 100)
    assert np.mean([s.error for s in folds]) > 0.18
    assert 0.06 < np.mean([s.error for s in studies]) < 0.1
    assert np.mean([s.debiased for s in studies]) < 0.5 * np.mean([s.error for s in studies])
    assert np.mean([s.low == 0 for s in studies]) > 0.9


@pytest.mark.parametrize(("n", "over", "groups"), [(120, 0.25, 0), (360, 0.5, 0), (400, 0.25, 20)])
def test_the_interval_covers_and_the_debiased_error_is_nearer(n: int, over: float, groups: int) -> None:
    studies, truth = simulate_error(n, over, 100, groups)
    assert np.mean([s.low <= truth <= s.high for s in studies]) > 0.9
    plain, debiased = np.mean([s.error for s in studies]), np.mean([s.debiased for s in studies])
    assert abs(debiased - truth) < abs(plain - truth)


def test_repeats_of_the_same_rows_make_nothing_surer() -> None:
    once, thrice = estimate_calibration_error(some_rows(200)), estimate_calibration_error(some_rows(200, rounds=3))
    assert (thrice.error, thrice.debiased, thrice.low, thrice.high) == pytest.approx(
        (once.error, once.debiased, once.low, once.high), abs=1e-6
    )


def test_intervals_shrink_with_rows_and_two_units_have_none() -> None:
    widths = [e.high - e.low for n in (100, 400, 1600) for e in [estimate_calibration_error(some_rows(n, 0.5))]]
    assert widths[0] > widths[1] > widths[2]
    none = summarize_bins(np.full(8, 0.9), np.ones(8, dtype=bool), np.arange(8) % 2, np.zeros(8, dtype=np.int64))
    assert np.isnan(none.low) and np.isnan(none.high) and none.error == pytest.approx(0.1)


def test_the_positive_class_is_judged_by_its_own_probability() -> None:
    rows = some_rows(400, 0.4)
    found = estimate_calibration_error(rows, 1)
    p, y = rows.probabilities[:, 1], rows.labels == 1
    bins = np.clip(np.ceil(p * 15).astype(int) - 1, 0, 14)
    literal = sum(abs((p - y)[bins == b].sum()) for b in range(15)) / 400
    assert found.error == pytest.approx(literal) and found.bins[:, 2].sum() == y.sum()


@pytest.mark.parametrize("slope", [0.5, 1.0, 1.6])
def test_slope_and_intercept_are_those_of_a_logistic_regression(slope: float) -> None:
    rows = some_rows(500, slope)
    p = rows.probabilities[:, 1]
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(np.log(p / (1 - p))[:, None], rows.labels)
    assert fit_calibration_line(rows) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), abs=1e-5)


def test_separated_classes_and_constant_answers_have_no_slope() -> None:
    zeros = np.zeros(40, dtype=np.int64)
    labels = np.arange(40) % 2
    for p in (0.2 + 0.6 * labels + 0.001 * np.arange(40), np.full(40, 0.3)):
        rows = HeldOutRows(labels, np.stack([1 - p, p], 1), np.arange(40), zeros, zeros)
        assert np.isnan(fit_calibration_line(rows)).all()


def test_far_too_extreme_probabilities_have_their_slope_too() -> None:
    rows = some_rows(500, 0.05)
    p = rows.probabilities[:, 1]
    z = 25 * np.log(p / (1 - p))
    extreme = 1 / (1 + np.exp(-np.clip(z, -27, 27)))
    sure = HeldOutRows(rows.labels, np.stack([1 - extreme, extreme], 1), rows.unit_names, rows.splits, rows.repeats)
    log_odds = np.log(extreme / (1 - extreme))[:, None]
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=5000).fit(log_odds, rows.labels)
    assert fit_calibration_line(sure) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), abs=1e-4)
