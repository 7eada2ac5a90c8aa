from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phoropter.core.errors import DataError
from phoropter.signals import recording
from phoropter.signals.readers import signal_tables
from phoropter.signals.readers.signal_tables import read_signal_table
from phoropter.signals.recording import GAPS_NOTE, Recording

VALUES = np.random.default_rng(0).normal(size=50).round(4)


def read_text(folder: Path, text: str | bytes, rate_hz: float = 50.0, channels: list[str] | None = None) -> Recording:
    (folder / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_signal_table(folder / "a.csv", rate_hz, channels)


def table_text(times: list[str], separator: str = ",", header: str = "time,ECG") -> str:
    lines = [f"{time}{separator}{value}" for time, value in zip(times, VALUES, strict=False)]
    return "\n".join([header.replace(",", separator), *lines]) + "\n"


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_becomes_a_recording(tmp_path: Path, name: str) -> None:
    values = np.random.default_rng(50).normal(size=(50, 2)).round(4)
    table = pd.DataFrame({"time": np.arange(50) / 4, "FHR": values[:, 0], "UC": values[:, 1]})
    table.to_parquet(tmp_path / name) if name.endswith(".parquet") else table.to_csv(tmp_path / name, index=False)
    recording = read_signal_table(tmp_path / name, 4.0)
    assert (recording.channels, recording.notes) == (("FHR", "UC"), ())  # the time column is none
    np.testing.assert_array_equal(recording.samples, values.T.astype(np.float32))


def test_empty_cells_are_missing_samples(tmp_path: Path) -> None:
    found = read_text(tmp_path, "ECG\n1.5\n\nNaN\ninf\n--\n2\n").channel("ECG")
    assert np.isnan(found).tolist() == [False, True, True, True, True, False]
    assert np.nanmax(found) == 2


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("start", ["", "sep", "\n"])
def test_every_dialect_gives_the_same_samples(tmp_path: Path, separator: str, decimal: str, encoding: str, start: str) -> None:
    quote = '"' if separator == decimal else ""
    lines = [f"time{separator}ECG [µV]"]
    for at, value in enumerate(VALUES):
        lines.append(separator.join(f"{quote}{cell}{quote}".replace(".", decimal) for cell in (f"{at / 50:.2f}", str(value))))
    first = f"sep={separator}\n" if start == "sep" else start
    recording = read_text(tmp_path, (first + "\r\n".join(lines) + "\r\n").encode(encoding))
    assert (recording.channels, recording.notes) == (("ECG [µV]",), ())
    np.testing.assert_array_equal(recording.samples[0], VALUES.astype(np.float32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.0\n0.5\n1.0\n", r"line 1: expected the names of the channels in the first line, came numbers \(0\.0\)"),
        ("0,0;0,5\n0,02;1,0\n", r"line 1: expected the names of the channels"),
        ("10:15:02,0.5\n10:15:03,1.0\n", r"line 1: expected the names of the channels"),
        ("10:15:02 PM,0.5\n10:15:03 PM,1.0\n", r"line 1: expected the names of the channels"),
        ("2024-05-01 10:15:02;5\n2024-05-01 10:15:03;6\n", r"line 1: expected the names of the channels"),
        ("time,ECG\n0.0,1\n0.02,1,5\n", r"line 3: expected 2 cells as in the header \(time, ECG\), came 3"),
        ("time,ECG\n0.0,1,5\n0.02,1,5\n", r"line 2: expected 2 cells as in the header .* came 3 \(numbers with a decimal comma"),
        ("time,ECG\n0.0,1\n0.02\n", "line 3: expected 2 cells as in the header .* came 1"),
        ("time,ECG\n0.0;1\n0.02;2\n", "line 2: expected 2 cells as in the header .* came 1"),
        ("ECG\n0,5\n0,7\n", "line 2: expected 1 cells as in the header .* came 2"),
        ("ECG,Resp,ECG\n1,2,3\n4,5,6\n", "2 channels are called 'ECG', so which one is meant is unknown"),
        ("ECG, ECG \n1,2\n4,5\n", "2 channels are called 'ECG'"),
        ("ECG,\n1,2\n4,5\n", "column 2 has no name in the header"),
        ("ECG,Resp\n1,2\n4,x5\n6,7\n", r"line 3: channel 'Resp' should hold numbers, came 'x5'"),
        ("ECG;Resp\n1,5;2\n1.234,5;3\n6;7\n", r"line 3: channel 'ECG' should hold numbers, came '1\.234,5'"),
        ("", r"cannot be read as a table \(it is empty\)"),
        (b"PK\0\1\0\0", "it holds bytes that are no text"),
    ],
)
def test_a_table_that_contradicts_its_header_is_refused_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_text(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_line_far_below_is_held_against_the_header(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 100002: expected 2 cells"):
        read_text(tmp_path, "ECG,Resp\n" + "1,2\n" * 100_000 + "1,2,3\n")


def test_two_columns_of_one_name_hurt_only_where_one_is_wanted(tmp_path: Path) -> None:
    text = "ECG,Resp,ECG\n1,2,3\n4,5,6\n"
    assert read_text(tmp_path, text, channels=["Resp"]).samples.tolist() == [[2, 5]]
    with pytest.raises(DataError, match="2 channels are called 'ECG'"):
        read_text(tmp_path, text, channels=["ECG"])


def test_columns_of_text_are_left_out_with_a_note(tmp_path: Path) -> None:
    recording = read_text(tmp_path, "date,ECG,remark\n2024-05-01,1,rest\n2024-05-01,2,\n")
    assert (recording.channels, recording.notes) == (("ECG",), ("columns of text were left out: remark",))


def test_an_index_without_a_name_and_an_empty_last_column_are_no_channels(tmp_path: Path) -> None:
    recording = read_text(tmp_path, ",ECG,\n0,1.5,\n1,2.5,\n")
    assert (recording.channels, recording.samples.tolist()) == (("ECG",), [[1.5, 2.5]])


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "times", "rate_hz"),
    [
        ("time,ECG", [f"{at / 50:.2f}" for at in range(50)], 50.0),
        ("Time [s],ECG", [f"{at / 240:.3f}" for at in range(50)], 240.0),  # rounded to milliseconds
        ("Time (ms),ECG", [f"{at * 20}" for at in range(50)], 50.0),
        ("time_ms,ECG", [f"{at * 20}" for at in range(50)], 50.0),
        ("time,ECG", [f"{at * 20}" for at in range(50)], 50.0),  # milliseconds, by the rate
        ("timestamp,ECG", [f"{1700000000000000000 + at * 20000000}" for at in range(50)], 50.0),  # nanoseconds
        ("timestamp,ECG", [f"{1700000000 + at / 50:.2f}" for at in range(50)], 50.0),
        ("index,ECG", [f"{at + 1}" for at in range(50)], 50.0),
        (",ECG", [f"{at}" for at in range(50)], 50.0),
        ("Uhrzeit,ECG", [f"23:59:{at:02d}" if at < 60 else f"00:00:{at - 60:02d}" for at in range(30, 80)], 1.0),
        ("clock,ECG", [f"10:{at:02d}" for at in range(50)], 1 / 60),
        ("time,ECG", [f"10:15:00.{at * 20:03d}" for at in range(50)], 50.0),
        ("Date Time,ECG", [f"2024-05-01T10:15:00.{at * 20:03d}" for at in range(50)], 50.0),
        ("time,ECG", [f"2024-05-01 10:15:{at:02d}+02:00" for at in range(50)], 1.0),
        ("time,ECG", [f"01.05.2024 10:15:{at:02d}" for at in range(50)], 1.0),
        (
            "time,ECG",
            [f"03/04/2024 23:59:{at:02d}" if at < 60 else f"04/04/2024 00:00:{at - 60:02d}" for at in range(30, 80)],
            1.0,
        ),
        ("time,ECG", [f"10:15:{at // 4:02d}" for at in range(50)], 4.0),  # full seconds of 4 Hz
    ],
)
def test_times_that_agree_with_the_rate_are_read(tmp_path: Path, header: str, times: list[str], rate_hz: float) -> None:
    recording = read_text(tmp_path, table_text(times, header=header), rate_hz)
    assert (recording.channels, recording.notes, recording.rate_hz) == (("ECG",), (), rate_hz)
    np.testing.assert_array_equal(recording.samples[0], VALUES.astype(np.float32))


@pytest.mark.parametrize("header", ["time,ECG", "index,ECG", "t,ECG", "Zeit (ms),ECG"])
def test_a_gap_becomes_missing_samples(tmp_path: Path, header: str) -> None:
    places = [*range(20), *range(3020, 3050)]
    scale = {"index": 1.0, "Zeit (ms)": 20.0}.get(header.split(",")[0], 0.02)
    recording = read_text(tmp_path, table_text([f"{at * scale:g}" for at in places], header=header))
    assert (recording.length, recording.notes) == (3050, (GAPS_NOTE,))
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(recording.samples[0])), places)
    np.testing.assert_array_equal(recording.samples[0, places], VALUES.astype(np.float32))


