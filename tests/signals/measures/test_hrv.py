"""Heart rate variability against its formulas, written out with other means, and on a simulated heart of known rate."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest

from phoropter.signals.measures.hrv import BANDS_HZ, HRV_NAMES, describe_intervals, measure_hrv

NN = [812.0, 790.0, 845.0, 870.0, 801.0, 779.0, 835.0, 900.0, 850.0, 795.0]


def beats(nn_ms: list[float] | np.ndarray, rate_hz: float) -> np.ndarray:
    """An ECG of narrow pulses with a little noise at the given intervals."""
    times = np.cumsum([600.0, *nn_ms]) / 1000
    t = np.arange(round((times[-1] + 0.6) * rate_hz)) / rate_hz
    pulses = sum(np.exp(-(((t - at) / 0.012) ** 2)) for at in times)
    return pulses + np.random.default_rng(0).normal(0, 0.01, len(t))


def test_the_time_domain_is_that_of_the_formulas() -> None:
    found = describe_intervals(NN)
    steps = [b - a for a, b in itertools.pairwise(NN)]
    mean, median = statistics.fmean(NN), statistics.median(NN)
    expected = {
        "MeanNN": mean,
        "SDNN": statistics.stdev(NN),
        "RMSSD": (sum(s * s for s in steps) / len(steps)) ** 0.5,
        "SDSD": statistics.stdev(steps),
        "CVNN": statistics.stdev(NN) / mean,
        "MedianNN": median,
        "MadNN": 1.4826 * statistics.median([abs(v - median) for v in NN]),
        "pNN50": 100 * sum(abs(s) > 50 for s in steps) / len(NN),
        "pNN20": 100 * sum(abs(s) > 20 for s in steps) / len(NN),
        "MinNN": 779.0,
        "MaxNN": 900.0,
        "SD1": (statistics.variance(steps) / 2) ** 0.5,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    # The ellipse of the Poincaré plot: its axes are the deviations along and across the diagonal
    rotated = np.array([[1, 1], [-1, 1]]) / np.sqrt(2) @ np.array([NN[:-1], NN[1:]])
    assert (found["SD2"], found["SD1"]) == pytest.approx(tuple(rotated.std(axis=1, ddof=1)))


def test_power_lies_in_the_band_of_the_oscillation_and_sums_to_its_variance() -> None:
    for name, frequency in (("LF", 0.1), ("HF", 0.25)):
        nn, at = [], 0.0
        while at < 300:
            nn.append(800 + 40 * np.sin(2 * np.pi * frequency * at))
            at += nn[-1] / 1000
        found = describe_intervals(nn)
        other = "HF" if name == "LF" else "LF"
        assert found[name] > 20 * found[other]
        assert found[name] == pytest.approx(np.var(nn), rel=0.15)  # Parseval
        assert found["LFHF"] == pytest.approx(found["LF"] / found["HF"])
        assert found["LFn"] + found["HFn"] <= 1


def test_bands_need_two_cycles() -> None:
    seconds = {name: 2 / low for name, (low, _) in BANDS_HZ.items()}
    nn = list(np.random.default_rng(1).normal(800, 30, 30))  # 24 s: enough for HF (13 s), not for LF (50 s)
    assert seconds["HF"] < 23 < seconds["LF"]
    found = describe_intervals(nn)
    assert "HF" in found and "LF" not in found and "LFHF" not in found


def test_a_heart_is_measured_through_its_r_peaks() -> None:
    nn = np.random.default_rng(2).normal(820, 25, 60)
    values = dict(zip(HRV_NAMES, measure_hrv(beats(nn, 250.0), 250.0), strict=True))
    expected = describe_intervals(nn)
    for name, within in (("MeanNN", 2.0), ("SDNN", 2.5), ("RMSSD", 3.5)):  # a sample is 4 ms
        assert values[name] == pytest.approx(expected[name], abs=within)


def test_what_holds_no_beats_is_not_a_number() -> None:
    assert np.isnan(measure_hrv(np.zeros(100), 250.0)).all()
    assert np.isnan(measure_hrv(np.full(2000, np.nan), 250.0)).all()
    assert describe_intervals([800.0, 810.0]) == {}


def test_neurokit2_agrees() -> None:
    neurokit2 = pytest.importorskip("neurokit2", reason="neurokit2 is not installed")
    peaks = np.round(np.cumsum([600.0, *NN])).astype(int)
    theirs = neurokit2.hrv_time({"ECG_R_Peaks": peaks}, sampling_rate=1000).iloc[0]
    found = describe_intervals(np.diff(peaks))
    for name in ("MeanNN", "SDNN", "RMSSD", "SDSD", "CVNN", "CVSD", "MedianNN", "MadNN", "pNN50", "pNN20"):
        assert found[name] == pytest.approx(float(theirs[f"HRV_{name}"]), rel=1e-6)
