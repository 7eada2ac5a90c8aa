"""Windows of a signal → images: spectrogram, scalogram, trace, cardiotocogram plot; a batch at a time.

A representation is plain data (`Spectrogram`, `Scalogram`, `Trace`, `CtgPlot`); `render_windows` turns a batch of windows into
uint8 images by it. The image of a window depends on the window and the representation, never on the rest of the batch, so that
an image at prediction time equals the one of training. Low frequencies are at the bottom; time runs from left to right.
Where the three colour channels would be equal only one is made, (m, S, S); `repeat_to_rgb` repeats it without copying.

Grey values (our choice; the SONIC paper names only SciPy's spectrogram function): power is converted to decibels, clipped to the
highest value minus `floor_db`, and stretched to 0..255, per window or over a given range (`ranges`, `pool_ranges`: of a subject).
Scaling comes before resizing.

    m  windows    n  samples    F  frequencies    T  time steps    K  samples of a segment    S  pixels a side
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from phoropter.core.errors import DataError, MissingExtraError, SpecError, did_you_mean, join_words
from phoropter.core.spec import Spec
from phoropter.signals.rasterize import Bytes, Pen, column_starts, draw_area, draw_heatmap, draw_trace

FloatArray = NDArray[np.floating[Any]]
Size = Annotated[int, Field(ge=8, le=2048)]  # pixels a side

_CHUNK_SIZE = 16  # windows at a time: their intermediate arrays stay near the processor
_POWER_FLOOR = 1e-20  # lower powers are taken for this one, so that their logarithm is finite


class TaggedSpec(Spec):
    """A member of a union told apart by `kind`, which always counts as set: a dump of the set fields must keep the tag."""

    def model_post_init(self, context: Any, /) -> None:
        self.model_fields_set.add("kind")


class Spectrogram(TaggedSpec):
    """Power over time and frequency.

    "paper" is `scipy.signal.spectrogram` with its defaults (Tukey window 0.25, segments of 256 samples that overlap by 32),
    resized bilinearly; at 700 Hz and 5 s it has 129 × 15 values. "dense" has as many frequencies and time steps as pixels and is
    not resized: segments of `segment_s` under a Hann window, frequencies 0..`max_hz`; at 700 Hz, 5 s and 224 pixels it equals
    SciPy's with nperseg 378, noverlap 364, nfft 4096.

    style:     "paper" or "dense"
    size:      side of the image in pixels
    scale:     "log" (decibels) or "linear" power
    floor_db:  decibels below the highest value that are black
    segment_s: length of a segment in seconds (dense)
    max_hz:    highest frequency in Hz (dense)
    """

    kind: Literal["spectrogram"] = "spectrogram"
    style: Literal["paper", "dense"] = "paper"
    size: Size = 224
    scale: Literal["log", "linear"] = "log"
    floor_db: PositiveFloat = 80.0
    segment_s: PositiveFloat = 0.54
    max_hz: PositiveFloat = 223 * 700 / 4096


class Scalogram(TaggedSpec):
    """Wavelet power over time and `voices` log-spaced frequencies; rows are resized bilinearly.

    size:     side of the image in pixels
    low_hz:   lowest frequency in Hz
    high_hz:  highest frequency in Hz, at most half the sampling rate
    voices:   number of frequencies
    wavelet:  name of a continuous wavelet of PyWavelets
    scale:    "log" (decibels) or "linear" power
    floor_db: decibels below the highest value that are black
    """

    kind: Literal["scalogram"] = "scalogram"
    size: Size = 224
    low_hz: PositiveFloat = 0.5
    high_hz: PositiveFloat = 40.0
    voices: int = Field(64, ge=2, le=1024)
    wavelet: str = "cmor1.5-1.0"
    scale: Literal["log", "linear"] = "log"
    floor_db: PositiveFloat = 60.0


class Trace(TaggedSpec):
    """The signal as a line.

    size: side of the image in pixels
    low:  value at the bottom of the image (default: the window's lowest) · high: value at its top (default: its highest)
    pen:  how the line is drawn
    """

    kind: Literal["trace"] = "trace"
    size: Size = 224
    low: float | None = None
    high: float | None = None
    pen: Pen = Pen()


class CtgPlot(TaggedSpec):
    """Heart rate, contractions and baseline as the three colour channels of one image, each over its full height.

    The axis 50..210 bpm is that of chart paper with 20 bpm/cm; use (30, 240) for 30 bpm/cm. The paper followed (Hemmi 2024) does
    not tell which. When sweeping `clean.filter.uc_factor` up to 120, use uc_axis (0, 120), so that nothing is clipped.

    style:    "trace": a line; "heatmap": one shade of grey per column; "area": filled below the line
    size:     side of the image in pixels
    fhr_axis: heart rates in bpm at the bottom and at the top of the image
    uc_axis:  contraction values at the bottom and at the top of the image
    pen:      how lines are drawn
    """

    kind: Literal["ctg"] = "ctg"
    style: Literal["trace", "heatmap", "area"] = "trace"
    size: Size = 224
    fhr_axis: tuple[float, float] = (50.0, 210.0)
    uc_axis: tuple[float, float] = (0.0, 100.0)
    pen: Pen = Pen()


ChannelRepresentation = Annotated[Spectrogram | Scalogram | Trace, Field(discriminator="kind")]  # of one channel
Representation = Annotated[ChannelRepresentation | CtgPlot, Field(discriminator="kind")]


def render_windows(
    windows: FloatArray, rate_hz: float, representation: Representation, ranges: FloatArray | None = None
) -> Bytes:
    """Windows → uint8 images: (m, n) → (m, S, S); for `CtgPlot` (m, 3, n) → (m, S, S, 3), a transposed view of three planes.

    ranges: (m, 2) lowest and highest value of each window's grey scale, in the units of `value_range`; unused for `CtgPlot`
    Raises SpecError for windows the representation cannot show, such as ones shorter than a segment.
    """
    if isinstance(representation, CtgPlot):
        return _render_ctg(windows, representation)
    if windows.ndim != 2:
        raise SpecError(
            f"{type(representation).__name__.lower()}: expected windows of one channel (m, n), came shape {windows.shape}"
        )
    windows = windows if windows.dtype.kind == "f" else windows.astype(np.float32)
    out = np.empty((len(windows), representation.size, representation.size), np.uint8)
    for at in range(0, len(windows), _CHUNK_SIZE):
        values = _compute_values(windows[at : at + _CHUNK_SIZE], rate_hz, representation)
        bounds = _window_ranges(values) if ranges is None else ranges[at : at + _CHUNK_SIZE]
        out[at : at + _CHUNK_SIZE] = _values_to_pixels(values, _limit_ranges(bounds, representation), representation)
    return out


def repeat_to_rgb(images: Bytes) -> Bytes:
    """(m, S, S) → (m, S, S, 3) with equal channels, without copying; images with three channels are returned as they are."""
    return images if images.ndim == 4 else np.broadcast_to(images[..., None], (*images.shape, 3))


def value_range(windows: FloatArray, rate_hz: float, representation: ChannelRepresentation) -> FloatArray:
    """(m, n) → (m, 2) lowest and highest rendered value of each window: in dB, power, or the signal's own units."""
    parts = (windows[at : at + _CHUNK_SIZE] for at in range(0, len(windows), _CHUNK_SIZE))
    chunks = [_window_ranges(_compute_values(part, rate_hz, representation)) for part in parts]
    return np.concatenate(chunks) if chunks else np.empty((0, 2), np.float32)


def pool_ranges(ranges: FloatArray, groups: NDArray[Any]) -> FloatArray:
    """(m, 2) ranges and (m,) groups, such as subjects → (m, 2): each window gets the range of all windows of its group."""
    _, member = np.unique(groups, return_inverse=True)
    low = np.full(member.max(initial=-1) + 1, np.inf, ranges.dtype)
    high = np.full(len(low), -np.inf, ranges.dtype)
    np.minimum.at(low, member, ranges[:, 0])
    np.maximum.at(high, member, ranges[:, 1])
    return np.stack([low[member], high[member]], axis=1)


def compute_spectrogram(windows: FloatArray, rate_hz: float, representation: Spectrogram) -> FloatArray:
    """(m, n) → (m, F, T) power density in unit²/Hz, of the input's dtype, frequencies ascending.

    One matrix product a window: the segments, minus their means, times windowed sines and cosines. Equal to SciPy's
    `spectrogram` (constant detrend, density scaling) up to rounding, and several times faster than one transform per window.
    """
    plan = _plan_spectrogram(representation, windows.shape[1], float(rate_hz), np.dtype(windows.dtype).name)
    values = windows - windows[:, :1]  # a constant becomes exactly 0; its rounding noise would be stretched to full contrast
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
def _plan_spectrogram(representation: Spectrogram, n: int, rate_hz: float, dtype: str) -> _SpectrogramPlan:
    from scipy.signal import get_window

    kind: str | tuple[str, float] = "hann"
    if representation.style == "paper":
        length, kind, cycles = 256, ("tukey", 0.25), np.arange(129) / 256
        starts = np.arange(0, max(0, n - length + 1), length - 32)
    else:
        if not 0 < representation.max_hz <= rate_hz / 2:
            raise SpecError(
                f"spectrogram: expected 0 < max_hz <= {rate_hz / 2:g} (half the rate), came {representation.max_hz:g}"
            )
        length, cycles = (
            round(representation.segment_s * rate_hz),
            np.linspace(0, representation.max_hz / rate_hz, representation.size),
        )
        starts = np.rint(np.linspace(0, max(0, n - length), representation.size)).astype(np.int64)
    if n < length or length < 2:
        raise SpecError(f"spectrogram: segments of {length} samples in windows of {n}: use longer windows or shorter segments")
    window = get_window(kind, length)
    one_sided = np.where((cycles == 0) | (cycles == 0.5), 1.0, 2.0)
    scale = np.sqrt(one_sided / (rate_hz * np.sum(window**2)))  # (F,)
    angle = 2 * np.pi * cycles[:, None] * np.arange(length)  # (F, K)
    waves = np.concatenate([np.cos(angle), np.sin(angle)]) * np.tile(scale, 2)[:, None] * window
    return _SpectrogramPlan(length, starts, waves.astype(dtype))


def compute_scalogram(windows: FloatArray, rate_hz: float, representation: Scalogram) -> FloatArray:
    """(m, n) → (m, voices, S) wavelet power, averaged over the samples of each pixel column, frequencies ascending."""
    try:
        import pywt
    except ImportError as error:
        raise MissingExtraError("PyWavelets", "signals", "rendering a scalogram") from error

    if not 0 < representation.low_hz < representation.high_hz <= rate_hz / 2:
        came = f"{representation.low_hz:g}..{representation.high_hz:g}"
        raise SpecError(f"scalogram: expected 0 < low_hz < high_hz <= {rate_hz / 2:g} (half the rate), came {came}")
    if windows.shape[1] < representation.size:
        raise SpecError(f"scalogram: windows of {windows.shape[1]} samples are fewer than its {representation.size} columns")
    try:
        pywt.ContinuousWavelet(representation.wavelet)
    except ValueError as error:
        known = pywt.wavelist(kind="continuous")
        hint = did_you_mean(representation.wavelet, known)
        raise SpecError(
            f"scalogram: the wavelet {representation.wavelet!r} is unknown; PyWavelets has {join_words(known, 20)}{hint}"
        ) from error
    frequencies = np.geomspace(representation.low_hz, representation.high_hz, representation.voices)
    scales = pywt.central_frequency(representation.wavelet) * rate_hz / frequencies
    values = windows - windows[:, :1]
    values -= values.mean(axis=1, keepdims=True)
    wave, _ = pywt.cwt(
        values, scales, representation.wavelet, sampling_period=1 / rate_hz, method="fft", axis=1
    )  # (voices, m, n)
    starts = column_starts(windows.shape[1], representation.size)
    widths = np.diff(np.append(starts, windows.shape[1])).astype(windows.dtype)
    power = np.add.reduceat((wave * wave.conj()).real, starts, axis=2) / widths
    return np.asarray(np.swapaxes(power, 0, 1), windows.dtype)


# --- values → grey ----------------------------------------------------------------------------------------------------


def _compute_values(windows: FloatArray, rate_hz: float, representation: ChannelRepresentation) -> FloatArray:
    """The values to render: the signal itself, power, or decibels."""
    if isinstance(representation, Trace):
        return windows
    if isinstance(representation, Spectrogram):
        power = compute_spectrogram(windows, rate_hz, representation)
    else:
        power = compute_scalogram(windows, rate_hz, representation)
    if representation.scale == "linear":
        return power
    if np.isnan(power).any():
        raise DataError("a window with missing samples has no spectrum: leave such windows out when cutting")
    level = np.maximum(power, power.dtype.type(_POWER_FLOOR))
    np.log10(level, out=level)
    level *= 10
    return level


def _window_ranges(values: FloatArray) -> FloatArray:
    flat = values.reshape(len(values), -1)
    return np.stack([np.fmin.reduce(flat, axis=1), np.fmax.reduce(flat, axis=1)], axis=1)


def _limit_ranges(ranges: FloatArray, representation: ChannelRepresentation) -> FloatArray:
    """The rendered range: at most `floor_db` deep, or the axis the representation fixes."""
    bounds = np.array(ranges)
    if isinstance(representation, Trace):
        bounds[:, 0] = bounds[:, 0] if representation.low is None else representation.low
        bounds[:, 1] = bounds[:, 1] if representation.high is None else representation.high
    elif representation.scale == "log":
        bounds[:, 0] = np.maximum(bounds[:, 0], bounds[:, 1] - representation.floor_db)
    return bounds


def _values_to_pixels(values: FloatArray, bounds: FloatArray, representation: ChannelRepresentation) -> Bytes | FloatArray:
    """uint8 pixels, or float grey values that become pixels by truncation."""
    if isinstance(representation, Trace):
        return draw_trace(values, bounds, representation.size, representation.pen)
    low, high = bounds[:, 0, None, None], bounds[:, 1, None, None]
    stretch = np.where(high > low, 255 / np.where(high > low, high - low, 1), 0).astype(values.dtype)
    grey = (values - low) * stretch
    np.clip(grey, 0, 255, out=grey)
    grey += 0.5  # for rounding; weights that sum to 1 carry it through the resizing
    rows, columns = grey.shape[1:]
    grey = grey[:, ::-1]
    if rows != representation.size:
        grey = bilinear_weights(rows, representation.size).astype(grey.dtype) @ grey
    if columns != representation.size:
        grey = grey @ bilinear_weights(columns, representation.size).astype(grey.dtype).T
    return grey


@lru_cache(maxsize=16)
def bilinear_weights(length: int, size: int) -> NDArray[np.float64]:
    """(size, length) weights that resize one side as Pillow's BILINEAR does: triangles, widened when shrinking."""
    step = length / size
    reach = max(step, 1.0)
    centre = (np.arange(size) + 0.5)[:, None] * step
    weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centre) / reach)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


# --- cardiotocograms --------------------------------------------------------------------------------------------------

_CTG_STYLES: dict[str, Callable[..., Bytes]] = {"trace": draw_trace, "heatmap": draw_heatmap, "area": draw_area}


def _render_ctg(windows: FloatArray, representation: CtgPlot) -> Bytes:
    if windows.ndim != 3 or windows.shape[1] != 3:
        raise SpecError(f"ctg: expected heart rate, contractions and baseline (m, 3, n), came shape {windows.shape}")
    axes = np.array([representation.fhr_axis, representation.uc_axis, representation.fhr_axis], np.float32)
    planes = np.empty((len(windows), 3, representation.size, representation.size), np.uint8)
    for at in range(0, len(windows), _CHUNK_SIZE):
        for channel in range(3):
            values = windows[at : at + _CHUNK_SIZE, channel]
            planes[at : at + _CHUNK_SIZE, channel] = _CTG_STYLES[representation.style](
                values, axes[channel], representation.size, representation.pen
            )
    return np.moveaxis(planes, 1, -1)


REPRESENTATIONS: dict[str, type[TaggedSpec]] = {
    kind.model_fields["kind"].default: kind for kind in (*get_args(get_args(ChannelRepresentation)[0]), CtgPlot)
}
