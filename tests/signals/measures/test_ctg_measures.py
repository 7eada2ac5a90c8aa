"""Features of cardiotocograms on traces whose baseline, events and variation are known by construction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from phoropter.signals.measures.ctg_measures import CTG_FEATURES, estimate_baseline, find_events, measure_ctg

RATE = 4.0
N = int(1800 * RATE)


def measured(fhr: np.ndarray, uc: np.ndarray | None = None) -> dict[str, float]:
    return dict(zip(CTG_FEATURES, measure_ctg(fhr, np.zeros(len(fhr)) if uc is None else uc, RATE), strict=True))


def add_event(fhr: np.ndarray, at_s: float, length_s: float, bpm: float) -> None:
    fhr[int(at_s * RATE) : int((at_s + length_s) * RATE)] += bpm


def test_events_are_counted_by_amplitude_and_duration() -> None:
    fhr = np.full(N, 140.0)
    for at in (100, 400, 700):
        add_event(fhr, at, 30, 20)  # accelerations
    add_event(fhr, 900, 10, 20)  # too short
    add_event(fhr, 1000, 30, 10)  # too small
    add_event(fhr, 1200, 60, -30)  # a deceleration
    add_event(fhr, 1400, 200, -40)  # a prolonged one
    found = measured(fhr)
    assert found["baseline_bpm"] == pytest.approx(140, abs=1)
    assert found["accelerations_per_10min"] == pytest.approx(3 / 3)
    assert found["decelerations_per_10min"] == pytest.approx(2 / 3)
    assert found["prolonged_per_10min"] == pytest.approx(1 / 3)
    assert found["deceleration_area_bpm"] == pytest.approx((60 * 30 + 200 * 40) / 1800, rel=0.03)
    assert found["min_bpm"] == 100 and found["max_bpm"] == 160 and found["median_bpm"] == 140
    assert found["bradycardia_percent"] == pytest.approx(100 * 200 / 1800 + 0, abs=0.1)


def test_the_baseline_follows_a_slow_change_and_not_the_events() -> None:
    fhr = np.linspace(130, 150, N)
    add_event(fhr, 800, 120, 25)
    truth = np.linspace(130, 150, N)
    middle = slice(int(300 * RATE), N - int(300 * RATE))  # at the ends the ten minutes are one-sided
    assert np.abs(estimate_baseline(fhr, RATE) - truth)[middle].max() < 2


def test_variation_is_that_of_a_plain_computation() -> None:
    rng = np.random.default_rng(0)
    fhr = 140 + np.cumsum(rng.normal(0, 0.4, N)) * 0.2 + rng.normal(0, 1, N)
    found = measured(fhr)
    width = round(3.75 * RATE)
    epochs = [np.mean(60000 / fhr[i : i + width]) for i in range(0, N - width + 1, width)]
    assert found["stv_ms"] == pytest.approx(np.mean([abs(b - a) for a, b in itertools.pairwise(epochs)]))
    minutes = [epochs[i : i + 16] for i in range(0, len(epochs) - 15, 16)]
    assert found["ltv_ms"] == pytest.approx(np.mean([max(m) - min(m) for m in minutes]))
    assert found["abnormal_stv_percent"] == pytest.approx(100 * np.mean(np.abs(np.diff(fhr)) < 1))
    blocks = fhr[: N // 240 * 240].reshape(-1, 240)
    assert found["abnormal_ltv_percent"] == pytest.approx(100 * np.mean(blocks.max(1) - blocks.min(1) < 5))
    assert found["deviation_bpm"] == pytest.approx(fhr.std())


def test_contractions_are_peaks_of_pressure() -> None:
    t = np.arange(N) / RATE
    uc = sum(60 * np.exp(-(((t - at) / 25) ** 2)) for at in (200, 450, 700, 950, 1200, 1450)) + 5
    assert measured(np.full(N, 140.0), uc)["contractions_per_10min"] == pytest.approx(2)
    assert measured(np.full(N, 140.0))["contractions_per_10min"] == 0


def test_gaps_are_left_out_and_too_little_is_not_a_number() -> None:
    fhr = np.full(N, 140.0)
    fhr[1000:1500] = np.nan
    found = measured(fhr)
    assert found["stv_ms"] == 0 and found["mean_bpm"] == 140
    assert np.isnan(measure_ctg(np.full(N, np.nan), np.zeros(N), RATE)).all()


def test_events_have_a_least_duration() -> None:
    mask = np.zeros(100, bool)
    mask[10:20], mask[40:80] = True, True
    assert find_events(mask, 4.0, 10.0) == [(40, 80)] and find_events(mask, 4.0, 2.5) == [(10, 20), (40, 80)]
