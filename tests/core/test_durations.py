"""Durations as text."""

from __future__ import annotations

import pytest

from phoropter.core.durations import FEW_SECONDS, format_duration, format_time_left, parse_duration


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


def test_a_time_left_is_never_nothing() -> None:
    assert format_time_left(0.0) == format_time_left(FEW_SECONDS - 0.01) == "a few seconds left"
    assert format_time_left(FEW_SECONDS) == "about 8.0 s left" and format_time_left(75) == "about 1 min 15 s left"
    assert format_time_left(None) == ""


@pytest.mark.parametrize(
    ("words", "seconds"), [("3h", 10800), ("90 min", 5400), ("1h30min", 5400), ("1 d 2 h", 93600), ("2.5s", 2.5), (" 1h ", 3600)]
)
def test_durations_in_words(words: str, seconds: float) -> None:
    assert parse_duration(words) == seconds


@pytest.mark.parametrize("words", ["", "3", "h", "3m", "3 hours", "1h and 2min", "1e3s", "-1h"])
def test_what_is_no_duration_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match="expected for example 3h, 90min or 1h30min"):
        parse_duration(words)
