"""Durations as text, for the terminal, the page and the live view."""

from __future__ import annotations


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
