"""Slope and intercept with intervals over units, against statsmodels' logistic regression with clustered errors."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from phoropter.results.clinical.calibration_line import estimate_calibration_line
from phoropter.results.stats.held_out_rows import HeldOutRows


def make_rows(n: int = 300, per_person: int = 1, rounds: int = 1) -> HeldOutRows:
    draw = np.random.default_rng(6)
    person = np.arange(n) // per_person
    x = draw.normal(0, 1.2, n) + draw.normal(0, 0.5, n // per_person)[person]
    labels = (draw.random(n) < 1 / (1 + np.exp(-0.6 * x - 0.2))).astype(np.int64)
    p = 1 / (1 + np.exp(-x))
    zeros = np.zeros(n * rounds, dtype=np.int64)
    tiled = [np.tile(a, rounds) for a in (labels, p, person)]
    return HeldOutRows(tiled[0], np.stack([1 - tiled[1], tiled[1]], axis=1), tiled[2], zeros, np.repeat(np.arange(rounds), n))


@pytest.mark.parametrize("per_person", [1, 10])
def test_bounds_are_those_of_clustered_errors(per_person: int) -> None:
    rows = make_rows(per_person=per_person)
    x = np.log(rows.probabilities[:, 1] / rows.probabilities[:, 0])
    groups = np.unique(rows.unit_names, return_inverse=True)[1]
    options = {"groups": groups, "use_correction": False}
    fitted = sm.Logit(rows.labels, sm.add_constant(x)).fit(disp=0, tol=1e-10, cov_type="cluster", cov_kwds=options)
    found, n = estimate_calibration_line(rows), len(np.unique(groups))
    half = stats.t.ppf(0.975, n - 1) * fitted.bse * np.sqrt(n / (n - 1))
    for estimate, value, h in zip((found.intercept, found.slope), fitted.params, half, strict=True):
        assert estimate == pytest.approx((value, value - h, value + h), abs=1e-5)


def test_rounds_on_the_same_rows_make_nothing_surer() -> None:
    assert estimate_calibration_line(make_rows(rounds=3)).slope == pytest.approx(estimate_calibration_line(make_rows()).slope)


def test_without_a_line_there_are_no_bounds() -> None:
    rows = make_rows()
    one_class = HeldOutRows(np.zeros_like(rows.labels), rows.probabilities, rows.unit_names, rows.splits, rows.repeats)
    assert np.isnan(estimate_calibration_line(one_class).slope).all()
    two_units = HeldOutRows(rows.labels, rows.probabilities, np.arange(300) % 2, rows.splits, rows.repeats)
    assert np.isnan(estimate_calibration_line(two_units).slope.low)


def test_another_column_is_another_class() -> None:
    rows = make_rows()
    first, second = estimate_calibration_line(rows, 0), estimate_calibration_line(rows, 1)
    assert first.slope == pytest.approx(second.slope) and first.intercept.value == pytest.approx(-second.intercept.value)
