"""The line of units below the header, told apart from samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.signals.readers.monitor_csv import read_export
from phoropter.signals.readers.signal_tables import read_signal_table
from phoropter.signals.readers.unit_line import parse_unit_line, strip_cell_quotes
from phoropter.signals.recording import GAPS_NOTE

VALUES = np.random.default_rng(3).normal(size=1000).round(3)


@pytest.mark.parametrize(
    ("cells", "units"),
    [
        (["'seconds'", "'mV'", "'mV'"], ("seconds", "mV", "mV")),
        (["'hh:mm:ss.mmm'", "'mV'"], ("hh:mm:ss.mmm", "mV")),
        (["'mm:ss.mmm'", "'mV'"], ("mm:ss.mmm", "mV")),
        (["  (sec)", "(mV)", "(counts)"], ("sec", "mV", "counts")),
        (["s", "", "µV"], ("s", "", "µV")),
        (["0.000", "-0.145"], None),
        (["0.000", "mV"], None),
        (["seconds", "good"], None),
        (["", ""], None),
        (["NaN", "-"], None),
        (["(a)", "(b)"], None),  # a label in brackets: no unit is known
    ],
)
def test_a_line_of_units_is_told_from_a_line_of_samples(cells: list[str], units: tuple[str, ...] | None) -> None:
    assert parse_unit_line(cells) == units


def test_quotes_are_taken_off_where_every_text_has_them() -> None:
    assert strip_cell_quotes(["'a b'", "", "'c'"]) == ("a b", "", "c")
    assert strip_cell_quotes(["'a", "b'"]) == ("'a", "b'")


def write_as_rdsamp(file: Path, form: str, lost: range = range(0)) -> Path:
    """As `rdsamp -c -H -v -p[d|h|e]` of 250 Hz. lost: lines that are left out"""
    lines = ["'Elapsed time','MLII','V5'", {"seconds": "'seconds'"}.get(form, "'hh:mm:ss.mmm'") + ",'mV','mV'"]
    for at, value in enumerate(VALUES):
        minutes, seconds = divmod(at / 250 + 58, 60)
        time = f"{at / 250:.3f}" if form == "seconds" else f"'{int(minutes)}:{seconds:06.3f}'"
        lines += [] if at in lost else [f"{time},{value:.3f},{-value:.3f}"]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize("form", ["seconds", "clock"])
def test_an_export_of_rdsamp_is_read_with_its_units(tmp_path: Path, form: str) -> None:
    file = write_as_rdsamp(tmp_path / "100.csv", form)
    recording = read_signal_table(file, 250.0)
    assert (recording.channels, recording.units, recording.notes) == (("MLII", "V5"), ("mV", "mV"), ())
    np.testing.assert_array_equal(recording.samples, np.stack([VALUES, -VALUES]).astype(np.float32))
    export = read_export(file)
    assert (export.rate_hz, export.units) == (250.0, ("mV", "mV"))
    np.testing.assert_array_equal(export.samples, recording.samples)
    assert read_signal_table(file, 250.0, unit="uV").units == ("uV", "uV")  # the manifest's word


@pytest.mark.parametrize("form", ["seconds", "clock"])
def test_its_times_are_held_against_the_rate_and_show_gaps(tmp_path: Path, form: str) -> None:
    file = write_as_rdsamp(tmp_path / "100.csv", form, lost=range(300, 400))
    recording = read_signal_table(file, 250.0)
    assert (recording.length, recording.notes) == (1000, (GAPS_NOTE,))
    assert np.flatnonzero(np.isnan(recording.samples[0])).tolist() == list(range(300, 400))
    with pytest.raises(DataError, match="are 250 Hz, and rate_hz is 360"):
        read_signal_table(file, 360.0)


def test_a_word_below_the_header_that_is_no_unit_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,ECG\nstart,good\n0.00,1\n0.02,2\n")
    with pytest.raises(DataError, match="line 2: channel 'ECG' should hold numbers, came 'good'"):
        read_signal_table(tmp_path / "a.csv", 50.0)


def test_lines_are_counted_as_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,ECG\ns,mV\n0.00,1\n0.02,2\n0.01,3\n")
    with pytest.raises(DataError, match="line 5: its time"):
        read_signal_table(tmp_path / "a.csv", 50.0)