def test_jitter_is_no_gap(tmp_path: Path) -> None:
    times = np.arange(50) / 50 + np.random.default_rng(1).uniform(-0.004, 0.004, 50)
    assert read_text(tmp_path, table_text([f"{at:.5f}" for at in times])).length == 50


@pytest.mark.parametrize(
    ("header", "times", "message"),
    [
        ("time,ECG", [f"{at / 25:.2f}" for at in range(50)], r"its times are 0\.04 s apart, which are 25 Hz, and rate_hz is 50"),
        ("time,ECG", [f"{at}" for at in range(50)], "its times are 1 s apart, which are 1 Hz, and rate_hz is 50"),
        ("time [s],ECG", [f"{at * 20}" for at in range(50)], "its times are 20 s apart"),
        (
            "time,ECG",
            ["0", "0.02", "0.04", "0.01", "0.03"],
            r"line 5: its time, 0\.01 s, is before that of the line above, 0\.04 s",
        ),
        ("time,ECG", ["0", "0.02", "", "0.06"], "line 4: its time is missing"),
        ("time,ECG", ["0", "0", "0"], "all its times are 0 s"),
        ("time,ECG", ["0", "0", "1", "1", "2", "2"], "its times repeat, and 6 lines in 2 s do not fit rate_hz 50"),
        ("time,ECG", [*(f"{at / 50:.2f}" for at in range(20)), "1e9"], "its times span"),
        ("time,ECG", [f"{at // 3 * 0.06 + at % 3 * 0.001:.3f}" for at in range(48)], "its times"),
        (
            "time,ECG",
            ["10:15:02", "10:15:o3", "10:15:04"],
            r"line 3: expected a time as seconds, 10:15:02\.5 or .*, came '10:15:o3'",
        ),
        ("time,ECG", ["10:15:02", "", "10:15:04"], "line 3: expected a time as .*, came an empty cell"),
    ],
)
def test_times_that_contradict_the_rate_or_their_order_are_refused(
    tmp_path: Path, header: str, times: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_text(tmp_path, table_text(times, header=header))
    assert "\n" not in str(caught.value)


def test_a_time_column_that_is_wanted_is_a_channel(tmp_path: Path) -> None:
    assert read_text(tmp_path, "t,ECG\n5,1\n3,2\n", channels=["t"]).samples.tolist() == [[5, 3]]


SECONDS = np.where(np.arange(40) < 20, np.arange(40), np.arange(40) + 10) / 50
INDEXES: dict[str, pd.Index] = {
    "named": pd.Index(SECONDS, name="time"),
    "unnamed": pd.Index(SECONDS),
    "dates": pd.DatetimeIndex(pd.Timestamp("2024-01-01") + pd.to_timedelta(SECONDS, unit="s"), name="date"),
    "durations": pd.to_timedelta(SECONDS, unit="s"),
    "counted": pd.Index((SECONDS * 50).round().astype(int)),
    "counted, as floats": pd.Index((SECONDS * 50).round()),
    "rows that were kept": pd.Index((SECONDS * 50).round().astype(int) + 7, name="sample"),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_an_index_of_pandas_is_a_column_of_times(tmp_path: Path, kind: str) -> None:
    pd.DataFrame({"ECG": VALUES[:40]}, index=INDEXES[kind]).to_parquet(tmp_path / "a.parquet")
    found = read_signal_table(tmp_path / "a.parquet", 50.0)
    assert (found.channels, found.notes, found.length) == (("ECG",), (GAPS_NOTE,), 50)
    np.testing.assert_array_equal(found.samples[0, :20], VALUES[:20].astype(np.float32))
    assert np.isnan(found.samples[0, 20:30]).all()


@pytest.mark.parametrize(
    "index", [pd.RangeIndex(40), pd.Index(range(0, 80, 2)), pd.Index([f"r{i}" for i in range(40)], name="row")]
)
def test_an_index_that_says_nothing_of_time_is_none(tmp_path: Path, index: pd.Index) -> None:
    pd.DataFrame({"ECG": VALUES[:40]}, index=index).to_parquet(tmp_path / "a.parquet")
    found = read_signal_table(tmp_path / "a.parquet", 50.0)
    assert (found.channels, found.notes, found.length) == (("ECG",), (), 40)


@pytest.mark.parametrize("index", [pd.Index(range(20)), pd.Index(SECONDS[:20] + 1), pd.to_timedelta(SECONDS[:20], unit="s")])
def test_frames_that_were_joined_with_their_index_are_named_so(tmp_path: Path, index: pd.Index) -> None:
    frame = pd.DataFrame({"ECG": VALUES[:20]}, index=index)
    pd.concat([frame, frame]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"line 21: the index .* goes back from .*, as where frames were joined: split"):
        read_signal_table(tmp_path / "a.parquet", 50.0)
    pd.concat([frame, frame]).to_parquet(tmp_path / "a.parquet", index=False)
    assert read_signal_table(tmp_path / "a.parquet", 50.0).length == 40


def test_checksums_of_a_parquet_file_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"ECG": VALUES}).to_parquet(path, write_page_checksum=True, compression=None, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[content.index(VALUES.tobytes()) + 8] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="it cannot be read as a table"):
        read_signal_table(path, 50.0)


