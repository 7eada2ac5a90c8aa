from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.signals.recording import (
    Events,
    Recording,
    Span,
    codes_to_spans,
    find_channels,
    label_runs,
    read_folder,
    read_recordings,
    recording_summary,
)


def recording(ident: str = "a", n: int = 100, **more: object) -> Recording:
    samples = np.arange(n, dtype=np.float32)[None]
    return replace(Recording(ident, ident, samples, ("ECG",), ("mV",), 10.0), **more)  # type: ignore[arg-type]


def test_a_channel_is_found_by_name() -> None:
    two = Recording("a", "a", np.array([[1, 2], [3, 4]], np.float32), ("FHR", "UC"), ("bpm", "nd"), 4.0)
    assert two.channel("UC").tolist() == [3, 4]


def test_a_missing_channel_is_named_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"channel 'ecg' is missing, there are ECG; did you mean 'ECG'"):
        recording().channel("ecg")


def test_duration_is_samples_over_rate() -> None:
    assert recording(n=35).duration_s == 3.5


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(DataError, match="sampling rate"):
        recording(rate_hz=rate)


def test_a_recording_without_a_finite_sample_is_refused() -> None:
    with pytest.raises(DataError, match="no channel has a finite sample"):
        recording(samples=np.full((1, 5), np.nan, np.float32))


def test_names_must_match_rows() -> None:
    with pytest.raises(DataError, match="one row of samples"):
        recording(channels=("ECG", "UC"))


def test_names_must_differ() -> None:
    with pytest.raises(DataError, match="not all different"):
        Recording("a", "a", np.zeros((2, 3), np.float32), ("X", "X"), ("", ""), 1.0)


@pytest.mark.parametrize("spans", [[(0, 101)], [(5, 5)], [(0, 10), (9, 20)], [(-1, 3)]])
def test_spans_must_lie_inside_in_order(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(DataError, match="span 'x'"):
        recording(spans=tuple(Span(a, b, "x") for a, b in spans))


def test_events_must_lie_inside() -> None:
    with pytest.raises(DataError, match="events"):
        recording(events=Events(np.array([5, 100]), np.array(["N", "N"])))


def test_codes_become_runs() -> None:
    codes = np.array([0, 1, 1, 2, 2, 2, 0, 1], np.uint8)
    assert codes_to_spans(codes, {1: "one", 2: "two"}, [0], "x") == (Span(1, 3, "one"), Span(3, 6, "two"), Span(7, 8, "one"))


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(DataError, match=r"x: unknown label code 9; the known codes are 0 or 1"):
        codes_to_spans(np.array([0, 1, 9]), {1: "one"}, [0], "x")


def test_touching_spans_of_one_label_are_one_run() -> None:
    spans = (Span(0, 5, "a"), Span(5, 9, "a"), Span(9, 12, "b"), Span(13, 20, "b"))
    assert label_runs(recording(spans=spans)) == [Span(0, 9, "a"), Span(9, 12, "b"), Span(13, 20, "b")]


def test_without_spans_the_whole_recording_is_one_run() -> None:
    assert label_runs(recording(label="rest")) == [Span(0, 100, "rest")]
    assert label_runs(recording()) == []


def _read(name: str) -> Recording:
    if name == "bad":
        raise DataError("bad: it is bad")
    return recording(name, source=Path(f"{name}.csv"))


def test_bad_input_stops_unless_told_to_skip() -> None:
    with pytest.raises(DataError, match="it is bad"):
        read_recordings(["a", "bad", "b"], _read)
    loaded = read_recordings(["a", "bad", "b"], _read, "skip")
    assert [r.id for r in loaded.recordings] == ["a", "b"]
    assert [str(p) for p in loaded.problems] == ["bad: it is bad"]


def test_two_recordings_of_one_id_are_bad_input() -> None:
    with pytest.raises(DataError, match=r"recording 'a' was already read from a\.csv"):
        read_recordings(["a", "a"], _read)
    assert len(read_recordings(["a", "a"], _read, "skip").problems) == 1


def test_summary_counts_seconds_events_and_missing() -> None:
    samples = np.zeros((1, 100), np.float32)
    samples[0, :25] = np.nan
    marked = recording(
        samples=samples,
        spans=(Span(0, 30, "a"), Span(50, 60, "a")),
        events=Events(np.array([1, 2, 3]), np.array(["N", "V", "N"])),
    )
    found = recording_summary(marked)
    assert found["missing"] == {"ECG": 0.25}
    assert found["seconds"] == {"a": 4.0}
    assert found["events"] == {"N": 2, "V": 1}


def test_a_folder_is_read_whatever_the_case_of_the_ending(tmp_path: Path) -> None:
    for name in ("b.EDF", "a.edf", "c.Edf", "._a.edf", "d.txt"):
        (tmp_path / name).touch()
    loaded = read_folder(tmp_path, pattern="*.edf", read_file=lambda file: recording(file.stem))
    assert [r.id for r in loaded.recordings] == ["a", "b", "c"]


def test_brackets_in_a_pattern_stay(tmp_path: Path) -> None:
    for name in ("S1_x.CSV", "S3_x.csv"):
        (tmp_path / name).touch()
    loaded = read_folder(tmp_path, pattern="s[12]_*.csv", read_file=lambda file: recording(file.stem))
    assert [r.id for r in loaded.recordings] == ["S1_x"]


def test_channels_are_found_by_name_and_doubles_hurt_only_where_wanted() -> None:
    assert find_channels(("ECG", "Resp"), None, "x") == [0, 1]
    assert find_channels(("ECG", "ECG", "Resp"), ("Resp",), "x") == [2]
    for wanted in (None, ("ECG",)):
        with pytest.raises(DataError, match="x: 2 channels are called 'ECG', so which one is meant is unknown: rename them"):
            find_channels(("ECG", "ECG", "Resp"), wanted, "x")
