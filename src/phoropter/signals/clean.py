"""Cleaning cardiotocograms: artefact rules, gap filling, fetal-heart-rate baseline, filters; after Alkanan et al. 2021.

The rules are those of Alkanan, Shimizu, Horiuchi et al. (NOLTA 12(3), 2021) as summarised by Hemmi (Hosei University
bulletin 65, 2024). What these leave open is a named field of the rules, with a comment. The whole record is cleaned and its
baseline computed before windows are cut from it (`extract_ctg_windows`).

Each rule is one function and works on the output of the rule before it. A cause code per sample records which rule removed it, so
that a report can state how much of a record was measured and how much was filled in.

Heart rates (FHR) are in bpm and contractions (UC) in arbitrary units. Arrays are 1-D unless a docstring gives another shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from phoropter.core.errors import SpecError
from phoropter.core.spec import Spec

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Causes = NDArray[np.uint8]

OK, GAP, RANGE, JUMP, BLOCK, NAN = range(6)


class FhrRules(Spec):
    """Heart-rate rules F1 to F5 and the baseline; defaults are the paper's where it gives any.

    gap_s:      F1: zeros for this many seconds or longer are a gap
    long_gap:   whether such a gap is filled in: "interpolate" or "keep-nan"
    low_bpm:    F2: values at or below are artefacts
    high_bpm:   F2: values at or above are artefacts
    jump_bpm:   F3: steps of this much or more are artefacts
    jump:       F3 removes the later sample ("forward") or "both"; not in the paper
    block_s:    F4: length of a block in seconds
    block_bpm:  F4: values this far or farther from the mean of their block are artefacts
    block:      F4: consecutive "blocks", or "rolling" ones centred on each sample; not in the paper
    baseline_s: seconds over which the baseline averages
    baseline:   "rolling", or constant per "block"; not in the paper, and without clinical rounding to 5 bpm
    """

    gap_s: PositiveFloat = 15.0
    long_gap: Literal["interpolate", "keep-nan"] = "interpolate"
    low_bpm: float = 50.0
    high_bpm: float = 200.0
    jump_bpm: PositiveFloat = 25.0
    jump: Literal["forward", "both"] = "forward"
    block_s: PositiveFloat = 15.0
    block_bpm: PositiveFloat = 25.0
    block: Literal["blocks", "rolling"] = "blocks"
    baseline_s: PositiveFloat = 600.0
    baseline: Literal["rolling", "block"] = "rolling"


class UcRules(Spec):
    """Contraction rules U1 to U3.

    mean_s: U2: seconds of the centred mean
    span_s: U3: span of the exponential smoothing in seconds, a = 2/(span + 1), which lags by about half of it; not in the paper
    """

    mean_s: PositiveFloat = 60.0
    span_s: PositiveFloat = 15.0


@dataclass(frozen=True, eq=False)
class CleanedChannel:
    """One cleaned channel: values (NaN where nothing could be filled in), a cause per sample, whether any sample is valid."""

    values: Floats
    causes: Causes
    valid: bool


# --- the heart rate ---------------------------------------------------------------------------------------------------


def fhr_clean(fhr: NDArray[np.floating], rate_hz: float = 4.0, rules: FhrRules | None = None) -> CleanedChannel:
    """Applies F1 to F5: gaps, range, jumps, blocks, then linear filling. All NaN and not valid where no finite sample is left."""
    *_, (_, cleaned) = clean_fhr_by_rule(fhr, rate_hz, rules)
    return cleaned


def clean_fhr_by_rule(
    fhr: NDArray[np.floating], rate_hz: float = 4.0, rules: FhrRules | None = None
) -> Iterator[tuple[str, CleanedChannel]]:
    """What each of F1 to F5 does, in words, and the channel after it. F1 to F4 share one array, which the next rule changes."""
    rules = rules or FhrRules()
    x = np.array(fhr, np.float64)
    causes = np.where(np.isnan(x), NAN, OK).astype(np.uint8)
    _mark_missing(x, causes, zero_runs(x, seconds_to_samples(rules.gap_s, rate_hz)), GAP)
    yield f"zeros for {rules.gap_s:g} s or longer removed", CleanedChannel(x, causes, True)
    _mark_missing(x, causes, out_of_range(x, rules.low_bpm, rules.high_bpm), RANGE)
    yield f"values up to {rules.low_bpm:g} or from {rules.high_bpm:g} removed", CleanedChannel(x, causes, True)
    _mark_missing(x, causes, find_jumps(x, rules.jump_bpm, rules.jump), JUMP)
    yield f"steps of {rules.jump_bpm:g} or more removed", CleanedChannel(x, causes, True)
    _mark_missing(x, causes, far_from_mean(x, seconds_to_samples(rules.block_s, rate_hz), rules.block_bpm, rules.block), BLOCK)
    yield f"values {rules.block_bpm:g} from the mean of {rules.block_s:g} s removed", CleanedChannel(x, causes, True)
    valid = bool(np.isfinite(x).any())
    x = interpolate_missing(x)
    if rules.long_gap == "keep-nan":
        x[causes == GAP] = np.nan
    yield "what is missing filled in by straight lines", CleanedChannel(x, causes, valid)


def fhr_baseline(cleaned: NDArray[np.floating], rate_hz: float = 4.0, rules: FhrRules | None = None) -> Floats:
    """The mean heart rate over ten minutes, rolling or constant per consecutive ten minutes."""
    rules = rules or FhrRules()
    width = seconds_to_samples(rules.baseline_s, rate_hz)
    x = np.asarray(cleaned, np.float64)
    return centred_mean(x, width) if rules.baseline == "rolling" else block_mean(x, width)


def zero_runs(x: Floats, at_least: int) -> Bools:
    """F1: samples inside a run of exact zeros of `at_least` samples or more."""
    starts, stops = find_runs(x == 0)
    long = stops - starts >= at_least
    return _runs_to_mask(starts[long], stops[long], len(x))


def out_of_range(x: Floats, low: float, high: float) -> Bools:
    """F2: x <= low or x >= high."""
    return np.asarray((x <= low) | (x >= high))


def find_jumps(x: Floats, at_least: float, mark: str = "forward") -> Bools:
    """F3: |x[i] - x[i-1]| >= at_least marks i (with mark "both" also i-1), in one pass; comparisons with NaN are false."""
    found = np.abs(np.diff(x, prepend=np.nan)) >= at_least if len(x) else np.zeros(0, bool)
    if mark == "both":
        found[:-1] |= found[1:]
    return np.asarray(found)


def far_from_mean(x: Floats, width: int, at_least: float, kind: str = "blocks") -> Bools:
    """F4: |x - m| >= at_least, m the mean of the finite samples of its block of `width` (the last may be short), in one pass."""
    mean = block_mean(x, width) if kind == "blocks" else centred_mean(x, width)
    return np.asarray(np.abs(x - mean) >= at_least)


def interpolate_missing(x: Floats) -> Floats:
    """F5: fills NaN by linear interpolation, at the ends by the nearest finite sample; all NaN stays NaN."""
    known = np.isfinite(x)
    if not known.any():
        return np.full(len(x), np.nan)
    at = np.flatnonzero(known)
    return np.asarray(np.interp(np.arange(len(x)), at, x[at]))


# --- contractions -----------------------------------------------------------------------------------------------------


def uc_clean(uc: NDArray[np.floating], rate_hz: float = 4.0, rules: UcRules | None = None) -> CleanedChannel:
    """Applies U1 to U3: negative values filled in, 60-s centred mean, exponential smoothing."""
    *_, (_, cleaned) = clean_uc_by_rule(uc, rate_hz, rules)
    return cleaned


def clean_uc_by_rule(
    uc: NDArray[np.floating], rate_hz: float = 4.0, rules: UcRules | None = None
) -> Iterator[tuple[str, CleanedChannel]]:
    """What each of U1 to U3 does, in words, and the channel after it."""
    rules = rules or UcRules()
    x = np.array(uc, np.float64)
    causes = np.where(np.isnan(x), NAN, OK).astype(np.uint8)
    _mark_missing(x, causes, x < 0, RANGE)
    valid = bool(np.isfinite(x).any())
    x = interpolate_missing(x)
    yield "values below 0 filled in by straight lines", CleanedChannel(x, causes, valid)
    x = centred_mean(x, seconds_to_samples(rules.mean_s, rate_hz))
    yield f"mean over {rules.mean_s:g} s", CleanedChannel(x, causes, valid)
    yield f"smoothed over {rules.span_s:g} s", CleanedChannel(exponential_mean(x, rules.span_s * rate_hz), causes, valid)


def exponential_mean(x: Floats, span: float) -> Floats:
    """U3: y[0] = x[0], y[t] = a x[t] + (1-a) y[t-1], a = 2/(span + 1); `span` in samples."""
    from scipy.signal import lfilter

    if not len(x):
        return x.copy()
    a = 2.0 / (span + 1.0)
    return np.asarray(lfilter([a], [1.0, a - 1.0], x, zi=[(1.0 - a) * x[0]])[0])


# --- filters of whole windows (…, n) ----------------------------------------------------------------------------------


def lowpass_filter(
    x: NDArray[np.floating],
    cutoff: float,
    rate_hz: float = 4.0,
    unit: Literal["bin", "mHz"] = "bin",
    edge: Literal["mirror", "wrap"] = "mirror",
) -> Floats:
    """(…, n) → (…, n): keeps the Fourier bins 0..k of the window, without a taper; k = 0 gives the mean.

    The paper sweeps 0..50 without a unit. Hertz are impossible (half the rate is 2 Hz), so `cutoff` counts bins of the window
    unless `unit` is "mHz". NaN are filled in before filtering and restored after.
    edge: "wrap" takes the end of the window for what came before its beginning, so that a step at one end is drawn at the other;
    "mirror" goes on with the window turned round, and keeps the same frequencies.
    """
    values = np.asarray(x, np.float64)
    if not (np.isfinite(cutoff) and cutoff >= 0):
        raise SpecError(f"low-pass: the cut-off should be a number from 0 up, came {cutoff}")
    n = values.shape[-1]
    k = int(cutoff if unit == "bin" else cutoff * n / rate_hz / 1000.0 + 1e-9)
    missing = np.isnan(values)
    if missing.any():
        values = np.apply_along_axis(interpolate_missing, -1, values)
    if edge == "mirror":  # twice as long, so that a bin is half as wide
        values, k = np.concatenate([values, values[..., ::-1]], axis=-1), 2 * k
    spectrum = np.fft.rfft(values)
    spectrum[..., k + 1 :] = 0
    return np.where(missing, np.nan, np.fft.irfft(spectrum, values.shape[-1])[..., :n])


def uc_minmax_scale(uc: NDArray[np.floating], factor: float = 100.0) -> Floats:
    """(…, n) → (…, n): factor × (u - min)/(max - min) of each window; a constant window becomes 0, NaN stay NaN."""
    values = np.asarray(uc, np.float64)
    low = np.min(values, axis=-1, keepdims=True, initial=np.inf, where=np.isfinite(values))
    high = np.max(values, axis=-1, keepdims=True, initial=-np.inf, where=np.isfinite(values))
    spread = np.where(high > low, high - low, 1.0)
    return np.asarray(factor * np.where(np.isfinite(values), values - low, np.nan) / spread)


# --- means, runs, samples ---------------------------------------------------------------------------------------------


def centred_mean(x: Floats, width: int) -> Floats:
    """U2: mean of the finite samples in [i - width//2, i - width//2 + width), clipped to the record; none finite: NaN."""
    total, count = _cumulative_sums(x)
    first = np.arange(len(x)) - width // 2
    low, high = np.clip(first, 0, len(x)), np.clip(first + width, 0, len(x))
    return _divide_or_nan(total[high] - total[low], count[high] - count[low])


def block_mean(x: Floats, width: int) -> Floats:
    """The mean of the finite samples of each consecutive block of `width`, at every sample of the block."""
    total, count = _cumulative_sums(x)
    low = np.arange(len(x)) // width * width
    high = np.minimum(low + width, len(x))
    return _divide_or_nan(total[high] - total[low], count[high] - count[low])


def find_runs(mask: Bools) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(starts, stops) of the runs of True, half-open."""
    edges = np.diff(np.concatenate([[0], np.asarray(mask, np.int8), [0]]))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def seconds_to_samples(seconds: float, rate_hz: float) -> int:
    """Seconds → samples, at least one. Raises SpecError unless the duration is a number above zero."""
    if not (np.isfinite(seconds) and seconds > 0):
        raise SpecError(f"a duration of the cleaning rules should be a number of seconds above zero, came {seconds}")
    return max(1, round(seconds * rate_hz))


def _mark_missing(x: Floats, causes: Causes, marked: Bools, cause: int) -> None:
    """Sets the marked samples to NaN in place and records the cause; a sample keeps its first cause."""
    marked = marked & np.isfinite(x)
    x[marked] = np.nan
    causes[marked] = cause


def _runs_to_mask(starts: NDArray[np.int64], stops: NDArray[np.int64], length: int) -> Bools:
    steps = np.zeros(length + 1, np.int64)
    steps[starts] += 1
    steps[stops] -= 1
    return np.asarray(np.cumsum(steps)[:-1] > 0)


def _cumulative_sums(x: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Running sum and count of the finite samples, each with a leading 0; exact for the quarter-bpm steps of the devices."""
    known = np.isfinite(x)
    return np.concatenate([[0.0], np.cumsum(np.where(known, x, 0.0))]), np.concatenate([[0], np.cumsum(known)])


def _divide_or_nan(total: Floats, count: NDArray[np.int64]) -> Floats:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