def test_dates_of_parquet_are_times(tmp_path: Path) -> None:
    times = pd.date_range("2024-05-01", periods=50, freq="20ms").delete(range(10, 20))
    pd.DataFrame({"timestamp": times, "ECG": VALUES[:40]}).to_parquet(tmp_path / "a.parquet")
    recording = read_signal_table(tmp_path / "a.parquet", 50.0)
    assert (recording.length, int(np.isnan(recording.samples).sum()), recording.notes) == (50, 10, (GAPS_NOTE,))


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bound", "write"),
    [
        ("a.csv", "MAX_SIGNAL_BYTES", lambda path: path.write_text("ECG\n" + "1\n" * 200)),
        ("a.parquet", "MAX_VALUES", lambda path: pd.DataFrame({"ECG": np.zeros(200)}).to_parquet(path)),
    ],
)
def test_sizes_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, bound: str, write: Callable[[Path], object]
) -> None:
    write(tmp_path / name)
    read_signal_table(tmp_path / name, 4.0)
    monkeypatch.setattr(signal_tables, bound, 100)
    with pytest.raises(DataError, match="split it"):
        read_signal_table(tmp_path / name, 4.0)


def test_gaps_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_FILLED_SAMPLES", 100)
    with pytest.raises(DataError, match="its times span 501 samples, and 3 are there: check the times"):
        read_text(tmp_path, table_text(["0", "0.02", "10"]))


