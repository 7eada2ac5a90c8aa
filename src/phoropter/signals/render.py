"""Windows of a signal → pictures: spectrogram, scalogram, trace, cardiotocogram; a batch at a time.

What a picture is, is plain data (`Spectrogram`, `Scalogram`, `Trace`, `Ctg`); `render` turns a batch of windows into
uint8 pictures by it. A window's picture depends on that window and the description alone, never on its batch, so that a
picture at prediction time equals the one of training. Low frequencies are at the bottom, time runs from left to right.

Where three colour channels would be equal only one is made, (m, S, S); `rgb` repeats it without copying.

Grey values (ours; the SONIC paper names only SciPy's spectrogram function): power is taken to decibels, clipped to the
greatest value less `floor_db`, and stretched to 0..255, per window or over a range given from outside (`ranges`, `pooled`:
one subject, or a training fold). Scaling comes before resizing.

    m  windows    n  samples    F  frequencies    T  time steps    K  samples of a segment    S  pixels a side
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from phoropter.core.errors import DataError, MissingExtraError, SpecError, did_you_mean, join_words
from phoropter.core.spec import Spec
from phoropter.signals.rasterize import Bytes, Pen, column_starts, draw_area, draw_strip, draw_trace

FloatArray = NDArray[np.floating[Any]]
Size = Annotated[int, Field(ge=8, le=2048)]  # pixels a side

_CHUNK_SIZE = 16  # windows at a time: their intermediate arrays stay near the processor
_POWER_FLOOR = 1e-20  # power below which nothing is told apart


class Spectrogram(Spec):
    """Power over time and frequency.

    "paper" is `scipy.signal.spectrogram` by its defaults (Tukey 0.25, segments of 256 samples, 32 shared), resized
    bilinearly; at 700 Hz and 5 s it has 129 × 15 values. "dense" has as many frequencies and time steps as pixels and is
    not resized: segments of `segment_s` under a Hann window, frequencies 0..`max_hz`; at 700 Hz, 5 s and 224 pixels these
    are SciPy's with nperseg 378, noverlap 364, nfft 4096.
    """

    kind: Literal["spectrogram"] = "spectrogram"
    style: Literal["paper", "dense"] = "paper"
    size: Size = 224
    scale: Literal["log", "linear"] = "log"
    floor_db: PositiveFloat = 80.0
    segment_s: PositiveFloat = 0.54
    max_hz: PositiveFloat = 223 * 700 / 4096


class Scalogram(Spec):
    """Wavelet power over time and `voices` frequencies, equally spaced in their logarithm; rows resized bilinearly."""

    kind: Literal["scalogram"] = "scalogram"
    size: Size = 224
    low_hz: PositiveFloat = 0.5
    high_hz: PositiveFloat = 40.0
    voices: int = Field(64, ge=2, le=1024)
    wavelet: str = "cmor1.5-1.0"
    scale: Literal["log", "linear"] = "log"
    floor_db: PositiveFloat = 60.0


class Trace(Spec):
    """The signal as a line, its axis from the least to the greatest value of the window unless `low` and `high` say so."""

    kind: Literal["trace"] = "trace"
    size: Size = 224
    low: float | None = None
    high: float | None = None
    pen: Pen = Pen()


class CtgPlot(Spec):
    """Heart rate, contractions and baseline as the three channels of one picture, each over its full height.

    The axis 50..210 bpm is that of paper with 20 bpm/cm; for 30 bpm/cm use (30, 240). The paper followed does not say
    which. In a sweep of the contractions' factor use uc_axis (0, 120), so that 120 is not clipped.
    """

    kind: Literal["ctg"] = "ctg"
    style: Literal["trace", "strip", "area"] = "trace"
    size: Size = 224
    fhr_axis: tuple[float, float] = (50.0, 210.0)
    uc_axis: tuple[float, float] = (0.0, 100.0)
    pen: Pen = Pen()


Representation = Spectrogram | Scalogram | Trace | CtgPlot  # told apart by `kind`


def render_windows(windows: FloatArray, rate_hz: float, picture: Representation, ranges: FloatArray | None = None) -> Bytes:
    """Windows → pictures: (m, n) → (m, S, S); for `Ctg` (m, 3, n) → (m, S, S, 3), a view of three planes.

    ranges: (m, 2) lowest and highest value of each window's grey scale, in the units of `value_range`; not for `Ctg`.
    Raises SpecError when the window does not suit the picture.
    """
    if isinstance(picture, CtgPlot):
        return _render_ctg(windows, picture)
    if windows.ndim != 2:
        raise SpecError(f"{type(picture).__name__.lower()}: expected windows of one channel (m, n), came shape {windows.shape}")
    windows = windows if windows.dtype.kind == "f" else windows.astype(np.float32)
    out = np.empty((len(windows), picture.size, picture.size), np.uint8)
    for at in range(0, len(windows), _CHUNK_SIZE):
        values = _compute_values(windows[at : at + _CHUNK_SIZE], rate_hz, picture)
        bounds = _window_ranges(values) if ranges is None else ranges[at : at + _CHUNK_SIZE]
        out[at : at + _CHUNK_SIZE] = _values_to_pixels(values, _limit_ranges(bounds, picture), picture)
    return out


def repeat_to_rgb(pictures: Bytes) -> Bytes:
    """(m, S, S) → (m, S, S, 3) with equal channels, without copying; pictures that have three stay as they are."""
    return pictures if pictures.ndim == 4 else np.broadcast_to(pictures[..., None], (*pictures.shape, 3))


def value_range(windows: FloatArray, rate_hz: float, picture: Spectrogram | Scalogram | Trace) -> FloatArray:
    """(m, n) → (m, 2) least and greatest value of each window as it would be drawn: dB, power, or the signal's own units."""
    chunks = [
        _window_ranges(_compute_values(windows[at : at + _CHUNK_SIZE], rate_hz, picture))
        for at in range(0, len(windows), _CHUNK_SIZE)
    ]
    return np.concatenate(chunks) if chunks else np.empty((0, 2), np.float32)


