"""What twice as much data would bring, on made curves: the estimate, its interval, and where nothing can be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from phoropter.results.data_size.gain import (
    SizeCurve,
    describe_law,
    estimate_gain,
    estimate_training_covariance,
    interpolate_law,
    to_errors,
    to_values,
)
from phoropter.results.metrics.registry import METRICS

SIZES = np.array([10.0, 20.0, 50.0, 100.0])


def make_curve(errors: np.ndarray, spread: float = 0.004, *, metric: str = "accuracy", units: int = 50) -> SizeCurve:
    """10 splits in two rounds; units move all sizes alike, and each a little by itself."""
    draw = np.random.default_rng(3)
    record = METRICS[metric]
    values = 1 - errors if record.higher_is_better else errors
    common, own = draw.normal(0, 0.03, 600), draw.normal(0, spread, (len(errors), 600))
    splits = values[:, None] + draw.normal(0, 0.01, (len(errors), 10))
    return SizeCurve(
        record, SIZES[-len(errors) :], values, values[:, None] + common + own, units, splits, np.arange(10) // 5, 0.25
    )


def test_the_gain_is_that_of_the_law_and_what_sizes_share_cancels() -> None:
    law = 0.1 + 1.0 * SIZES**-0.5
    found = estimate_gain(make_curve(law))
    truth = 100**-0.5 - 200**-0.5
    assert found.gain is not None and found.gain.value == pytest.approx(truth, rel=1e-3)
    assert found.gain.low < truth < found.gain.high and found.gain.low > 0 and found.gain.high - found.gain.low < 0.03
    assert found.seen is not None and found.seen.value == pytest.approx(law[0] - law[-1])
    assert found.law is not None and describe_law(found.law) == "0.100 + 1 n^\u22120.50"
    assert interpolate_law(found.law, SIZES) == pytest.approx(law, abs=1e-4)
    wider = estimate_gain(make_curve(law, 0.02)).gain
    assert wider is not None and wider.high - wider.low > found.gain.high - found.gain.low


def test_less_is_better_for_a_loss() -> None:
    found = estimate_gain(make_curve(0.2 + 3.0 * SIZES**-0.7, metric="log_loss"))
    assert found.gain is not None and found.gain.value == pytest.approx(3 * (100**-0.7 - 200**-0.7), rel=1e-3)
    assert np.array_equal(to_errors(METRICS["log_loss"], SIZES), SIZES)


def test_errors_are_counted_from_the_best_value_of_a_metric_of_ones_own() -> None:
    """A score of 0 to 200 has the gains of 200 times an accuracy, and a loss from -1 those of the loss."""
    plain = make_curve(0.1 + SIZES**-0.5)
    score = replace(METRICS["accuracy"], name="score", highest=200.0)
    scaled = {name: getattr(plain, name) * 200 for name in ("values", "replicates", "split_values")}
    one, other = estimate_gain(plain).gain, estimate_gain(replace(plain, metric=score, **scaled)).gain
    assert one is not None and other is not None
    assert (other.value, other.low, other.high) == pytest.approx((one.value * 200, one.low * 200, one.high * 200), rel=1e-3)
    loss = replace(METRICS["log_loss"], name="loss", lowest=-1.0)
    assert to_values(loss, to_errors(loss, SIZES)) == pytest.approx(SIZES) and to_errors(loss, SIZES) == pytest.approx(SIZES + 1)
    assert to_values(score, to_errors(score, SIZES)) == pytest.approx(SIZES)
    endless = estimate_gain(replace(plain, metric=replace(METRICS["accuracy"], title="points", highest=float("inf"))))
    assert endless.gain is None and endless.reason == "points has no best value, from which an error would be counted"


@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        (make_curve(np.array([0.2, 0.21, 0.2, 0.2])), "the curve does not improve by more than its uncertainty"),
        (make_curve(np.array([0.3, 0.2])), "a power law needs 3 sizes, and there are 2"),
        (make_curve(0.1 + SIZES**-0.5, units=2), "too few independent units"),
        (make_curve(np.array([0.3, np.nan, 0.2, 0.1])), "Accuracy is undefined at some size"),
    ],
)
def test_where_it_cannot_be_told_there_is_a_reason_and_no_gain(curve: SizeCurve, reason: str) -> None:
    found = estimate_gain(curve)
    assert found.gain is None and found.reason.startswith(reason)
    assert (found.seen is None) == ("units" in reason or "undefined" in reason)


def test_training_adds_what_units_do_not_explain() -> None:
    """Splits that vary as their units do leave nothing; a part of training that is common to all sizes is found."""
    draw = np.random.default_rng(0)
    curve = make_curve(0.1 + SIZES**-0.5)
    rounds, n = np.arange(5000) // 5, 5000
    noise = draw.normal(0, 0.02, (4, n))  # of the rows of a fold, by itself
    trained = np.tile(draw.normal(0, 0.03, n), (4, 1))
    of_units = np.eye(4) * 0.02**2 / 5  # of the mean over the 5 folds of a round
    curve = replace(curve, split_values=0.8 + noise + trained, rounds=rounds)
    assert estimate_training_covariance(curve, of_units) == pytest.approx(
        np.full((4, 4), 0.03**2) * (1 / n + 0.25), rel=0.1, abs=1e-5
    )
    alone = replace(curve, split_values=0.8 + noise)
    assert np.abs(estimate_training_covariance(alone, of_units)).max() < 0.1 * 0.02**2
    assert not estimate_training_covariance(replace(curve, split_values=np.full((4, 5), np.nan)), of_units).any()
    assert not estimate_training_covariance(
        replace(curve, split_values=np.full((4, 1), 0.5), rounds=np.zeros(1, int)), of_units
    ).any()