def test_gaps_are_bounded_over_all_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "time,a,b,c\n0,1,1,1\n0.02,1,1,1\n10,1,1,1\n"
    assert read_text(tmp_path, text).length == 501
    monkeypatch.setattr(recording, "MAX_FILLED_NUMBERS", 3 * 500)
    with pytest.raises(DataError, match="its times span 501 samples, and 3 are there: check the times"):
        read_text(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("recorded", [at / 50 for at in range(25)]),  # seconds
        ("stamp", [1_700_000_000_000 + at * 20 for at in range(25)]),  # milliseconds
        ("row", list(range(25))),
    ],
)
def test_a_column_that_rises_as_times_do_is_no_channel_whatever_its_name(tmp_path: Path, name: str, times: list[float]) -> None:
    late = [time + 60 * (times[-1] - times[0]) if at >= 15 else time for at, time in enumerate(times)]
    recording = read_text(tmp_path, table_text([f"{time:g}" if time < 1e6 else str(time) for time in late], header=f"{name},ECG"))
    assert recording.channels == ("ECG",) and GAPS_NOTE in recording.notes
    assert any(f"the column '{name}' counts" in note for note in recording.notes)
    assert recording.samples.shape[1] == 25 + 60 * 24
    np.testing.assert_array_equal(recording.samples[0, :15], VALUES[:15].astype(np.float32))
    assert np.isnan(recording.samples[0, 15:-10]).all()


