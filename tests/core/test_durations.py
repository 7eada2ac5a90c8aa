"""Durations as text."""

from __future__ import annotations

import pytest

from phoropter.core.durations import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.42, "420 ms"),
        (3.14159, "3.1 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (90061, "25 h 1 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