def pool_ranges(ranges: FloatArray, groups: NDArray[Any]) -> FloatArray:
    """(m, 2) ranges and (m,) groups, such as subjects → (m, 2): each window gets the range of its whole group."""
    _, member = np.unique(groups, return_inverse=True)
    low = np.full(member.max(initial=-1) + 1, np.inf, ranges.dtype)
    high = np.full(len(low), -np.inf, ranges.dtype)
    np.minimum.at(low, member, ranges[:, 0])
    np.maximum.at(high, member, ranges[:, 1])
    return np.stack([low[member], high[member]], axis=1)


def compute_spectrogram(windows: FloatArray, rate_hz: float, picture: Spectrogram) -> FloatArray:
    """(m, n) → (m, F, T) power density (unit²/Hz) in the kind of number that came in, frequencies ascending.

    One matrix product a window: segments, less their mean, times the windowed sines and cosines. Equal to SciPy's
    `spectrogram` (constant detrend, density) up to rounding, and several times faster than a transform per window.
    """
    plan = _plan_spectrogram(picture, windows.shape[1], float(rate_hz), np.dtype(windows.dtype).name)
    values = windows - windows[:, :1]  # a constant becomes exactly 0, instead of rounding noise that stretching would show
    segments = np.lib.stride_tricks.sliding_window_view(values, plan.length, axis=1)[:, plan.starts]  # (m, T, K)
    segments = segments - segments.mean(axis=2, keepdims=True)
    parts = plan.basis @ segments.swapaxes(1, 2)  # (m, 2F, T)
    np.multiply(parts, parts, out=parts)
    half = parts.shape[1] // 2
    return np.asarray(parts[:, :half] + parts[:, half:])


