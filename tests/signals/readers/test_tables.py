from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phoropter.core.errors import DataError
from phoropter.signals.readers import tables
from phoropter.signals.readers.tables import is_manifest, read_manifest, read_spans
from phoropter.signals.recording import Recording, Span

HEADER = "path,rate_hz,label,subject,site,channels,unit,outcome.pH\n"


def recording_file(folder: Path, name: str = "a.csv", n: int = 50) -> np.ndarray:
    values = np.random.default_rng(n).normal(size=(n, 2)).round(4)
    table = pd.DataFrame({"time": np.arange(n) / 4, "FHR": values[:, 0], "UC": values[:, 1]})
    table.to_parquet(folder / name) if name.endswith(".parquet") else table.to_csv(folder / name, index=False)
    return values.T.astype(np.float32)


def manifest(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "manifest.csv"
    path.write_text(header + "".join(line + "\n" for line in lines))
    return path


def test_a_manifest_line_becomes_a_recording(tmp_path: Path) -> None:
    values = recording_file(tmp_path)
    one = read_manifest(manifest(tmp_path, "a.csv,4,high-risk,007,NA,UC,mmHg,7.11")).recordings[0]
    assert (one.id, one.subject, one.site, one.label) == ("a", "007", "NA", "high-risk")  # text stays text
    assert (one.channels, one.units, one.rate_hz, one.outcome) == (("UC",), ("mmHg",), 4.0, {"pH": 7.11})
    np.testing.assert_array_equal(one.samples[0], values[1])


def test_only_path_and_rate_are_needed(tmp_path: Path) -> None:
    recording_file(tmp_path)
    one = read_manifest(manifest(tmp_path, "a.csv,4", header="path,rate_hz\n")).recordings[0]
    assert (one.id, one.subject, one.site, one.label, dict(one.outcome)) == ("a", "a", "", None, {})


def test_empty_outcomes_are_unknown(tmp_path: Path) -> None:
    recording_file(tmp_path)
    lines = "a.csv,4,,NaN,cold", "a.csv,4,b,7.1,warm"
    path = manifest(tmp_path, *lines, header="path,rate_hz,id,outcome.pH,outcome.note\n")
    assert [dict(r.outcome) for r in read_manifest(path).recordings] == [
        {"pH": None, "note": "cold"},
        {"pH": 7.1, "note": "warm"},
    ]


def test_channels_may_hold_spaces(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ECG II,ECG V\n1,2\n3,4\n")
    path = manifest(tmp_path, "a.csv,4,ECG V; ECG II", header="path,rate_hz,channels\n")
    assert read_manifest(path).recordings[0].channels == ("ECG V", "ECG II")
    path = manifest(tmp_path, "a.csv,4,ECG V;", header="path,rate_hz,channels\n")
    assert read_manifest(path).recordings[0].channels == ("ECG V",)


def test_a_parquet_manifest_reads_as_a_csv_one(tmp_path: Path) -> None:
    recording_file(tmp_path)
    pd.DataFrame({"path": ["a.csv"], "rate_hz": [4.0], "subject": [7], "site": [None]}).to_parquet(tmp_path / "m.parquet")
    one = read_manifest(tmp_path / "m.parquet").recordings[0]
    assert (one.subject, one.site, one.rate_hz) == ("7", "", 4.0)


def test_spans_come_from_their_own_file(tmp_path: Path) -> None:
    recording_file(tmp_path)
    (tmp_path / "spans.csv").write_text("start_s,stop_s,label\n5,10.25,stress\n0,5,rest\n")
    path = manifest(tmp_path, "a.csv,4,spans.csv", header="path,rate_hz,spans\n")
    assert read_manifest(path).recordings[0].spans == (Span(0, 20, "rest"), Span(20, 41, "stress"))


def test_spans_may_be_in_samples(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("label,start,stop\n1,3,9\n")
    assert read_spans(tmp_path / "s.csv", 4.0) == (Span(3, 9, "1"),)


def test_wfdb_records_may_be_listed(tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text("r 1 4 3\nr.dat 16 100(0)/mV 12 0 1 6 0 ECG\n")
    (tmp_path / "r.dat").write_bytes(np.array([1, 2, 3], "<i2").tobytes())
    one = read_manifest(manifest(tmp_path, "r.hea,,rest,P1", header="path,rate_hz,label,subject\n")).recordings[0]
    assert (one.rate_hz, one.subject, one.label) == (4.0, "P1", "rest")
    np.testing.assert_allclose(one.samples[0], [0.01, 0.02, 0.03], rtol=1e-6)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.csv,NaN,x,,,,,", "line 2: rate_hz should be a number of Hz above zero, came NaN"),
        ("a.csv,,x,,,,,", "rate_hz should be a number of Hz above zero, came an empty cell"),
        ("a.csv,-4,x,,,,,", "came -4"),
        ("a.csv,fast,x,,,,,", "came fast"),
        (",4,x,,,,,", "line 2: the path is empty"),
        ("b.csv,4,x,,,,,", r"b\.csv: this file is missing"),
        ("a.mat,4,x,,,,,", r"a\.mat should end in \.csv, \.parquet, \.hea, \.edf or \.bdf"),
        ("a.csv,4,x,,,uc,,", "channel 'uc' is missing, there are time, FHR or UC; did you mean 'UC'"),
        ("text.csv,4,x,,,ECG,,", r"text\.csv line 3: channel 'ECG' should hold numbers, came 'broken'"),
        ("words.csv,4,x,,,,,", "expected at least one column of numbers"),
        ("text.csv,4,x,,,,,", r"text\.csv line 3: channel 'ECG' should hold numbers, came 'broken'"),
        ("empty.csv,4,x,,,,,", "cannot be read as a table"),
        ("nan.csv,4,x,,,,,", "no channel has a finite sample"),
        ("binary.csv,4,x,,,,,", "cannot be read as a table"),
        ("binary.parquet,4,x,,,,,", "cannot be read as a table"),
    ],
)
def test_a_bad_line_is_refused_in_one_line_or_skipped(tmp_path: Path, line: str, message: str) -> None:
    recording_file(tmp_path)
    recording_file(tmp_path, "good.csv")
    (tmp_path / "text.csv").write_text("ECG\n1\nbroken\n")
    (tmp_path / "words.csv").write_text("note\nleft\nright\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "nan.csv").write_text("ECG\nNaN\nNaN\n")
    for name in ("binary.csv", "binary.parquet"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 4)
    path = manifest(tmp_path, line, "good.csv,4,x,,,,,")
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)
    loaded = read_manifest(path, "skip")
    assert [r.id for r in loaded.recordings] == ["good"]
    assert len(loaded.problems) == 1


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,rate_hz\n", "a manifest needs a column path, there are file or rate_hz"),
        ("path,rate_hz,subjet\n", "column 'subjet' is unknown; .* did you mean 'subject'"),
    ],
)
def test_a_manifest_with_other_columns_is_refused(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_manifest(manifest(tmp_path, "a.csv,4,x", header=header), "skip")


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it lists no recording"):
        read_manifest(manifest(tmp_path))


def test_one_file_twice_is_bad_input(tmp_path: Path) -> None:
    recording_file(tmp_path)
    with pytest.raises(DataError, match="recording 'a' was already read from"):
        read_manifest(manifest(tmp_path, "a.csv,4,x,,,,,", "a.csv,4,x,,,,,"))


def test_a_label_and_spans_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="both a label and a spans file"):
        read_manifest(manifest(tmp_path, "a.csv,4,x,s.csv", header="path,rate_hz,label,spans\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start_s,label\n1,a\n", "column 'start' is missing"),
        ("start_s,stop_s,label\n1,x,a\n", "line 2: expected two times and a label, came 1, x, a"),
        ("start_s,stop_s,label\n1,2,\n", "came 1, 2, None"),
        ("start_s,stop_s,label\n1,inf,a\n", "came 1, inf, a"),
    ],
)
def test_malformed_spans_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_spans(tmp_path / "s.csv", 4.0)


