"""Corrupted recordings: only the channels that are shown change, and lost samples are missing or held."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.data.shift.corrupted_recordings import corrupt_recording
from phoropter.results.shift.corruption_kinds import Corruption
from phoropter.signals.recording import Recording

SAMPLES = np.random.default_rng(0).normal(0, 1, (3, 4000)).astype(np.float32)
RECORDING = Recording("r1", "p1", SAMPLES, ("ECG", "EDA", "TEMP"), ("mV", "uS", "C"), 100.0, label="rest")
KINDS = [("noise", 0.1), ("baseline_wander", 0.1), ("powerline", 0.1), ("dropout_s", 2.0)]


@pytest.mark.parametrize(("kind", "level"), KINDS)
def test_only_the_channels_that_are_named_change_and_the_recording_stays(kind: str, level: float) -> None:
    found = corrupt_recording(RECORDING, ("ECG", "TEMP"), Corruption(kind, level, 0, 50, 10.0), keeps_gaps=False)
    assert np.array_equal(found.samples[1], SAMPLES[1]) and (found.samples[[0, 2]] != SAMPLES[[0, 2]]).any(axis=1).all()
    assert (found.id, found.label, found.rate_hz) == ("r1", "rest", 100.0) and np.array_equal(RECORDING.samples, SAMPLES)
    again = corrupt_recording(RECORDING, ("ECG",), Corruption(kind, level, 0, 50, 10.0), keeps_gaps=False)
    assert np.array_equal(again.samples[0], found.samples[0])
    none = corrupt_recording(RECORDING, ("ECG", "TEMP"), Corruption(kind, 0.0, 0, 50, 10.0), keeps_gaps=False)
    assert np.array_equal(none.samples, SAMPLES)


def test_channels_are_lost_together_and_their_noise_differs() -> None:
    lost = corrupt_recording(RECORDING, ("ECG", "EDA"), Corruption("dropout_s", 2.0, 0, 0, 10.0), keeps_gaps=True).samples
    assert np.isnan(lost[0]).sum() == 4 * 200 and np.array_equal(np.isnan(lost[0]), np.isnan(lost[1]))
    held = corrupt_recording(RECORDING, ("ECG",), Corruption("dropout_s", 2.0, 0, 0, 10.0), keeps_gaps=False).samples
    gone = np.isnan(lost[0])
    assert np.isfinite(held).all() and np.array_equal(held[0][~gone], SAMPLES[0][~gone])
    assert len(np.unique(held[0][gone])) == 4  # one value a gap
    noisy = corrupt_recording(RECORDING, ("ECG", "EDA"), Corruption("noise", 0.1), keeps_gaps=False).samples - SAMPLES
    assert abs(np.corrcoef(noisy[0], noisy[1])[0, 1]) < 0.1


def test_recordings_and_seeds_have_draws_of_their_own() -> None:
    first = corrupt_recording(RECORDING, ("ECG",), Corruption("noise", 0.1), keeps_gaps=False).samples[0]
    other = Recording("r2", "p1", SAMPLES, RECORDING.channels, RECORDING.units, 100.0, label="rest")
    for changed in (
        corrupt_recording(other, ("ECG",), Corruption("noise", 0.1), keeps_gaps=False),
        corrupt_recording(RECORDING, ("ECG",), Corruption("noise", 0.1, 1), keeps_gaps=False),
    ):
        assert not np.array_equal(changed.samples[0], first)
