"""Values that stand for a missing sample are told from samples."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.signals.quality.sentinels import MIN_REPEATS, find_sentinel_values, format_sample
from phoropter.signals.simulate_ecg import EcgCohort, ecg_simulate

RNG = np.random.default_rng(0)
ECG = RNG.normal(size=5000).astype(np.float32)


def with_value(value: float, count: int, samples: np.ndarray = ECG) -> np.ndarray:
    changed = samples.copy()
    changed[100 : 100 + count] = value
    return changed


@pytest.mark.parametrize("value", [-9999, 9999, -999, 99999, 32767, -32768, -2147483648])
@pytest.mark.parametrize("count", [1, 400])
def test_a_usual_value_is_found_even_once(value: float, count: int) -> None:
    assert find_sentinel_values(with_value(value, count)) == {value: count}


@pytest.mark.parametrize("value", [-3276.8, 1e30, 50.5])
def test_any_other_value_is_found_where_it_repeats(value: float) -> None:
    assert find_sentinel_values(with_value(value, MIN_REPEATS)) == {float(np.float32(value)): MIN_REPEATS}
    assert find_sentinel_values(with_value(value, MIN_REPEATS - 1)) == {}


def test_several_values_are_found_beside_missing_samples() -> None:
    samples = with_value(-9999, 50)
    samples[1000:1020], samples[2000:2003], samples[3000:3500] = 9999, 99999, np.nan
    assert find_sentinel_values(samples) == {-9999: 50, 9999: 20, 99999: 3}


def test_a_pause_of_zeros_is_found_in_a_rate_and_not_in_an_ecg() -> None:
    rate = RNG.integers(110, 160, 5000).astype(np.float32)
    assert find_sentinel_values(with_value(0, 40, rate)) == {0: 40}
    assert find_sentinel_values(with_value(-1, 40, rate)) == {-1: 40}
    assert find_sentinel_values(with_value(0, 40)) == {}


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(100),
        np.full(100, -9999.0),  # nothing to be far from
        np.array([]),
        np.full(20, np.nan),
        np.repeat([0.0, 1.0], 50),  # a marker that is on or off
        np.repeat([0.0, 1.0, 9.0], 50),
        np.clip(RNG.normal(size=5000) * 40000, -32768, 32767).round(),  # saturated, and close to its neighbours
        RNG.integers(0, 2000, 5000),
    ],
)
def test_what_is_a_signal_is_left_alone(samples: np.ndarray) -> None:
    assert find_sentinel_values(samples.astype(np.float32)) == {}


def test_spikes_of_one_height_are_no_missing_samples() -> None:
    paced = np.round(RNG.normal(size=6000) * 0.05, 1).astype(np.float32)
    paced[::200] = paced[1::200] = 3.0  # a pacemaker in coarse steps
    assert find_sentinel_values(paced) == {}
    paced[100:110] = 3.0  # a plateau
    assert find_sentinel_values(paced) == {3.0: 70}
    paced = np.where(paced == 3.0, np.float32(500), paced)
    paced[100:110] = 0
    assert find_sentinel_values(paced) == {500.0: 60}  # nothing in a body is a thousand times as high


def test_simulated_hearts_have_none() -> None:
    cohort = EcgCohort(subjects=2, rate_hz=100, baseline_s=30, stress_s=20, amusement_s=10, between_s=5)
    for recording in ecg_simulate(cohort):
        assert find_sentinel_values(recording.channel("ECG")) == {}


@pytest.mark.parametrize(("value", "text"), [(-9999.0, "-9999"), (-3276.8, "-3276.8"), (1e30, "1e+30"), (0.1, "0.1")])
def test_a_value_is_written_as_a_person_writes_it(value: float, text: str) -> None:
    assert format_sample(float(np.float32(value))) == text