def test_a_rising_column_that_does_not_fit_the_rate_is_a_channel(tmp_path: Path) -> None:
    ramp = [f"{at * 0.013:.3f}" for at in range(50)]
    recording = read_text(tmp_path, table_text(ramp, header="ramp,ECG"))
    assert recording.channels == ("ramp", "ECG")
    assert recording.notes[0].startswith(
        "WARNING: the column 'ramp' rises by 0.013 from line to line, as times do, which is no st"
    )


@pytest.mark.parametrize(("step", "late", "noted"), [(4, 0, True), (4, 1000, True), (20, 0, False), (None, 0, False)])
def test_times_under_another_name_that_contradict_the_rate_are_noted(
    tmp_path: Path, step: int | None, late: int, noted: bool
) -> None:
    uneven = np.random.default_rng(1).integers(2, 9, 50).cumsum()  # rises, as no clock does
    stamps = uneven if step is None else np.arange(50) * step + late * (np.arange(50) > 30)
    recording = read_text(tmp_path, table_text(list(map(str, stamps.tolist())), header="stamp,ECG"), channels=["ECG"])
    assert any("'stamp' rises by 4 from line to line" in note for note in recording.notes) == noted
    assert recording.samples.shape == (1, 50)


def test_single_quotes_around_every_name_are_removed(tmp_path: Path) -> None:
    recording = read_text(tmp_path, table_text([str(at) for at in range(50)], header="'sample #','MLII'"))
    assert recording.channels == ("MLII",) and recording.samples.shape == (1, 50) and recording.notes == ()


def test_a_table_of_texts_alone_names_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at least one column of numbers and one line of samples \(columns of text .*: ECG\)"):
        read_text(tmp_path, "time;ECG\n0,00;low\n0,02;high\n")


@pytest.mark.parametrize(
    ("cell", "header"), [("1.005,5", "ECG;x"), ("1'005.5", "ECG;x"), ("97%", "SpO2"), ("97 %", "SpO2"), ("\u22120.25", "ECG")]
)
def test_numbers_that_no_program_reads_are_no_text(tmp_path: Path, cell: str, header: str) -> None:
    line = cell if ";" not in header else f"{cell};2"
    with pytest.raises(DataError, match=f"line 2: channel '{header[:3]}.*' should hold numbers, came .*{cell[-3:]}"):
        read_text(tmp_path, "\n".join([header, *[line] * 30]) + "\n")


@pytest.mark.parametrize("text", ["rest", "2024-01-01", "p1-7", "1:2:3", "01.02.2024"])
def test_a_column_of_text_is_left_out(tmp_path: Path, text: str) -> None:
    recording = read_text(tmp_path, "\n".join(["ECG,note", *[f"{v},{text}" for v in VALUES]]) + "\n")
    assert (recording.channels, recording.notes) == (("ECG",), ("columns of text were left out: note",))


@pytest.mark.parametrize("line", ["0.00 0.12", "  0.000   -0.145   0.1"])
def test_spaces_between_cells_are_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match="line 2: its cells are separated by spaces"):
        read_text(tmp_path, "\n".join(["time ECG", *[line] * 30]) + "\n")