@dataclass(frozen=True, eq=False)
class _SpectrogramPlan:
    length: int  # K
    starts: NDArray[np.int64]  # (T,)
    basis: FloatArray  # (2F, K): window × cosine, window × sine, scaled so that squares add up to density


@lru_cache(maxsize=16)
def _plan_spectrogram(picture: Spectrogram, n: int, rate_hz: float, dtype: str) -> _SpectrogramPlan:
    from scipy.signal import get_window

    kind: str | tuple[str, float] = "hann"
    if picture.style == "paper":
        length, kind, cycles = 256, ("tukey", 0.25), np.arange(129) / 256
        starts = np.arange(0, max(0, n - length + 1), length - 32)
    else:
        if not 0 < picture.max_hz <= rate_hz / 2:
            raise SpecError(f"spectrogram: expected 0 < max_hz <= {rate_hz / 2:g} (half the rate), came {picture.max_hz:g}")
        length, cycles = round(picture.segment_s * rate_hz), np.linspace(0, picture.max_hz / rate_hz, picture.size)
        starts = np.rint(np.linspace(0, max(0, n - length), picture.size)).astype(np.int64)
    if n < length or length < 2:
        raise SpecError(f"spectrogram: segments of {length} samples in windows of {n}: use longer windows or shorter segments")
    window = get_window(kind, length)
    one_sided = np.where((cycles == 0) | (cycles == 0.5), 1.0, 2.0)
    scale = np.sqrt(one_sided / (rate_hz * np.sum(window**2)))  # (F,)
    angle = 2 * np.pi * cycles[:, None] * np.arange(length)  # (F, K)
    waves = np.concatenate([np.cos(angle), np.sin(angle)]) * np.tile(scale, 2)[:, None] * window
    return _SpectrogramPlan(length, starts, waves.astype(dtype))


def compute_scalogram(windows: FloatArray, rate_hz: float, picture: Scalogram) -> FloatArray:
    """(m, n) → (m, voices, S) wavelet power, the mean of each column's samples, frequencies ascending."""
    try:
        import pywt
    except ImportError as error:
        raise MissingExtraError("PyWavelets", "signals", "drawing a scalogram") from error

    if not 0 < picture.low_hz < picture.high_hz <= rate_hz / 2:
        came = f"{picture.low_hz:g}..{picture.high_hz:g}"
        raise SpecError(f"scalogram: expected 0 < low_hz < high_hz <= {rate_hz / 2:g} (half the rate), came {came}")
    if windows.shape[1] < picture.size:
        raise SpecError(f"scalogram: windows of {windows.shape[1]} samples are fewer than its {picture.size} columns")
    try:
        pywt.ContinuousWavelet(picture.wavelet)
    except ValueError as error:
        known = pywt.wavelist(kind="continuous")
        hint = did_you_mean(picture.wavelet, known)
        raise SpecError(
            f"scalogram: the wavelet {picture.wavelet!r} is unknown; PyWavelets has {join_words(known, 20)}{hint}"
        ) from error
    frequencies = np.geomspace(picture.low_hz, picture.high_hz, picture.voices)
    scales = pywt.central_frequency(picture.wavelet) * rate_hz / frequencies
    values = windows - windows[:, :1]
    values -= values.mean(axis=1, keepdims=True)
    wave, _ = pywt.cwt(values, scales, picture.wavelet, sampling_period=1 / rate_hz, method="fft", axis=1)  # (voices, m, n)
    starts = column_starts(windows.shape[1], picture.size)
    widths = np.diff(np.append(starts, windows.shape[1])).astype(windows.dtype)
    power = np.add.reduceat((wave * wave.conj()).real, starts, axis=2) / widths
    return np.asarray(np.swapaxes(power, 0, 1), windows.dtype)


# --- values → grey ----------------------------------------------------------------------------------------------------


