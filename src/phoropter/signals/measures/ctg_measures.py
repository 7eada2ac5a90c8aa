"""Features of a cardiotocogram: baseline, accelerations, decelerations, variability, contractions, after FIGO and SisPorto.

Sources: Ayres-de-Campos et al., FIGO consensus guidelines (2015); Ayres-de-Campos et al., SisPorto 2.0 (2000), for the shares of
abnormal variability; Dawes, Moulden & Redman (1991) for variation in milliseconds over epochs of a sixteenth of a minute.

Left out: uterine hypertonus, sinusoidal patterns, and the kinds of decelerations, which need the course of single contractions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phoropter.signals.clean import centred_mean, find_runs, seconds_to_samples

CTG_FEATURES = (
    *("baseline_bpm", "baseline_drift_bpm", "accelerations_per_10min", "decelerations_per_10min", "prolonged_per_10min"),
    *("deceleration_area_bpm", "stv_ms", "ltv_ms", "abnormal_stv_percent", "abnormal_ltv_percent"),
    *("mean_bpm", "median_bpm", "deviation_bpm", "min_bpm", "max_bpm", "tachycardia_percent", "bradycardia_percent"),
    "contractions_per_10min",
)
EVENT_BPM, EVENT_S, PROLONGED_S = 15.0, 15.0, 180.0  # amplitude and least duration of an event; of a prolonged deceleration
EPOCH_S = 3.75  # a sixteenth of a minute
ABNORMAL_STV_BPM, ABNORMAL_LTV_BPM = 1.0, 5.0
TACHYCARDIA_BPM, BRADYCARDIA_BPM = 160.0, 110.0
_BASELINE_ROUNDS, _BASELINE_S = 5, 600.0
_CONTRACTION_HEIGHT, _CONTRACTION_S = 0.25, 30.0  # of the window's range of pressure; least width
_CONTRACTION_GAP_S = 60.0


def measure_ctg(fhr: NDArray[np.floating], uc: NDArray[np.floating], rate_hz: float) -> NDArray[np.float64]:
    """(n,) heart rate in beats per minute and (n,) contractions → (18,) in the order of CTG_FEATURES.

    Samples that are NaN are left out; all are NaN where less than a minute of heart rate was measured.
    """
    x = np.asarray(fhr, np.float64)
    known = np.isfinite(x)
    if known.sum() < 60 * rate_hz:
        return np.full(len(CTG_FEATURES), np.nan)
    tens = known.sum() / rate_hz / 600
    baseline = estimate_baseline(x, rate_hz)
    above, below = x - baseline >= EVENT_BPM, baseline - x >= EVENT_BPM
    falls = find_events(below, rate_hz, EVENT_S)
    stv, ltv = _measure_variation_ms(x, rate_hz)
    return np.array(
        [
            np.nanmean(baseline),
            np.nanmax(baseline) - np.nanmin(baseline),
            len(find_events(above, rate_hz, EVENT_S)) / tens,
            len(falls) / tens,
            sum(stop - start >= PROLONGED_S * rate_hz for start, stop in falls) / tens,
            sum(np.nansum(baseline[a:b] - x[a:b]) for a, b in falls) / known.sum(),
            stv,
            ltv,
            _share_of_quiet_steps(x),
            _share_of_quiet_minutes(x, rate_hz),
            *(np.nanmean(x), np.nanmedian(x), np.nanstd(x), np.nanmin(x), np.nanmax(x)),
            100 * (x[known] > TACHYCARDIA_BPM).mean(),
            100 * (x[known] < BRADYCARDIA_BPM).mean(),
            count_contractions(uc, rate_hz) / (len(x) / rate_hz / 600),
        ]
    )


def estimate_baseline(fhr: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    """(n,) → (n,): the mean over ten minutes of what lies within 15 bpm of it, found by repetition, beginning at the mode."""
    known = fhr[np.isfinite(fhr)]
    counts, edges = np.histogram(known, bins=np.arange(known.min(), known.max() + 10, 5))
    mode = edges[counts.argmax()] + 2.5
    baseline = np.full(len(fhr), mode)
    width = seconds_to_samples(_BASELINE_S, rate_hz)
    for _ in range(_BASELINE_ROUNDS):
        near = np.where(np.abs(fhr - baseline) < EVENT_BPM, fhr, np.nan)
        found = centred_mean(near, width)
        baseline = np.where(np.isfinite(found), found, baseline)
    return baseline


def find_events(mask: NDArray[np.bool_], rate_hz: float, least_s: float) -> list[tuple[int, int]]:
    """(start, stop) in samples of the runs of True that last at least so many seconds."""
    starts, stops = find_runs(mask)
    return [(int(a), int(b)) for a, b in zip(starts, stops, strict=True) if b - a >= least_s * rate_hz]


def count_contractions(uc: NDArray[np.floating], rate_hz: float) -> int:
    """Peaks that rise by a quarter of the window's range, last 30 s and are a minute apart; 0 where nothing was measured."""
    from scipy.signal import find_peaks

    values = np.asarray(uc, np.float64)
    if not np.isfinite(values).any() or np.nanmax(values) == np.nanmin(values):
        return 0
    filled = np.where(np.isfinite(values), values, np.nanmin(values))
    span = filled.max() - filled.min()
    peaks, _ = find_peaks(
        filled, prominence=_CONTRACTION_HEIGHT * span, width=_CONTRACTION_S * rate_hz, distance=_CONTRACTION_GAP_S * rate_hz
    )
    return len(peaks)


def _measure_variation_ms(fhr: NDArray[np.float64], rate_hz: float) -> tuple[float, float]:
    """Short-term variation: mean difference between epochs in ms; long-term: mean range of the epochs of a minute in ms."""
    width = seconds_to_samples(EPOCH_S, rate_hz)
    epochs = (60000 / fhr)[: len(fhr) // width * width].reshape(-1, width).mean(axis=1)  # an epoch with a gap is NaN
    minutes = epochs[: len(epochs) // 16 * 16].reshape(-1, 16)
    steps, ranges = np.abs(np.diff(epochs)), minutes.max(axis=1) - minutes.min(axis=1)
    short, long = (values[np.isfinite(values)] for values in (steps, ranges))
    return (float(short.mean()) if len(short) else float("nan"), float(long.mean()) if len(long) else float("nan"))


def _share_of_quiet_steps(fhr: NDArray[np.float64]) -> float:
    """Per cent of steps from sample to sample of less than 1 bpm."""
    steps = np.abs(np.diff(fhr))
    return float(100 * (steps[np.isfinite(steps)] < ABNORMAL_STV_BPM).mean()) if np.isfinite(steps).any() else float("nan")


def _share_of_quiet_minutes(fhr: NDArray[np.float64], rate_hz: float) -> float:
    """Per cent of minutes whose highest and lowest heart rates differ by less than 5 bpm."""
    width = seconds_to_samples(60.0, rate_hz)
    minutes = fhr[: len(fhr) // width * width].reshape(-1, width)
    whole = minutes[np.isfinite(minutes).all(axis=1)]
    return float(100 * (np.ptp(whole, axis=1) < ABNORMAL_LTV_BPM).mean()) if len(whole) else float("nan")
