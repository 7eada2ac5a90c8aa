"""Clipped traces are told from slow waves in coarse steps, from traces at rest, and from flat ones."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from phoropter.signals.quality.clipping import count_clipped_samples

SECONDS = np.arange(3000) / 100
WAVE = np.sin(7 * SECONDS)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.minimum(WAVE, 0.2), int((WAVE >= 0.2).sum())),
        (np.clip(WAVE, -0.5, 0.5), int((np.abs(WAVE) >= 0.5).sum())),
        (np.where(SECONDS < 1, np.nan, np.minimum(WAVE, 0.2)), int((WAVE[100:] >= 0.2).sum())),
        (np.round(np.minimum(WAVE, 0.2) * 200), int((np.round(np.minimum(WAVE, 0.2) * 200) >= 40).sum())),
    ],
)
def test_samples_at_the_end_of_the_range_are_counted(samples: NDArray[np.float64], expected: int) -> None:
    counted = count_clipped_samples(samples)
    assert expected - 2 * 35 <= counted <= expected  # a run cut by an end of the trace, or of fewer than four readings, is none


@pytest.mark.parametrize(
    "samples",
    [
        WAVE,
        np.round(np.sin(0.7 * SECONDS) * 10),  # a slow wave in coarse steps
        np.round(WAVE * 100),
        np.where(WAVE > 0.9, WAVE, 0),  # at rest most of the time
        np.repeat(np.random.default_rng(0).normal(75, 8, 300).round(), 4),  # a heart rate of each second, at 4 Hz
        np.ones(100),
        np.full(100, np.nan),
        np.zeros(0),
    ],
)
def test_other_traces_are_not_clipped(samples: NDArray[np.float64]) -> None:
    assert count_clipped_samples(samples) == 0
