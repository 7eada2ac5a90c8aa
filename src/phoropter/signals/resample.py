"""A recording at another sampling rate: linear interpolation upwards, means of whole blocks downwards.

Left out on purpose: rates whose ratio downwards is no whole number, which need a filter of their own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.signals.recording import Events, Recording, Span, check_sampling_rate

MAX_RESAMPLED = 2**26  # samples of one channel


def resample_recording(recording: Recording, rate_hz: float) -> Recording:
    """The recording at `rate_hz`; labels, events and gaps stay where they are in time, and a note says what was done.

    Upwards, a sample between two measured ones is interpolated, and one beside a missing sample is missing. Downwards, a sample
    is the mean of the measured ones in its block, and missing where fewer than half were measured.
    Raises DataError where the rate goes down by no whole number.
    """
    check_sampling_rate(rate_hz, f"recording {recording.id}")
    if rate_hz == recording.rate_hz:
        return recording
    ratio = rate_hz / recording.rate_hz
    if ratio < 1 and abs(1 / ratio - round(1 / ratio)) > 1e-6:
        raise DataError(
            f"recording {recording.id}: its rate, {recording.rate_hz:g} Hz, is no whole multiple of resample_hz {rate_hz:g}: "
            "choose another rate, or resample the file"
        )
    if recording.length * ratio > MAX_RESAMPLED:
        raise DataError(f"recording {recording.id}: {recording.length * ratio:.0f} samples at resample_hz are too many: split it")
    samples = _interpolate(recording.samples, ratio) if ratio > 1 else _average_blocks(recording.samples, round(1 / ratio))
    length = samples.shape[1]
    spans = [Span(round(s.start * ratio), min(length, round(s.stop * ratio)), s.label) for s in recording.spans]
    events = recording.events
    if events is not None:
        events = Events(np.minimum(np.floor(events.samples * ratio).astype(np.int64), length - 1), events.labels)
    return replace(
        recording,
        samples=samples,
        rate_hz=rate_hz,
        spans=tuple(span for span in spans if span.start < span.stop),
        events=events,
        notes=(*recording.notes, f"resampled from {recording.rate_hz:g} to {rate_hz:g} Hz"),
    )


def _interpolate(samples: NDArray[np.float32], ratio: float) -> NDArray[np.float32]:
    """(channels, n) → (channels, n × ratio); the last sample is held."""
    length = samples.shape[1]
    places = np.minimum(np.arange(round(length * ratio)) / ratio, length - 1)
    before = np.floor(places).astype(np.int64)
    after, share = np.minimum(before + 1, length - 1), (places - before).astype(np.float32)
    mixed = samples[:, before] + share * (samples[:, after] - samples[:, before])
    return np.asarray(np.where(share == 0, samples[:, before], mixed), np.float32)


def _average_blocks(samples: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(channels, n) → (channels, n // size)."""
    blocks = samples[:, : samples.shape[1] // size * size].reshape(len(samples), -1, size)
    if not blocks.size:
        raise DataError(f"{samples.shape[1]} samples are fewer than one at the new rate")
    measured = np.isfinite(blocks)
    total = np.where(measured, blocks, 0).sum(axis=2, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = total / measured.sum(axis=2)
    return np.where(measured.sum(axis=2) * 2 >= size, means, np.nan).astype(np.float32)
