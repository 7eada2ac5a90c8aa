"""Columns and rows of rendered windows as samples, seconds and frequencies: a planted event is found where it was put."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import signal

from phoropter.deploy.explain.window_axes import find_window_axes
from phoropter.signals.render import CtgPlot, Scalogram, Spectrogram, Trace, render_windows

RATE = 200.0


def burst(n: int, at_s: float, hz: float, width_s: float = 0.08) -> Any:
    """(1, n) a short oscillation of one frequency in a little noise."""
    seconds = np.arange(n) / RATE
    wave = np.sin(2 * np.pi * hz * seconds) * np.exp(-(((seconds - at_s) / width_s) ** 2) / 2)
    return (wave + 1e-3 * np.random.default_rng(0).normal(size=n)).astype(np.float32)[None]


@pytest.mark.parametrize(
    ("representation", "n", "tolerance_s", "tolerance_hz"),
    [
        (Spectrogram(style="paper"), 2000, 0.65, 1.0),
        (Spectrogram(style="dense", segment_s=0.5, max_hz=60, size=128), 1000, 0.06, 1.0),
        (Scalogram(low_hz=2, high_hz=60, size=128), 1000, 0.06, 1.0),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_brightest_place_of_a_spectrum_is_at_the_second_and_frequency_of_a_burst(
    representation: Any, n: int, tolerance_s: float, tolerance_hz: float, share: float
) -> None:
    at_s, hz = share * n / RATE, 20.0
    image = render_windows(burst(n, at_s, hz), RATE, representation)[0].astype(float)
    side = len(image)
    axes = find_window_axes(representation, n, RATE, side)
    rows, columns = np.nonzero(image >= np.quantile(image, 0.999))
    assert axes.row_hz is not None
    assert np.mean(axes.column_s[columns]) == pytest.approx(at_s, abs=tolerance_s)
    assert np.mean(axes.row_hz[rows]) == pytest.approx(hz, abs=tolerance_hz)
    along = axes.spread_over_samples(image.max(0))
    assert along.shape == (n,) and np.argmax(along) / RATE == pytest.approx(at_s, abs=tolerance_s)


def test_the_frequencies_and_times_of_the_papers_spectrogram_are_scipys() -> None:
    frequencies, times, _ = signal.spectrogram(np.zeros(1280), RATE)
    axes = find_window_axes(Spectrogram(), 1280, RATE, 224)
    assert axes.row_hz is not None
    at = (np.arange(224) + 0.5) * len(times) / 224 - 0.5
    inside = (at >= 0) & (at <= len(times) - 1)
    np.testing.assert_allclose(axes.column_s[inside], np.interp(at[inside], np.arange(len(times)), times))
    assert np.ptp(axes.row_hz) > 0.98 * np.ptp(frequencies) and axes.row_hz[0] > axes.row_hz[-1]


@pytest.mark.parametrize(("representation", "channels"), [(Trace(size=96), 1), (CtgPlot(size=96), 3)])
@pytest.mark.parametrize("n", [1000, 96, 60])
def test_a_column_of_a_trace_stands_for_the_samples_drawn_in_it(representation: Any, channels: int, n: int) -> None:
    """One sample that stands out is drawn in the columns that get its value back."""
    flat = np.full((1, channels, n), 100, np.float32) if channels > 1 else np.zeros((1, n), np.float32)
    for sample in (0, n // 3, n - 1):
        spiked = flat.copy()
        spiked[..., sample] = 200 if channels > 1 else 1
        before, after = (render_windows(w, RATE, representation)[0].astype(float) for w in (flat, spiked))
        if channels == 1:  # its own axis spans the window, so the flat one is in the middle
            after[after.shape[0] // 2 :] = before[before.shape[0] // 2 :] = 0
        changed = np.abs(after - before).reshape(96, 96, -1).sum((0, 2))
        along = find_window_axes(representation, n, RATE, 96).spread_over_samples(changed)
        near = along[max(0, sample - (n < 96)) : sample + 2]  # fewer samples than columns: between two of them
        assert near.max() == along.max() > 0 and along[sample] > along.max() / 2
        assert find_window_axes(representation, n, RATE, 96).column_s[np.argmax(changed)] == pytest.approx(
            sample / RATE, abs=max(n / 96, 1) / RATE
        )


def test_a_picture_scaled_to_another_side_keeps_its_seconds() -> None:
    for representation in (Trace(size=96), Spectrogram(size=96)):
        small, large = (find_window_axes(representation, 1000, RATE, side) for side in (48, 192))
        np.testing.assert_allclose(small.column_s, large.column_s.reshape(48, 4).mean(1), atol=1e-9)
