"""Durations as text, for the terminal, the page and the live view."""

from __future__ import annotations

import re

FEW_SECONDS = 8.0  # below this, the number of seconds that are left would be wrong before it is read


def format_time_left(seconds: float | None) -> str:
    """The time left in words, empty where nothing is left or known.

    >>> format_time_left(75.2), format_time_left(0.01), format_time_left(None)
    ('about 1 min 15 s left', 'a few seconds left', '')
    """
    if seconds is None:
        return ""
    return "a few seconds left" if seconds < FEW_SECONDS else f"about {format_duration(seconds)} left"


def format_duration(seconds: float) -> str:
    """Seconds in the two largest units that fit.

    >>> format_duration(0.0421), format_duration(75), format_duration(7300)
    ('42 ms', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


_UNIT_SECONDS = {"d": 86400, "h": 3600, "min": 60, "s": 1}


def parse_duration(words: str) -> float:
    """Seconds of a duration in words. Raises ValueError for anything else.

    >>> parse_duration("1h30min"), parse_duration("1.5 h"), parse_duration("90s")
    (5400.0, 5400.0, 90.0)
    """
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?) *(d|h|min|s)(?: +|(?=[0-9])|$)", words.strip())
    if not parts or "".join(f"{n}{unit}" for n, unit in parts) != re.sub(r"\s", "", words):
        raise ValueError(f"'{words}' is no duration: expected for example 3h, 90min or 1h30min")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