@pytest.mark.parametrize(
    "content",
    [
        "path,rate_hz,subject,label\na.csv,4,s0,x\nb.csv,4,s1,y\n",
        "Path , Rate_Hz,SUBJECT,Label\na.csv,4,s0 ,x\nb.csv,4,s1\u00a0,y\u200b\n",
        "\ufeffsep=;\npath;rate_hz;subject;label\n.\\a.csv;4,0;s0;x\nb.csv;4,0;s1;y\n",
        "\tpath\trate_hz\tsubject\tlabel\n0\ta.csv\t4\ts0\tx\n1\t./b.csv\t4\ts1\ty\n",
    ],
)
def test_a_manifest_in_any_dialect_gives_the_same_recordings(tmp_path: Path, content: str) -> None:
    recording_file(tmp_path, "a.csv")
    recording_file(tmp_path, "b.csv")
    (tmp_path / "m.csv").write_text(content, encoding="utf-8")
    assert is_manifest(tmp_path / "m.csv")
    read = read_manifest(tmp_path / "m.csv").recordings
    assert [(r.id, r.rate_hz, r.subject, r.label) for r in read] == [("a", 4.0, "s0", "x"), ("b", 4.0, "s1", "y")]


def test_numbers_with_a_decimal_comma_are_read(tmp_path: Path) -> None:
    recording_file(tmp_path)
    (tmp_path / "s.csv").write_text("Start_S;Stop_S;Label\n0,5;2,75;x\n")
    (tmp_path / "m.csv").write_text("path;rate_hz;spans;Outcome.pH\na.csv;4,0;s.csv;7,11\n")
    one = read_manifest(tmp_path / "m.csv").recordings[0]
    assert one.outcome == {"pH": 7.11} and one.spans == (Span(2, 11, "x"),)


