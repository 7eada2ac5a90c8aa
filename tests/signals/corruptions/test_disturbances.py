"""Disturbances of a channel: their size and frequencies by SciPy's periodogram, their draws, and what stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import periodogram

from phoropter.core.seeds import named_generator
from phoropter.signals.corruptions.disturbances import add_baseline_wander, add_noise, add_powerline, measure_range

RATE = 360.0
SIGNAL = np.random.default_rng(0).normal(0, 0.4, 360 * 120).astype(np.float32)
ADDED = {
    "noise": lambda level: add_noise(SIGNAL, level, named_generator("n")),
    "wander": lambda level: add_baseline_wander(SIGNAL, RATE, level, named_generator("w")),
    "hum": lambda level: add_powerline(SIGNAL, RATE, level, named_generator("h"), 50),
}


def test_the_range_is_that_of_the_middle_98_percent_of_what_was_measured() -> None:
    lacking = SIGNAL.copy()
    lacking[:100] = np.nan
    ordered = np.sort(SIGNAL[100:].astype(float))
    assert measure_range(lacking) == pytest.approx(
        ordered[int(0.99 * len(ordered))] - ordered[int(0.01 * len(ordered))], rel=0.01
    )
    assert measure_range(np.full(3, np.nan, np.float32)) == 0


@pytest.mark.parametrize("kind", ADDED)
def test_what_is_added_has_its_share_of_the_range_and_grows_with_the_level(kind: str) -> None:
    changed = {level: ADDED[kind](level).astype(float) - SIGNAL for level in (0.0, 0.1, 0.2)}
    assert (changed[0.0] == 0).all()
    assert changed[0.1].std() == pytest.approx(0.1 * measure_range(SIGNAL), rel=0.06)
    np.testing.assert_allclose(changed[0.2], 2 * changed[0.1], atol=1e-6)  # the same disturbance, larger


def test_hum_is_one_line_and_wander_is_slow() -> None:
    for kind, low, high in (("hum", 49.9, 50.1), ("wander", 0.08, 0.52)):
        frequencies, power = periodogram(ADDED[kind](0.2).astype(float) - SIGNAL, RATE)
        inside = power[(frequencies >= low) & (frequencies <= high)].sum()
        assert inside / power.sum() > 0.99
    flat = periodogram(ADDED["noise"](0.2).astype(float) - SIGNAL, RATE)[1]
    assert flat[: len(flat) // 2].sum() == pytest.approx(flat[len(flat) // 2 :].sum(), rel=0.05)


def test_other_names_draw_otherwise_and_the_same_name_the_same() -> None:
    one, same, other = (add_noise(SIGNAL, 0.1, named_generator("shift", name)) for name in ("a", "a", "b"))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_missing_samples_stay_missing() -> None:
    lacking = SIGNAL.copy()
    lacking[5:9] = np.nan
    assert np.isnan(add_noise(lacking, 0.1, named_generator("n"))).sum() == 4
