"""Electrocardiograms: band-pass filter, R peaks, and a check that a recording contains a heartbeat.

The check does not depend on amplitude, polarity or device: it tests whether the stretches around the detected peaks correlate
with each other. Beats of one heart do; peaks of noise do not. The detector is a simple one (band-pass, energy, adaptive
threshold, after Pan & Tompkins, IEEE Trans. Biomed. Eng. 32(3), 1985); it serves the check and the demo, not diagnosis.

Left out on purpose: filtering before the spectrogram, which the SONIC paper does not do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, SpecError
from phoropter.signals.clean import Floats, interpolate_missing

_QRS_HZ = (5.0, 25.0)
_PEAK_THRESHOLD = 0.12  # of the median peak energy: finds 98–100 % of MIT-BIH beats; a lower one counts T waves as beats
_MIN_BEAT_CORRELATION = 0.8
_MIN_KURTOSIS = 4.5  # kurtosis of the band: a sine has 1.5, noise 3, ECG 7 and more


@dataclass(frozen=True)
class EcgQuality:
    """Whether there is a heartbeat, and the measurements that decide it."""

    has_heartbeat: bool
    beat_correlation: float  # median correlation of the beats with their median shape, up to 1
    kurtosis: float  # kurtosis between 5 and 25 Hz
    rate_bpm: float


def ecg_clean(ecg: NDArray[np.floating], rate_hz: float, low_hz: float = 0.5, high_hz: float = 40.0) -> Floats:
    """(…, n) → (…, n): zero-phase band-pass (Butterworth, order 3 each way). NaN are filled in before and restored after."""
    from scipy.signal import butter, sosfiltfilt

    values = np.asarray(ecg, np.float64)
    if not 0 < low_hz < high_hz < rate_hz / 2:
        raise SpecError(f"ECG band-pass: expected 0 < low < high < {rate_hz / 2:g} Hz, came {low_hz:g}..{high_hz:g} Hz")
    missing = np.isnan(values)
    if missing.any():
        values = np.apply_along_axis(interpolate_missing, -1, values)
    sos = butter(3, [low_hz, high_hz], "bandpass", fs=rate_hz, output="sos")
    reach = min(values.shape[-1] - 1, int(3 * rate_hz / low_hz))
    return np.where(missing, np.nan, sosfiltfilt(sos, values, padlen=reach))


def ecg_quality(ecg: NDArray[np.floating], rate_hz: float) -> EcgQuality:
    """Looks for a heartbeat in (n,) samples: at least five beats that correlate with each other and stand out from the rest.

    Raises DataError for less than two seconds, or no finite sample.
    """
    band = ecg_qrs_band(ecg, rate_hz)
    peaks = ecg_r_peaks(band, rate_hz)
    half = round(0.1 * rate_hz)
    inner = peaks[(peaks >= half) & (peaks < len(band) - half)]
    settled = band[round(0.5 * rate_hz) : -round(0.5 * rate_hz)]  # the filter rings at the ends
    kurtosis = float(np.mean(settled**4) / max(np.mean(settled**2) ** 2, np.finfo(float).tiny))
    if len(inner) < 5:
        return EcgQuality(False, 0.0, kurtosis, float("nan"))
    beats = band[inner[:, None] + np.arange(-half, half)]  # (beats, 2 half)
    correlation = float(np.median(_correlate_beats(beats, np.median(beats, axis=0))))
    rate_bpm = float(60.0 * rate_hz / np.median(np.diff(inner)))
    return EcgQuality(correlation >= _MIN_BEAT_CORRELATION and kurtosis >= _MIN_KURTOSIS, correlation, kurtosis, rate_bpm)


def require_heartbeat(ecg: NDArray[np.floating], rate_hz: float, where: str) -> EcgQuality:
    """As `ecg_quality`, but raises DataError where there is no heartbeat."""
    quality = ecg_quality(ecg, rate_hz)
    if not quality.has_heartbeat:
        raise DataError(
            f"{where}: no heartbeat in the ECG (beat correlation {quality.beat_correlation:.2f}, kurtosis "
            f"{quality.kurtosis:.1f}; expected {_MIN_BEAT_CORRELATION} and {_MIN_KURTOSIS} or more): leave the recording out"
        )
    return quality


def ecg_qrs_band(ecg: NDArray[np.floating], rate_hz: float) -> Floats:
    """(n,) → (n,): the band of 5 to 25 Hz, in which QRS complexes lie. Raises DataError below 2 s or without finite samples."""
    values = np.asarray(ecg, np.float64)
    if len(values) < 2 * rate_hz or not np.isfinite(values).any():
        raise DataError(
            f"ECG of {len(values) / rate_hz:g} s: expected two seconds or more with finite samples to look for a heartbeat"
        )
    return ecg_clean(interpolate_missing(values), rate_hz, *_QRS_HZ)


def ecg_r_peaks(band: Floats, rate_hz: float) -> NDArray[np.int64]:
    """(n,) of `ecg_qrs_band` → sample indices of the R peaks, ascending: the largest deflection of each burst of energy."""
    from scipy.ndimage import median_filter, uniform_filter1d
    from scipy.signal import find_peaks

    steepness = np.gradient(band) * rate_hz  # T waves can be as tall as R waves but never as steep
    energy = uniform_filter1d(steepness**2, round(0.12 * rate_hz))
    width = round(2.0 * rate_hz)  # every two seconds hold a beat; the median over blocks ignores a burst of motion
    blocks = energy[: len(energy) // width * width].reshape(-1, width).max(axis=1)
    usual = median_filter(blocks, size=min(9, len(blocks)), mode="nearest")
    threshold = _PEAK_THRESHOLD * usual[np.minimum(np.arange(len(energy)) // width, len(usual) - 1)]
    height = np.maximum(threshold, np.finfo(float).tiny)
    bursts, _ = find_peaks(energy, height=height, distance=max(1, round(0.27 * rate_hz)))
    reach = round(0.08 * rate_hz)
    around = np.clip(bursts[:, None] + np.arange(-reach, reach + 1), 0, len(band) - 1)  # (bursts, 2 reach + 1)
    swing = np.abs(band)[around].argmax(axis=1)
    return np.unique(around[np.arange(len(bursts)), swing]).astype(np.int64)


def _correlate_beats(rows: Floats, shape: Floats) -> Floats:
    rows = rows - rows.mean(axis=1, keepdims=True)
    shape = shape - shape.mean()
    scale = np.linalg.norm(rows, axis=1) * np.linalg.norm(shape)
    return np.where(scale > 0, rows @ shape / np.where(scale > 0, scale, 1.0), 0.0)
