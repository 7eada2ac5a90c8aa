"""Exports of a bedside monitor: clocks of three kinds, units, missing samples, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.signals.readers.monitor_csv import is_export_folder, read_export, read_export_folder


def write_export(path: Path, times: list[str], header: str = "time [s],II [mV],SpO2 (%)") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(f"{time},{i / 8},{90 + i % 7}" for i, time in enumerate(times))]) + "\n")
    return path


CLOCKS = {
    "seconds": ("time [s]", [f"{5 + i / 250:.3f}" for i in range(20)], 250.0),
    "rounded to ms": ("t_s", [f"{i / 240:.3f}" for i in range(500)], 240.0),
    "milliseconds": ("Time (ms)", [str(4 * i) for i in range(20)], 250.0),
    "dates": ("timestamp", [f"2024-03-31 01:59:{50 + i / 2:06.3f}"[:-1] for i in range(19)], 2.0),
    "clock": ("Uhrzeit", [f"{h:02d}:{m:02d}:{s:02d}" for h, m in ((23, 59), (0, 0)) for s in range(60)], 1.0),
    "twelve hours": ("Time", [f"{11 + m // 60}:{m % 60:02d}:{s:02d} {'AP'[m // 60]}M" for m in (59, 60) for s in range(60)], 1.0),
    "abbreviated": ("Zeit [Sek.]", [f"{i / 50:.2f}" for i in range(20)], 50.0),
    "minutes": ("time [min]", [f"{i / 3000:.7f}" for i in range(500)], 50.0),
    "microseconds": ("time_us", [str(20000 * i) for i in range(20)], 50.0),
    "milliseconds since 1970": ("timestamp", [str(1_700_000_000_000 + 20 * i) for i in range(20)], 50.0),
    "nanoseconds since 1970": ("timestamp (UTC)", [str(1_700_000_000_000_000_000 + 20_000_000 * i) for i in range(20)], 50.0),
    "seconds since 1970": ("time (unix)", [f"{1_700_000_000 + i / 50:.2f}" for i in range(20)], 50.0),
    "milliseconds of a date far ahead": ("time", [str(6_700_000_000_000 + 20 * i) for i in range(20)], 50.0),
    "a name that is a unit": ("millis", [str(20 * i) for i in range(20)], 50.0),
    "other dates": ("time", [f"13.01.2024 10:00:0{i // 50}.{i % 50 * 20:03d}" for i in range(60)], 50.0),
    "dates with a zone": ("datetime", [f"2024-10-27T00:{59 + i // 60}:{i % 60:02d}+00:00" for i in range(60)], 1.0),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_the_rate_is_derived_from_the_clock(tmp_path: Path, clock: str) -> None:
    column, times, rate_hz = CLOCKS[clock]
    recording = read_export(write_export(tmp_path / "bed3.csv", times, f"{column},II [mV],SpO2 (%)"))
    assert (recording.id, recording.subject, recording.rate_hz) == ("bed3", "bed3", rate_hz)
    assert (recording.channels, recording.units) == (("II", "SpO2"), ("mV", "%"))
    np.testing.assert_array_equal(recording.channel("II"), np.arange(len(times), dtype=np.float32) / 8)


def test_missing_lines_and_cells_are_missing_samples(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("time,HR [bpm]\n0,70\n1,--\n2,\n5,73\n6,74\n")
    np.testing.assert_array_equal(read_export(file).channel("HR"), np.array([70, np.nan, np.nan, np.nan, np.nan, 73, 74]))
    assert read_export(file).notes == ("gaps in time, counted as missing samples",)


def test_an_export_with_decimal_commas_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=;\nZeit [s];HR [1/min]\n0,0;70,5\n0,5;71\n1,0;-\n", encoding="utf-16")
    recording = read_export(tmp_path / "a.csv")
    assert (recording.rate_hz, recording.channels, recording.units) == (2.0, ("HR",), ("1/min",))
    np.testing.assert_array_equal(recording.channel("HR"), np.array([70.5, 71, np.nan], np.float32))


def test_a_count_of_lines_and_a_date_are_no_channels(tmp_path: Path) -> None:
    lines = [f"{i},2024-05-01,{i / 50:.2f},{i % 3}" for i in range(20)]
    (tmp_path / "a.csv").write_text("\n".join([",date,time [s],II [mV]", *lines]) + "\n")
    assert read_export(tmp_path / "a.csv").channels == ("II",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beat,HR\n0,70\n1,71\n", "expected a column called time and at least one channel, there are beat, HR"),
        ("time\n0\n1\n", "expected a column called time and at least one channel"),
        ("time,HR\n0,70\n", "expected a header and at least two lines of samples, came 2 lines"),
        ("time,HR\n0,70\n1,71,72\n", "line 3: expected 2 cells as in the header, came 3"),
        ("time,HR\n0,70\n1,high\n", "line 3, HR: expected a number or a blank cell, came 'high'"),
        ("time,HR\n0,70\nsoon,71\n", "line 3: expected a time as a number or an ISO 8601 date, came 'soon'"),
        ("time [weeks],HR\n0,70\n1,71\n", "its times are in 'weeks', expected s, ms, us, ns, min or h"),
        ("time,HR\n20240501101502,70\n20240501101503,71\n", "begin at 20240501101502, which are no seconds, nor since 1970"),
        ("time,HR\n133900000000000000,70\n133900000010000000,71\n", r"state their unit in the header, as in time \[ns\]"),
        ("time,HR\n10:00:00,70\n10:00:01,71\n10:00:01,72\n", "several lines have the time 36001 s, so that no rate follows"),
        ("time,HR\nsoon,70\n2,71\n", "line 2: expected a time as seconds, .* came 'soon'"),
        ("time,HR\n0,70\n2,71\n1,72\n", "times should increase, but 1 s follows 2 s"),
        ("time,HR\n0,70\n1,71\n2,72\n3.4,73\n4,74\n", "its times are irregular"),
        ("time,HR\n0,70\n1,71\n2,72\n1e12,73\n", "its times span .* check the dates"),
    ],
)
def test_an_export_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_export(tmp_path / "a.csv")


def test_the_manifest_gives_labels_subjects_and_sites(tmp_path: Path) -> None:
    times = [f"{i / 10:.1f}" for i in range(40)]
    write_export(tmp_path / "bed1" / "a.csv", times)
    write_export(tmp_path / "bed2" / "b.csv", times)
    (tmp_path / "manifest.csv").write_text(
        "path,label,subject,site,channels\nbed1/a.csv,stable,p1,ICU-1,\nbed2/b.csv,deteriorating,p2,ICU-2,SpO2\n"
    )
    first, second = read_export_folder(tmp_path).recordings
    assert (first.id, first.label, first.subject, first.site, first.channels) == (
        "bed1/a", "stable", "p1", "ICU-1", ("II", "SpO2"),
    )  # fmt: skip
    assert (second.label, second.channels, second.units) == ("deteriorating", ("SpO2",), ("%",))


def test_a_rate_in_the_manifest_that_contradicts_the_clock_is_refused(tmp_path: Path) -> None:
    write_export(tmp_path / "a.csv", [f"{i / 10:.1f}" for i in range(40)])
    (tmp_path / "manifest.csv").write_text("path,label,rate_hz\na.csv,stable,50\n")
    with pytest.raises(DataError, match=r"rate_hz is 50, the times of a\.csv give 10 Hz"):
        read_export_folder(tmp_path)


def test_without_a_manifest_every_export_is_read_without_a_label(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_export(tmp_path / f"{name}.csv", [str(i) for i in range(40)])
    assert [(r.id, r.label) for r in read_export_folder(tmp_path).recordings] == [("a", None), ("b", None)]


def test_a_folder_is_recognised_by_its_manifest_its_clock_and_its_units(tmp_path: Path) -> None:
    write_export(tmp_path / "a.csv", [str(i) for i in range(40)])
    assert not is_export_folder(tmp_path, ["a.csv"])
    assert is_export_folder(tmp_path, ["a.csv", "manifest.csv"])
    write_export(tmp_path / "a.csv", [str(i) for i in range(40)], "time,II,SpO2")
    assert not is_export_folder(tmp_path, ["a.csv", "manifest.csv"])
    write_export(tmp_path / "a.csv", [str(i) for i in range(40)], "Time,Fhr,UC")
    assert is_export_folder(tmp_path, ["a.csv", "manifest.csv"])


def test_a_folder_whose_manifest_lists_csv_files_is_recognised_by_its_clock(tmp_path: Path) -> None:
    write_export(tmp_path / "a.csv", [str(i) for i in range(40)], "time,HR1,TOCO")
    (tmp_path / "manifest.csv").write_text("path,label\na.csv,stable\n")
    assert is_export_folder(tmp_path, ["a.csv", "manifest.csv"])
    (tmp_path / "manifest.csv").write_text("path,label\na.png,stable\n")
    assert not is_export_folder(tmp_path, ["a.csv", "manifest.csv"])
