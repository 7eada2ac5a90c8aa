from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.signals.recording import Events, Recording, Span
from phoropter.signals.resample import resample_recording


def recording(values: list[float], rate_hz: float = 1.0, **more: object) -> Recording:
    return Recording("a", "a", np.array([values], np.float32), ("FHR",), ("bpm",), rate_hz, **more)  # type: ignore[arg-type]


def test_upwards_samples_are_interpolated_and_gaps_stay_gaps() -> None:
    made = resample_recording(recording([0, 4, np.nan, 8, 10]), 4.0)
    expected = [0, 1, 2, 3, 4, *[np.nan] * 7, 8, 8.5, 9, 9.5, 10, 10, 10, 10]
    np.testing.assert_array_equal(made.samples[0], np.array(expected, np.float32))
    assert (made.rate_hz, made.duration_s, made.notes) == (4.0, 5.0, ("resampled from 1 to 4 Hz",))


def test_downwards_samples_are_means_of_the_measured_ones() -> None:
    made = resample_recording(recording([1, 3, np.nan, 5, np.nan, np.nan, 9], rate_hz=8.0), 4.0)
    np.testing.assert_array_equal(made.samples[0], np.array([2, 5, np.nan], np.float32))


def test_labels_and_events_stay_where_they_are_in_time() -> None:
    source = recording([1, 2, 3, 4], spans=(Span(1, 3, "rest"),), events=Events(np.array([0, 3]), np.array(["N", "V"])))
    made = resample_recording(source, 4.0)
    assert made.spans == (Span(4, 12, "rest"),)
    assert made.events is not None and made.events.samples.tolist() == [0, 12]


def test_the_same_rate_changes_nothing() -> None:
    source = recording([1, 2])
    assert resample_recording(source, 1.0) is source


@pytest.mark.parametrize(
    ("rate_hz", "target", "message"),
    [(5.0, 4.0, "is no whole multiple of resample_hz 4"), (1.0, 1e9, "are too many"), (1.0, float("nan"), "sampling rate")],
)
def test_an_impossible_rate_is_refused(rate_hz: float, target: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        resample_recording(recording([1, 2, 3], rate_hz), target)
