"""The power law against scipy's curve_fit, from errors with and without noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from phoropter.results.data_size.power_law import MAX_EXPONENT, MIN_EXPONENT, fit_power_law

SIZES = np.array([20.0, 40.0, 100.0, 200.0])


@pytest.mark.parametrize(("a", "b", "c"), [(0.05, 1.2, 0.5), (0.02, 0.9, 0.3), (0.2, 3.0, 1.0), (0.0, 0.8, 0.25)])
def test_known_parameters_are_found_again(a: float, b: float, c: float) -> None:
    law = fit_power_law(SIZES, a + b * SIZES**-c)
    assert (law.a[0], law.scale[0], law.c[0]) == pytest.approx((a, b, c), rel=2e-3, abs=1e-3)
    assert law.predict_gain(200)[0] == pytest.approx(b * 200**-c - b * 400**-c, rel=1e-3)


def test_least_squares_are_those_of_curve_fit() -> None:
    """Also where the optimum lies on a bound: a at 0, and the exponent at its ends."""
    draw = np.random.default_rng(0)
    errors = 0.1 + 1.0 * SIZES**-0.5 + draw.normal(0, 0.01, (8, 4))
    law = fit_power_law(SIZES, errors)
    for place, each in enumerate(errors):
        best = np.inf
        for start in (0.1, 0.5, 1.5):  # it stops in local optima
            found, _ = curve_fit(
                lambda n, a, b, c: a + b * n**-c,
                SIZES / 200,
                each,
                p0=[0.05, 0.1, start],
                bounds=([0, 0, MIN_EXPONENT], [10, 10, MAX_EXPONENT]),
                ftol=1e-14,
                xtol=1e-14,
                gtol=1e-14,
                max_nfev=20_000,
            )
            best = min(best, float(((found[0] + found[1] * (SIZES / 200) ** -found[2] - each) ** 2).sum()))
        ours = np.array([law.predict_error(size)[place] for size in SIZES])
        assert ((ours - each) ** 2).sum() == pytest.approx(best, rel=1e-3, abs=1e-9)


def test_a_rising_error_is_fitted_by_a_constant_and_gains_nothing() -> None:
    law = fit_power_law(SIZES, np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]]))
    assert law.predict_error(123.0) == pytest.approx([0.25, 0.25]) and law.predict_gain(200).tolist() == [0, 0]


def test_two_sizes_are_too_few() -> None:
    with pytest.raises(ValueError, match="three parameters, and 2 sizes came"):
        fit_power_law(np.array([10.0, 10.0, 20.0]), np.ones((1, 3)))