@pytest.mark.parametrize("column", ["subject", "site"])
def test_a_subject_or_site_in_some_rows_only_is_refused_with_counts(tmp_path: Path, column: str) -> None:
    for name in "abc":
        recording_file(tmp_path, f"{name}.csv")
    path = manifest(tmp_path, "a.csv,4,p", "b.csv,4,p", "c.csv,4,", header=f"path,rate_hz,{column}\n")
    for on_bad_input in ("stop", "skip"):
        with pytest.raises(DataError, match=rf"line 4: the {column} is empty here and given elsewhere \(1 of 3 rows have none\)"):
            read_manifest(path, on_bad_input)


def test_subjects_written_as_numbers_are_one_person(tmp_path: Path) -> None:
    for name in "abc":
        recording_file(tmp_path, f"{name}.csv")
    path = manifest(tmp_path, "a.csv,4,1", "b.csv,4,1.0", "c.csv,4,01", header="path,rate_hz,subject\n")
    assert [r.subject for r in read_manifest(path).recordings] == ["1", "1", "01"]


def test_recordings_without_a_label_and_names_that_differ_in_case_are_noted(tmp_path: Path) -> None:
    for name in "ab":
        recording_file(tmp_path, f"{name}.csv")
    path = manifest(tmp_path, "a.csv,4,x,P1", "b.csv,4,,p1", header="path,rate_hz,label,subject\n")
    loaded = read_manifest(path)
    assert loaded.notes == ("1 of 2 recordings have no label", "subjects that differ in case only: P1 or p1")
    assert loaded.missing_labels == f"{path} line 3: the label is empty here and given elsewhere (1 of 2 recordings have none)"


@pytest.mark.parametrize("rows", [("a.csv,4,x,", "b.csv,4,,s.csv"), ("a.csv,4,,", "b.csv,4,,")])
def test_labels_and_spans_of_all_or_none_leave_nothing_missing(tmp_path: Path, rows: tuple[str, str]) -> None:
    for name in "ab":
        recording_file(tmp_path, f"{name}.csv")
    (tmp_path / "s.csv").write_text("start_s,stop_s,label\n0,1,rest\n")
    loaded = read_manifest(manifest(tmp_path, *rows, header="path,rate_hz,label,spans\n"))
    assert (loaded.missing_labels, loaded.notes) == ("", ())


def test_a_file_is_found_by_how_its_name_reads(tmp_path: Path) -> None:
    recording_file(tmp_path, "cafe\u0301.csv")
    assert read_manifest(manifest(tmp_path, "caf\u00e9.csv,4", header="path,rate_hz\n")).recordings[0].id == "caf\u00e9"
    with pytest.raises(DataError, match=r"line 2: CAF\u00c9\.csv does not exist \(there is 'cafe\u0301\.csv'\)"):
        read_manifest(manifest(tmp_path, "CAF\u00c9.csv,4", header="path,rate_hz\n"))


@pytest.mark.parametrize("header", ["path,rate_hz,label,Label\n", "path,rate_hz,outcome.pH,Outcome.PH\n"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, header: str) -> None:
    recording_file(tmp_path)
    with pytest.raises(DataError, match="has 2 columns called"):
        read_manifest(manifest(tmp_path, "a.csv,4,1,2", header=header))


def test_a_rate_that_differs_from_the_header_of_an_edf_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Recording("a", "a", np.zeros((1, 10), np.float32), ("ECG",), ("mV",), 50.0, source=tmp_path / "a.bdf")
    monkeypatch.setattr(tables, "read_edf", lambda file, channels: read)
    (tmp_path / "a.bdf").write_bytes(b"x")
    path = manifest(tmp_path, "a.bdf,100", header="path,rate_hz\n")
    with pytest.raises(DataError, match=r"line 2: rate_hz is 100, the header of a\.bdf says 50 Hz"):
        read_manifest(path)
    assert read_manifest(manifest(tmp_path, "a.bdf,50", header="path,rate_hz\n")).recordings[0].rate_hz == 50