def _compute_values(windows: FloatArray, rate_hz: float, picture: Spectrogram | Scalogram | Trace) -> FloatArray:
    """What is drawn: the signal itself, power, or decibels."""
    if isinstance(picture, Trace):
        return windows
    power = (
        compute_spectrogram(windows, rate_hz, picture)
        if isinstance(picture, Spectrogram)
        else compute_scalogram(windows, rate_hz, picture)
    )
    if picture.scale == "linear":
        return power
    if np.isnan(power).any():
        raise DataError("a window with missing samples has no spectrum: drop such windows when they are cut")
    level = np.maximum(power, power.dtype.type(_POWER_FLOOR))
    np.log10(level, out=level)
    level *= 10
    return level


def _window_ranges(values: FloatArray) -> FloatArray:
    flat = values.reshape(len(values), -1)
    return np.stack([np.fmin.reduce(flat, axis=1), np.fmax.reduce(flat, axis=1)], axis=1)


def _limit_ranges(ranges: FloatArray, picture: Spectrogram | Scalogram | Trace) -> FloatArray:
    """The range drawn: not deeper than the floor, or what the picture fixes."""
    bounds = np.array(ranges)
    if isinstance(picture, Trace):
        bounds[:, 0] = bounds[:, 0] if picture.low is None else picture.low
        bounds[:, 1] = bounds[:, 1] if picture.high is None else picture.high
    elif picture.scale == "log":
        bounds[:, 0] = np.maximum(bounds[:, 0], bounds[:, 1] - picture.floor_db)
    return bounds


def _values_to_pixels(values: FloatArray, bounds: FloatArray, picture: Spectrogram | Scalogram | Trace) -> Bytes | FloatArray:
    """Pixels, or grey values that become pixels when they are cut off at the point."""
    if isinstance(picture, Trace):
        return draw_trace(values, bounds, picture.size, picture.pen)
    low, high = bounds[:, 0, None, None], bounds[:, 1, None, None]
    stretch = np.where(high > low, 255 / np.where(high > low, high - low, 1), 0).astype(values.dtype)
    grey = (values - low) * stretch
    np.clip(grey, 0, 255, out=grey)
    grey += 0.5  # for rounding; weights that sum to 1 carry it through the resizing
    rows, columns = grey.shape[1:]
    grey = grey[:, ::-1]
    if rows != picture.size:
        grey = bilinear_weights(rows, picture.size).astype(grey.dtype) @ grey
    if columns != picture.size:
        grey = grey @ bilinear_weights(columns, picture.size).astype(grey.dtype).T
    return grey


@lru_cache(maxsize=16)
def bilinear_weights(length: int, size: int) -> NDArray[np.float64]:
    """(size, length) weights that resize one side as Pillow's BILINEAR does: triangles, wider ones when shrinking."""
    step = length / size
    reach = max(step, 1.0)
    centre = (np.arange(size) + 0.5)[:, None] * step
    weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centre) / reach)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


# --- cardiotocograms --------------------------------------------------------------------------------------------------

_CTG_STYLES: dict[str, Callable[..., Bytes]] = {"trace": draw_trace, "strip": draw_strip, "area": draw_area}


def _render_ctg(windows: FloatArray, picture: CtgPlot) -> Bytes:
    if windows.ndim != 3 or windows.shape[1] != 3:
        raise SpecError(f"ctg: expected heart rate, contractions and baseline (m, 3, n), came shape {windows.shape}")
    axes = np.array([picture.fhr_axis, picture.uc_axis, picture.fhr_axis], np.float32)
    planes = np.empty((len(windows), 3, picture.size, picture.size), np.uint8)
    for at in range(0, len(windows), _CHUNK_SIZE):
        for channel in range(3):
            values = windows[at : at + _CHUNK_SIZE, channel]
            planes[at : at + _CHUNK_SIZE, channel] = _CTG_STYLES[picture.style](values, axes[channel], picture.size, picture.pen)
    return np.moveaxis(planes, 1, -1)


REPRESENTATIONS: dict[str, type[Representation]] = {
    "spectrogram": Spectrogram,
    "scalogram": Scalogram,
    "trace": Trace,
    "ctg": CtgPlot,
}
