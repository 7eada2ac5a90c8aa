"""Names, units, clocks and the grid of a time column; test_signal_tables.py tests them through whole tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phoropter.core.errors import DataError
from phoropter.signals.readers.time_column import column_kind, find_time_column, parse_clock, place_lines, split_unit


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
    seconds = parse_clock(["23:59:59,5", "00:00:00", "00:00:00.5"], "a.csv", name_line)
    assert np.diff(seconds).tolist() == [0.5, 0.5]


def test_places_keep_gaps_and_forgive_jitter() -> None:
    column = pd.Series([0.0, 0.021, 0.039, 0.2, 0.22])
    assert place_lines(column, "time", 50.0, "a.csv", name_line, "time").tolist() == [0, 1, 2, 10, 11]


def test_a_counter_of_text_is_refused() -> None:
    with pytest.raises(DataError, match="column 'index' counts samples and should hold numbers, came 'a'"):
        place_lines(pd.Series(["a", "b"]), "index", 50.0, "a.csv", name_line, "counter")
