from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.signals.ecg import ecg_clean, ecg_qrs_band, ecg_quality, ecg_r_peaks, require_heartbeat
from phoropter.signals.simulate_ecg import EcgCohort, ecg_simulate_subject

SHORT = EcgCohort(baseline_s=30, stress_s=20, amusement_s=10, between_s=2)
T = np.arange(0, 30, 1 / 500)


def beats() -> np.ndarray:
    return ecg_simulate_subject(SHORT, 1).channel("ECG")


def test_a_simulated_heart_has_a_heartbeat_whatever_its_size_and_polarity() -> None:
    plain = ecg_quality(beats(), 700.0)
    turned = ecg_quality(-0.001 * beats() + 5, 700.0)
    assert plain.has_heartbeat
    assert turned.has_heartbeat
    assert turned.beat_correlation == pytest.approx(plain.beat_correlation, abs=0.01)


def test_the_rate_is_that_of_the_truth() -> None:
    recording = ecg_simulate_subject(SHORT, 2)
    true = 60 / np.median(np.diff(recording.truth["beat_s"]))
    assert ecg_quality(recording.channel("ECG"), 700.0).rate_bpm == pytest.approx(true, rel=0.02)


@pytest.mark.parametrize(
    "noise",
    [
        np.random.default_rng(0).normal(size=len(T)),
        np.cumsum(np.random.default_rng(1).normal(size=len(T))),
        np.sin(2 * np.pi * 50 * T),
        np.sin(2 * np.pi * 10 * T),
        np.zeros(len(T)),
        np.random.default_rng(2).normal(size=len(T)) + 5 * (T > 14.9) * (T < 15.1),
    ],
    ids=["white", "walk", "mains", "sine", "flat", "one bump"],
)
def test_noise_and_sines_have_no_heartbeat(noise: np.ndarray) -> None:
    assert not ecg_quality(noise, 500.0).has_heartbeat


def test_a_recording_without_a_heartbeat_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="Subject02_1: no heartbeat in the ECG"):
        require_heartbeat(np.random.default_rng(0).normal(size=len(T)), 500.0, "Subject02_1")
    assert require_heartbeat(beats(), 700.0, "sim01").has_heartbeat


def test_peaks_are_where_the_spikes_are() -> None:
    spikes = np.arange(300, 14500, 437)
    ecg = np.zeros(15000)
    for at in spikes:
        ecg[at - 10 : at + 11] = np.hanning(21)
    assert np.abs(ecg_r_peaks(ecg_qrs_band(ecg, 500.0), 500.0) - spikes).max() <= 2


def test_missing_samples_do_not_hide_the_other_beats() -> None:
    ecg = beats().copy()
    whole = ecg_r_peaks(ecg_qrs_band(ecg, 700.0), 700.0)
    ecg[7000:10500] = np.nan
    kept = ecg_r_peaks(ecg_qrs_band(ecg, 700.0), 700.0)
    outside = whole[(whole < 6300) | (whole > 11200)]
    assert np.isin(outside, kept).mean() > 0.95


@pytest.mark.parametrize("ecg", [np.zeros(500), np.full(5000, np.nan)], ids=["one second", "nothing finite"])
def test_too_short_a_recording_is_refused(ecg: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected two seconds or more with finite samples"):
        ecg_quality(ecg, 500.0)


def test_the_band_pass_keeps_its_band_and_removes_the_rest() -> None:
    inside, below, above = (np.sin(2 * np.pi * f * T) for f in (10, 0.05, 120))
    middle = slice(5000, 10000)
    assert ecg_clean(inside, 500.0)[middle].std() == pytest.approx(inside[middle].std(), rel=0.02)
    assert ecg_clean(below, 500.0)[middle].std() < 0.02
    assert ecg_clean(above, 500.0)[middle].std() < 0.02


def test_a_batch_is_filtered_as_its_rows_are() -> None:
    batch = np.random.default_rng(0).normal(size=(2, 3000))
    np.testing.assert_allclose(ecg_clean(batch, 500.0)[1], ecg_clean(batch[1], 500.0))


@pytest.mark.parametrize(("low", "high"), [(0.0, 40.0), (40.0, 10.0), (1.0, 300.0)])
def test_an_impossible_band_is_refused(low: float, high: float) -> None:
    with pytest.raises(SpecError, match="ECG band-pass"):
        ecg_clean(T, 500.0, low, high)
