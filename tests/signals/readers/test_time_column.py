"""Names, units, clocks and the grid of a time column; test_signal_tables.py tests them through whole tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phoropter.core.errors import DataError
from phoropter.signals.readers.time_column import column_kind, find_time_column, is_clock, parse_clock, place_lines, split_unit


def name_line(row: int) -> str:
    return f"line {row + 2}"


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("Time [s]", "time"),
        ("Date Time", "time"),
        ("time-ms", "time"),
        ("Sample", "counter"),
        ("Datum", "date"),
        ("ECG", ""),
        ("", ""),
    ],
)
def test_columns_are_told_by_their_names(cell: str, kind: str) -> None:
    assert column_kind(cell) == kind


def test_a_first_column_without_a_name_counts_lines() -> None:
    assert column_kind("", first=True) == "counter"
    assert find_time_column(["", "ECG"]) == 0
    assert find_time_column(["", "ECG", "time"]) == 2  # times say more than a count
    assert find_time_column(["ECG", "Resp"]) is None


@pytest.mark.parametrize(("cell", "name", "unit"), [("II [mV]", "II", "mV"), ("SpO2 (%)", "SpO2", "%"), ("ECG", "ECG", "")])
def test_a_unit_in_brackets_is_split_off(cell: str, name: str, unit: str) -> None:
    assert split_unit(cell) == (name, unit)


def test_a_clock_passes_midnight() -> None:
    seconds = parse_clock(["23:59:59,5", "00:00:00", "00:00:00.5"], "time", "a.csv", name_line)
    assert np.diff(seconds).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("texts", "seconds"),
    [
        (["11:59:59 AM", "12:00:00 PM", "12:00:01 PM", "1:00:00 PM"], [43199, 43200, 43201, 46800]),
        (["11:59:59.5 p.m.", "12:00:00.0 a.m."], [86399.5, 86400]),
        (["10:15PM", "10:16PM"], [80100, 80160]),
        (["5/1/2024 11:59:59\u202fPM", "5/2/2024 12:00:00\u202fAM"], [0, 1]),
        (["2024-05-01 12:59:59 PM", "2024-05-01 01:00:00 PM"], [0, 1]),
    ],
)
def test_times_of_twelve_hours_are_read_by_am_and_pm(texts: list[str], seconds: list[float]) -> None:
    np.testing.assert_allclose(parse_clock(texts, "time", "a.csv", name_line), seconds, atol=1e-9)


@pytest.mark.parametrize("second", ["10:15:03", "13:15:03 PM", "0:15:03 AM"])
@pytest.mark.parametrize("swapped", [False, True])
def test_am_or_pm_in_some_lines_only_is_refused(second: str, swapped: bool) -> None:
    texts = ["10:15:02 AM", second][:: -1 if swapped else 1]
    with pytest.raises(DataError, match=f"from 1:00 to 12:59 with AM or PM, as other lines have it, came '{second}'"):
        parse_clock(texts, "time", "a.csv", name_line)


def test_places_keep_gaps_and_forgive_jitter() -> None:
    column = pd.Series([0.0, 0.021, 0.039, 0.2, 0.22])
    assert place_lines(column, "time", 50.0, "a.csv", name_line, "time").tolist() == [0, 1, 2, 10, 11]


@pytest.mark.parametrize("missing", [0, 1, 30])
@pytest.mark.parametrize("share", [0.12, 0.2])
def test_jitter_below_half_a_sample_is_no_gap(share: float, missing: int) -> None:
    """A normal jitter of 12 % makes a step beyond one and a half samples in every few hundred lines."""
    rng = np.random.default_rng(0)
    places = np.arange(5000)
    places[2500:] += missing
    seconds = (places + np.clip(rng.normal(0, share, 5000), -0.45, 0.45)) / 50
    column = pd.Series(np.sort(seconds))
    assert (np.diff(column) > 1.5 / 50).sum() > (missing > 0)
    np.testing.assert_array_equal(place_lines(column, "time", 50.0, "a.csv", name_line, "time"), places)


def test_a_late_line_is_no_gap() -> None:
    seconds = np.arange(100) / 50
    seconds[40] += 0.018
    assert place_lines(pd.Series(seconds), "time", 50.0, "a.csv", name_line, "time")[-1] == 99


@pytest.mark.parametrize(
    ("share", "rate_hz", "message"), [(0.12, 51.0, "apart"), (0.12, 100.0, "apart"), (0.49, 50.0, "irregular")]
)
def test_jittered_times_that_contradict_the_rate_or_hide_gaps_are_refused(share: float, rate_hz: float, message: str) -> None:
    places = np.arange(2000) + np.arange(2000) // 100  # a sample is missing after each hundred
    seconds = np.sort(places + np.random.default_rng(1).uniform(-share, share, 2000)) / 50
    with pytest.raises(DataError, match=message):
        place_lines(pd.Series(seconds), "time", rate_hz, "a.csv", name_line, "time")


def test_a_counter_of_text_is_refused() -> None:
    with pytest.raises(DataError, match="column 'index' counts samples and should hold numbers, came 'a'"):
        place_lines(pd.Series(["a", "b"]), "index", 50.0, "a.csv", name_line, "counter")


@pytest.mark.parametrize(
    ("texts", "cell", "seconds"),
    [
        (["0:00.000", "0:00.004", "59:59.996", "1:00:00.000"], "Elapsed time", [0, 0.004, 3599.996, 3600]),
        (["'0:01.500'", "'0:02,500'"], "Elapsed time", [1.5, 2.5]),
        (["0:59", "1:00"], "time [mm:ss]", [59, 60]),
        (["58:59", "59:59", "1:00:59"], "time", [3539, 3599, 3659]),  # before an hour is full it is not written
        (["10:15", "10:16"], "time", [36900, 36960]),
        (["[14:33:00.000 01/02/2000]", "[14:33:00.250 01/02/2000]"], "time", [0, 0.25]),
        (["[23:59:59.500 31/12/1999]", "[00:00:00.500 01/01/2000]"], "time", [0, 1]),
    ],
)
def test_times_are_read_as_the_tools_of_physionet_write_them(texts: list[str], cell: str, seconds: list[float]) -> None:
    np.testing.assert_allclose(parse_clock(texts, cell, "a.csv", name_line), seconds, atol=1e-9)
    assert is_clock(texts[0])
