"""The time column of a table of samples: which one it is, its times in seconds, and the place of each line on a regular grid.

Times are numbers (seconds, or the unit in the header), clock times such as 10:15:02.5 or 10:15:02 PM, or dates. A clock that
passes midnight goes on. A column such as `index` or `sample` counts samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.signals.recording import check_filled_length

if TYPE_CHECKING:
    import pandas as pd

TIME_NAMES = (  # in order of preference
    *("time", "timestamp", "datetime", "date_time", "t", "time_s", "time_ms", "t_s", "t_ms"),
    *("times", "time_stamp", "time_us", "time_ns", "time_sec", "timestamp_ms", "timestamp_us", "timestamp_ns", "seconds"),
    *("elapsed", "elapsed_time", "elapsed_s", "clock", "clock_time", "zeit", "uhrzeit", "zeitstempel"),
    *(
        "ts",
        "tstamp",
        "timestamps",
        "time_seconds",
        "time_in_s",
        "time_in_seconds",
        "time_in_ms",
        "sec",
        "secs",
        "millis",
        "msec",
        "time_and_date",
    ),
)
COUNTER_NAMES = ("index", "idx", "sample", "sample_index", "sample_idx", "sample_number", "sample_no", "sample_#", "frame", "#")
DATE_NAMES = ("date", "datum", "day")  # beside a clock; never a channel
TIME_UNITS = {"s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3}
TIME_UNITS |= {"us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0, "minutes": 60.0, "h": 3600.0, "hours": 3600.0}
TIME_UNITS |= {"sek": 1.0, "sekunden": 1.0, "msek": 1e-3, "msecs": 1e-3, "minute": 60.0, "hour": 3600.0, "hr": 3600.0}
TIME_UNITS |= {"millis": 1e-3, "millisecond": 1e-3, "micros": 1e-6, "microseconds": 1e-6, "nanoseconds": 1e-9, "mins": 60.0}
_GUESSED_UNITS = (1.0, 1e-3, 1e-6, 1e-9)
_HEADER = re.compile(r"^(.*?)\s*(?:\[([^\]]*)\]|\(([^)]*)\))?$")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:[.,]\d+)?))?")
_ELAPSED = re.compile(r"(\d+):(\d{2}[.,]\d+)")  # minutes and seconds, as PhysioNet's tools write the first hour
_TWELVE_HOURS = re.compile(r"(?<!\d)(0?[1-9]|1[0-2])(:\d{2}(?::\d{2}(?:[.,]\d+)?)?)\s*([ap])\.?m(?:\.|\b)", re.IGNORECASE)
_MINUTES_FORM = re.compile(r"m{1,2}:s{1,2}\b.*", re.IGNORECASE)
_QUOTES = "'[] "  # around the times of PhysioNet's exports
_DATES = (
    *("ISO8601", "%d.%m.%Y %H:%M:%S.%f", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M"),
    *(f"{date} {time}" for date in ("%m/%d/%Y", "%d/%m/%Y") for time in ("%H:%M:%S.%f", "%H:%M:%S", "%H:%M")),
    *("%H:%M:%S.%f %d/%m/%Y", "%H:%M:%S %d/%m/%Y"),
)
_DAY_S = 86400.0
RATE_TOLERANCE = 5e-3
JITTER_LINES = 16  # over which late and early lines even out
MAX_JITTER = 0.3  # of a sample, in three quarters of the lines: beyond it a gap of one sample cannot be told from a late line
MIN_RISING_LINES = 20
MIN_EVEN_SHARE = 0.9  # of the steps of a column that rises as times of another rate do, but for jumps


def split_unit(cell: str) -> tuple[str, str]:
    """`SpO2 (%)` or `II [mV]` → name and unit."""
    match = _HEADER.match(cell)
    assert match is not None  # the expression matches every text of one line
    return match[1], match[2] or match[3] or ""


def column_kind(cell: str, first: bool = False) -> str:
    """`time`, `counter` (of samples), `date` or "" by its header. first: a first column without a name counts lines."""
    name = re.sub(r"[\s\-]+", "_", split_unit(cell)[0].strip().lower())
    if name in TIME_NAMES:
        return "time"
    return "counter" if name in COUNTER_NAMES or (first and not name) else "date" if name in DATE_NAMES else ""


def read_time_unit(cell: str) -> float | None:
    """Seconds in the unit that a header states, in brackets or at the end of its name (`time_ms`); None where it states none."""
    name, unit = split_unit(cell)
    return TIME_UNITS.get(unit.strip(" .").lower() or re.sub(r"[\s\-]+", "_", name.strip().lower()).rpartition("_")[2])


def find_time_column(header: Sequence[str]) -> int | None:
    """The column with times, failing that the one that counts samples; None where there is neither."""
    kinds = [column_kind(cell, first=at == 0) for at, cell in enumerate(header)]
    return next((kinds.index(kind) for kind in ("time", "counter") if kind in kinds), None)


def rises_like_times(column: pd.Series[Any], rate_hz: float) -> str:
    """`counter` or `time` where each of at least MIN_RISING_LINES lines has a larger number than the one above, mostly by 1 or by
    1 / rate_hz in a usual unit; "" otherwise. No signal does so.
    """
    if (numbers := _rising_numbers(column)) is None:
        return ""
    median = float(np.median(np.diff(numbers)))
    if median == 1 and (numbers == np.rint(numbers)).all():
        return "counter"
    return "time" if any(abs(median * scale * rate_hz - 1) < RATE_TOLERANCE for scale in _GUESSED_UNITS) else ""


def rises_evenly(column: pd.Series[Any]) -> float | None:
    """The step of a column that rises by the same in nearly all of at least MIN_RISING_LINES lines; None for any other."""
    if (numbers := _rising_numbers(column)) is None:
        return None
    steps = np.diff(numbers)
    median = float(np.median(steps))
    even = np.abs(steps - median) <= 1e-2 * median
    return median if even.mean() >= MIN_EVEN_SHARE else None


def _rising_numbers(column: pd.Series[Any]) -> NDArray[np.float64] | None:
    """Numbers of a column of at least MIN_RISING_LINES lines, each larger than the one above; None for any other."""
    numbers = _numeric(column)
    if numbers is None or len(numbers) < MIN_RISING_LINES:
        return None
    return numbers if (np.diff(numbers) > 0).all() else None  # also where one is missing


def place_lines(
    column: pd.Series[Any], cell: str, rate_hz: float, where: str, name_line: Callable[[int], str], kind: str
) -> NDArray[np.int64]:
    """(N,) place of each line on the grid of `rate_hz`, ascending from 0; places that no line has are gaps.

    column: the cells of the time column · cell: its header · name_line: row → "line 3" for messages · kind: `time` or `counter`
    Raises DataError where a time is missing, goes backwards, or where the times contradict the rate.
    """
    if kind == "counter":
        numbers = _numeric(column)
        if numbers is None:
            raise DataError(f"{where}: column {cell or 1!r} counts samples and should hold numbers, came {column.iloc[0]!r}")
        return _place_on_grid(numbers / rate_hz, rate_hz, where, name_line)
    numbers = _numeric(column)
    if numbers is None:
        return _place_on_grid(_parse_clock(column, where, name_line, cell), rate_hz, where, name_line)
    return _place_on_grid(numbers * _unit_of(cell, numbers, rate_hz), rate_hz, where, name_line)


def is_clock(text: str) -> bool:
    """Whether a text is a clock time such as 10:15, 10:15:02.5 or 0:00.004, or such a time and a date in brackets."""
    bare = text.strip(_QUOTES)
    return any(form.fullmatch(bare) for form in (_CLOCK, _ELAPSED)) or (bare != text and bare.count(":") == 2)


def parse_clock(texts: Sequence[str], cell: str, where: str, name_line: Callable[[int], str]) -> NDArray[np.float64]:
    """Clock times or dates → (N,) seconds; a clock that passes midnight goes on. Raises DataError for other texts.

    cell: the header of the column; a unit such as [mm:ss] says what 10:15 is
    """
    import pandas as pd

    return _parse_clock(pd.Series(texts, dtype="string"), where, name_line, cell)


def parse_time_column(column: pd.Series[Any], cell: str, where: str, name_line: Callable[[int], str]) -> NDArray[np.float64]:
    """Cells of a time column whose rate is not known → (N,) seconds. Numbers are seconds where the header states no unit."""
    numbers = _numeric(column)
    return _parse_clock(column, where, name_line, cell) if numbers is None else numbers * (read_time_unit(cell) or 1.0)


def _numeric(column: pd.Series[Any]) -> NDArray[np.float64] | None:
    """Numbers of a column, NaN where a cell is empty; None for text and dates."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if not is_numeric_dtype(column) or is_bool_dtype(column):
        return None
    numbers = column.to_numpy(np.float64, na_value=np.nan)
    if (np.abs(numbers) > 2**53).any():  # nanoseconds since 1970 do not fit a float64
        numbers = (column - column.iloc[0]).to_numpy(np.float64, na_value=np.nan)
    return numbers


