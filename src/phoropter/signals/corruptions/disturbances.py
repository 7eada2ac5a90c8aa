"""What is added to one channel: noise, baseline wander and mains hum. NumPy only.

What is added has a standard deviation that is a share of the channel's range, so that one level means the same in millivolts, in
beats per minute and in arbitrary units. Equal generators give equal draws whatever the level: a higher level is the same
disturbance, larger. Level 0 gives the samples back. Samples that are missing (NaN) stay missing.

Left out: movement artefacts and loose electrodes, which have no model that is agreed upon.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
RANGE_PERCENTILES = (1.0, 99.0)  # so that a single spike does not decide what a share of the range is
WANDER_HZ = (0.1, 0.5)  # breathing and slow movement; a monitor's high-pass filter cuts below 0.5 Hz
WANDER_WAVES = 3


def measure_range(samples: Samples) -> float:
    """The distance from the 1st to the 99th percentile of the samples that were measured; 0 where there are none."""
    known = samples[np.isfinite(samples)]
    low, high = np.percentile(known, RANGE_PERCENTILES) if len(known) else (0.0, 0.0)
    return float(high - low)


def add_noise(samples: Samples, level: float, generator: np.random.Generator) -> Samples:
    """(n,) samples and white noise. level: its standard deviation as a share of the range"""
    drawn = generator.standard_normal(len(samples))
    return _add_scaled(samples, drawn, level)


def add_baseline_wander(samples: Samples, rate_hz: float, level: float, generator: np.random.Generator) -> Samples:
    """(n,) samples and three slow waves of 0.1 to 0.5 Hz. level: the standard deviation of their sum as a share of the range"""
    # One frequency in each third of the band, so that two waves hardly ever beat
    shares = (np.arange(WANDER_WAVES) + generator.uniform(0, 1, WANDER_WAVES)) / WANDER_WAVES
    frequencies = WANDER_HZ[0] + (WANDER_HZ[1] - WANDER_HZ[0]) * shares
    phases = generator.uniform(0, 2 * np.pi, WANDER_WAVES)
    times = np.arange(len(samples)) / rate_hz
    waves = np.sin(2 * np.pi * frequencies[:, None] * times + phases[:, None]).sum(axis=0)
    return _add_scaled(samples, waves * np.sqrt(2 / WANDER_WAVES), level)


def add_powerline(samples: Samples, rate_hz: float, level: float, generator: np.random.Generator, hum_hz: float) -> Samples:
    """(n,) samples and one sine of the mains. level: its standard deviation as a share of the range · hum_hz: 50 or 60"""
    phase = generator.uniform(0, 2 * np.pi)
    wave = np.sqrt(2) * np.sin(2 * np.pi * hum_hz * np.arange(len(samples)) / rate_hz + phase)
    return _add_scaled(samples, wave, level)


def _add_scaled(samples: Samples, added: NDArray[np.float64], level: float) -> Samples:
    return (samples + level * measure_range(samples) * added).astype(np.float32) if level else samples.copy()
