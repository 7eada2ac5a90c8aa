"""Corruptions of whole recordings, before they are cleaned, cut and drawn, so that overlapping windows agree.

Draws are named by seed, kind, recording and channel: every candidate sees the same corrupted recording. Samples that are lost
stay missing in a cardiotocogram, whose cleaning fills gaps; a single channel holds its last value, because a window with missing
samples is never drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator
from phoropter.results.shift.corruption_kinds import Corruption
from phoropter.signals.corruptions.disturbances import add_baseline_wander, add_noise, add_powerline
from phoropter.signals.corruptions.lost_samples import choose_lost_samples, hold_last_value
from phoropter.signals.recording import Recording


def corrupt_recording(recording: Recording, channels: Sequence[str], corruption: Corruption, keeps_gaps: bool) -> Recording:
    """The recording with these channels corrupted. keeps_gaps: whether lost samples stay missing, else the last value is held"""
    samples = recording.samples.copy()
    for name in channels:
        at = recording.channel_index(name)
        samples[at] = _corrupt_channel(recording, at, corruption, keeps_gaps)
    return replace(recording, samples=samples)


def _corrupt_channel(recording: Recording, at: int, corruption: Corruption, keeps_gaps: bool) -> NDArray[np.float32]:
    values, rate_hz, level = recording.samples[at], recording.rate_hz, corruption.level
    # Channels are lost together, as where a plug is pulled; all else differs between them
    channel = "" if corruption.kind == "dropout_s" else recording.channels[at]
    generator = named_generator(corruption.seed, "shift", corruption.kind, recording.id, channel)
    if corruption.kind == "noise":
        return add_noise(values, level, generator)
    if corruption.kind == "baseline_wander":
        return add_baseline_wander(values, rate_hz, level, generator)
    if corruption.kind == "powerline":
        return add_powerline(values, rate_hz, level, generator, corruption.hum_hz)
    lost = choose_lost_samples(len(values), rate_hz, level, corruption.every_s, generator)
    return np.where(lost, np.float32(np.nan), values) if keeps_gaps else hold_last_value(values, lost)