def _unit_of(cell: str, numbers: NDArray[np.float64], rate_hz: float) -> float:
    """Seconds in one unit of the times: by the header, or else the unit in which the times have the rate; seconds otherwise."""
    if (stated := read_time_unit(cell)) is not None:
        return stated
    steps = np.diff(numbers)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    return next((scale for scale in _GUESSED_UNITS if abs(step * scale * rate_hz - 1) < 0.1), 1.0)


def _parse_clock(column: pd.Series[Any], where: str, name_line: Callable[[int], str], cell: str) -> NDArray[np.float64]:
    """Clock times and dates → seconds from the first."""
    import pandas as pd
    from pandas.api.types import is_datetime64_any_dtype, is_timedelta64_dtype

    if is_datetime64_any_dtype(column) or is_timedelta64_dtype(column):
        return np.asarray((column - column.iloc[0]).dt.total_seconds(), np.float64)
    texts = _write_24_hours(column.astype("string").str.strip(_QUOTES), where, name_line)
    clock, elapsed = texts.str.extract(f"^{_CLOCK.pattern}$"), texts.str.extract(f"^{_ELAPSED.pattern}$")
    if (clock[0].notna() | elapsed[0].notna()).all():
        return _join_clock_parts(clock, elapsed, _MINUTES_FORM.fullmatch(split_unit(cell)[1]) is not None)
    readings = []
    for style in _DATES:
        dates = pd.to_datetime(texts.str.replace(",", "."), format=style, errors="coerce", utc=True)
        if dates.notna().all():
            readings.append(np.asarray((dates - dates.iloc[0]).dt.total_seconds(), np.float64))
    if readings:  # 03/04 may be March or April: the reading with which the times hang together
        return min(readings, key=lambda seconds: ((np.diff(seconds) < 0).any(), np.ptp(seconds)))
    known = pd.to_datetime(texts.str.replace(",", "."), format="ISO8601", errors="coerce", utc=True).notna() | clock[0].notna()
    row = int(np.flatnonzero(~known.to_numpy())[0]) if not known.all() else 0
    came = "an empty cell" if pd.isna(texts.iloc[row]) else repr(str(texts.iloc[row]))
    raise DataError(f"{where} {name_line(row)}: expected a time as seconds, 10:15:02.5 or 2024-05-01 10:15:02, came {came}")


