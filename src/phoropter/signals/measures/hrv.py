"""Heart rate variability of a stretch of ECG: time domain, frequency domain and Poincaré plot, after the Task Force (1996).

Names and definitions are those of NeuroKit2 (Makowski et al. 2021) and of Shaffer & Ginsberg (2017); beats are the R peaks that
signals/ecg.py finds. Ectopic beats are not corrected: a stretch with many of them has other values than a cleaned one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.signals.ecg import ecg_qrs_band, ecg_r_peaks

HRV_NAMES = (
    *("MeanNN", "SDNN", "RMSSD", "SDSD", "CVNN", "CVSD", "MedianNN", "MadNN", "MCVNN", "pNN50", "pNN20", "MinNN", "MaxNN"),
    *("VLF", "LF", "HF", "LFHF", "LFn", "HFn", "LnHF", "SD1", "SD2", "SD1SD2"),
)
BANDS_HZ = {"VLF": (0.0033, 0.04), "LF": (0.04, 0.15), "HF": (0.15, 0.4)}
INTERPOLATION_HZ = 4.0  # of the intervals between beats, before their spectrum is estimated
CYCLES = 2  # of a band's lowest frequency that a stretch must hold for the band to be measured
_MIN_INTERVALS = 3
_MAD_SCALE = 1.4826  # makes the median absolute deviation of normal values their standard deviation


def measure_hrv(ecg: NDArray[np.floating], rate_hz: float) -> NDArray[np.float64]:
    """(n,) samples of an ECG → (23,) values in the order of HRV_NAMES; NaN for what a stretch is too short for."""
    try:
        peaks = ecg_r_peaks(ecg_qrs_band(ecg, rate_hz), rate_hz)
    except DataError:  # shorter than two seconds, or without a finite sample
        peaks = np.zeros(0, np.int64)
    found = describe_intervals(np.diff(peaks) / rate_hz * 1000)
    return np.array([found.get(name, float("nan")) for name in HRV_NAMES])


def describe_intervals(nn_ms: NDArray[np.floating] | Sequence[float]) -> dict[str, float]:
    """Intervals between beats in milliseconds → name → value: ms, and ms² of powers; %, or a ratio. Empty below three."""
    nn = np.asarray(nn_ms, np.float64)
    if len(nn) < _MIN_INTERVALS:
        return {}
    steps = np.diff(nn)
    mean, sdnn, rmssd = nn.mean(), nn.std(ddof=1), np.sqrt(np.mean(steps**2))
    median = np.median(nn)
    mad = _MAD_SCALE * np.median(np.abs(nn - median))
    sd1 = steps.std(ddof=1) / np.sqrt(2)
    sd2 = (nn[:-1] + nn[1:]).std(ddof=1) / np.sqrt(2)
    found = {
        "MeanNN": mean,
        "SDNN": sdnn,
        "RMSSD": rmssd,
        "SDSD": steps.std(ddof=1),
        "CVNN": sdnn / mean,
        "CVSD": rmssd / mean,
        "MedianNN": median,
        "MadNN": mad,
        "MCVNN": mad / median,
        "pNN50": 100 * (np.abs(steps) > 50).sum() / len(nn),
        "pNN20": 100 * (np.abs(steps) > 20).sum() / len(nn),
        "MinNN": nn.min(),
        "MaxNN": nn.max(),
        "SD1": sd1,
        "SD2": sd2,
        "SD1SD2": sd1 / sd2 if sd2 > 0 else float("nan"),
    }
    return {name: float(value) for name, value in (found | _measure_bands(nn)).items()}


def _measure_bands(nn: NDArray[np.float64]) -> dict[str, float]:
    """Power of the bands that the stretch is long enough for, by Welch's method on evenly interpolated intervals."""
    from scipy.interpolate import CubicSpline
    from scipy.signal import welch

    times = np.cumsum(nn) / 1000
    duration = times[-1] - times[0]
    even = np.arange(times[0], times[-1], 1 / INTERPOLATION_HZ)
    values = CubicSpline(times, nn)(even)  # straight lines between beats would take a quarter of the power at 0.25 Hz
    frequency, density = welch(values - values.mean(), INTERPOLATION_HZ, nperseg=len(even), detrend="constant")
    found: dict[str, float] = {}
    for name, (low, high) in BANDS_HZ.items():
        inside = (frequency >= low) & (frequency < high)
        if duration * low >= CYCLES and inside.sum() > 1:
            found[name] = float(np.trapezoid(density[inside], frequency[inside]))
    if found.get("HF", 0) > 0:
        found["LnHF"] = float(np.log(found["HF"]))
    if "LF" in found and found.get("HF", 0) > 0:
        total = sum(found.get(name, 0.0) for name in BANDS_HZ)
        found |= {"LFHF": found["LF"] / found["HF"], "LFn": found["LF"] / total, "HFn": found["HF"] / total}
    return found