def _write_24_hours(texts: pd.Series[Any], where: str, name_line: Callable[[int], str]) -> pd.Series[Any]:
    """Times with AM or PM by the hours of the day. Raises DataError where only some have it: 10:15 might be either."""
    written = texts.str.replace(
        _TWELVE_HOURS, lambda found: f"{int(found[1]) % 12 + 12 * (found[3] in 'pP'):02d}{found[2]}", regex=True
    )
    as_it_was = (written == texts).fillna(False).to_numpy(bool)
    if as_it_was.any() and int(as_it_was.sum()) < int(texts.notna().sum()):
        row = int(np.flatnonzero(as_it_was)[0])
        raise DataError(
            f"{where} {name_line(row)}: expected a time from 1:00 to 12:59 with AM or PM, as other lines have it, came "
            f"{str(texts.iloc[row])!r}"
        )
    return written


def _join_clock_parts(clock: pd.DataFrame, elapsed: pd.DataFrame, minutes_first: bool) -> NDArray[np.float64]:
    """Seconds of clock times.

    Two parts are hours and minutes; minutes and seconds where one of two parts has a fraction, where the header says so, or where
    the times hang together only so (59:59, 1:00:00).
    """
    first, second, third = (
        clock[at].fillna("0").str.replace(",", ".").astype(float).to_numpy(np.float64) for at in clock.columns
    )
    short = clock[2].isna().to_numpy()
    has_fraction = elapsed[0].notna().to_numpy()
    hours_jump = bool(short[0] and not short.all() and (np.diff(first * 60 + second)[short[:-1]] < 0).any())
    if minutes_first or has_fraction.any() or hours_jump:
        whole = clock[0].notna().to_numpy() & short
        first, second, third = np.where(whole, 0, first), np.where(whole, first, second), np.where(whole, second, third)
        second = np.where(has_fraction, elapsed[0].fillna("0").astype(float).to_numpy(np.float64), second)
        fractions = elapsed[1].fillna("0").str.replace(",", ".").astype(float).to_numpy(np.float64)
        third = np.where(has_fraction, fractions, third)
    seconds = np.asarray(first * 3600 + second * 60 + third, np.float64)
    return np.asarray(seconds + _DAY_S * np.concatenate([[0.0], np.cumsum(np.diff(seconds) < -_DAY_S / 2)]), np.float64)


def _place_on_grid(
    seconds: NDArray[np.float64], rate_hz: float, where: str, name_line: Callable[[int], str]
) -> NDArray[np.int64]:
    """(N,) seconds → (N,) places; a step of more than one and a half samples, after which the lines stay late, is a gap."""
    if not np.isfinite(seconds).all():
        raise DataError(f"{where} {name_line(int(np.flatnonzero(~np.isfinite(seconds))[0]))}: its time is missing")
    if len(seconds) < 2:
        return np.zeros(len(seconds), np.int64)
    steps = np.diff(seconds)
    if (steps < 0).any():
        row = int(np.flatnonzero(steps < 0)[0])
        raise DataError(
            f"{where} {name_line(row + 1)}: its time, {seconds[row + 1]:.12g} s, is before that of the line above, "
            f"{seconds[row]:.12g} s: sort the table, or split it where a new recording begins"
        )
    if (steps == 0).any():
        return _place_coarse_times(seconds, rate_hz, where, name_line(int(np.flatnonzero(steps == 0)[0]) + 1))
    _check_rate(seconds, rate_hz, where)
    places = _count_places(seconds, rate_hz)
    span, gaps = (seconds[-1] - seconds[0]) * rate_hz, int((np.diff(places) > 1).sum())
    uncertain = gaps and _measure_jitter((seconds - seconds[0]) * rate_hz - places) > MAX_JITTER
    if uncertain or abs(places[-1] - span) > 1 + RATE_TOLERANCE * span + 0.5 * gaps:
        raise DataError(f"{where}: its times are irregular ({len(seconds)} lines in {span / rate_hz:g} s): resample the table")
    check_filled_length(int(places[-1]) + 1, len(places), where)
    return places


def _check_rate(seconds: NDArray[np.float64], rate_hz: float, where: str) -> None:
    """Raises DataError unless the lines are as far apart as the rate says, from line to line or over JITTER_LINES lines."""
    means = [_mean_step(seconds, lag) for lag in (1, min(JITTER_LINES, len(seconds) // 4)) if lag]
    if all(abs(step * rate_hz - 1) > max(RATE_TOLERANCE, 0.5 / count) for step, count in means):
        step, _ = means[0]
        raise DataError(
            f"{where}: its times are {step:.6g} s apart, which are {1 / step:.4g} Hz, and rate_hz is {rate_hz:g}: {_CORRECT}"
        )


def _mean_step(seconds: NDArray[np.float64], lag: int) -> tuple[float, int]:
    """The mean time from one line to the next, taken over `lag` lines where these hold no gap, and in how many places it was."""
    steps = (seconds[lag:] - seconds[:-lag]) / lag
    median = float(np.sort(steps)[(len(steps) - 1) // 2])
    usual = steps[np.abs(steps - median) <= 0.5 * median / lag]
    return float(usual.mean()), len(usual)


def _count_places(seconds: NDArray[np.float64], rate_hz: float) -> NDArray[np.int64]:
    """(N,) ascending seconds → (N,) places. After a gap all lines are late; after a line that jitter made late they are not."""
    late = (seconds - seconds[0]) * rate_hz - np.arange(len(seconds))  # in samples, behind a grid without gaps
    forward = np.ones(len(seconds), np.int64)
    forward[0] = 0
    steps = np.diff(seconds) * rate_hz
    clear_gaps = np.append(np.flatnonzero(steps > 1.75), len(steps))
    first = 0  # line after the last gap
    for at in np.flatnonzero(steps > 1.5).tolist():
        following = clear_gaps[np.searchsorted(clear_gaps, at + 1)]
        before = np.median(late[max(first, at + 1 - JITTER_LINES) : at + 1])
        after = np.median(late[at + 1 : min(following, at + JITTER_LINES) + 1])
        if (step := int(np.rint(1 + after - before))) > 1:
            forward[at + 1], first = step, at + 1
    return np.cumsum(forward)


def _measure_jitter(late: NDArray[np.float64]) -> float:
    """The lateness of a line beside the mean of its neighbours that three quarters of the lines keep to, in samples."""
    if len(late) < JITTER_LINES:
        return 0.0
    level = np.convolve(late, np.full(JITTER_LINES, 1 / JITTER_LINES), "valid")
    return float(np.quantile(np.abs(late[JITTER_LINES // 2 :][: len(level)] - level), 0.75))


def _place_coarse_times(seconds: NDArray[np.float64], rate_hz: float, where: str, line: str) -> NDArray[np.int64]:
    """Times rounded so that neighbours are equal, such as full seconds of 4 Hz: they can confirm the rate, and place nothing."""
    steps, duration = np.diff(seconds), float(seconds[-1] - seconds[0])
    if duration == 0:
        raise DataError(f"{where}: all its times are {seconds[0]:g} s: remove the column, or write the times")
    off = seconds - seconds[0] - np.arange(len(seconds)) / rate_hz
    if float(np.ptp(off)) > steps[steps > 0].min() + 1 / rate_hz + RATE_TOLERANCE * duration:
        raise DataError(
            f"{where} {line}: its times repeat, and {len(seconds)} lines in {duration:g} s do not fit rate_hz {rate_hz:g} "
            "without gaps: export finer times, or correct rate_hz"
        )
    return np.arange(len(seconds), dtype=np.int64)


_CORRECT = "correct one of them, or leave the time column out if it counts something else"
