"""What a file says of windows that were drawn before they were packed; the round trip is in tests/operations/test_pack.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phoropter.core.errors import DataError
from phoropter.data.sources.packed.drawn_windows import read_drawn_windows

SAID = {b"phoropter": json.dumps({"notes": ["one\nline", "two"], "pools_grey_scale": True}).encode()}
COLUMNS: dict[str, list[Any]] = {"recording": ["a", "a", "b"], "start_s": [0, 2, 0], "stop_s": [5.5, 7, 5]}


def test_a_file_of_windows_says_where_they_were() -> None:
    drawn = read_drawn_windows("x.parquet", SAID, COLUMNS)
    assert drawn is not None and drawn.spans is not None and drawn.spans.tolist() == [[0, 5.5], [2, 7], [0, 5]]
    assert drawn.recordings == ["a", "a", "b"] and drawn.notes == ("one line", "two") and drawn.pools_grey_scale


def test_a_file_of_other_pictures_says_nothing_whatever_its_columns_are_called() -> None:
    assert read_drawn_windows("x.parquet", {b"huggingface": b"{}"}, COLUMNS) is None


def test_spans_or_recordings_may_be_missing() -> None:
    drawn = read_drawn_windows("x.parquet", SAID, {"recording": ["a"]})
    assert drawn is not None and drawn.spans is None and drawn.recordings == ["a"]
    drawn = read_drawn_windows("x.parquet", SAID, {"start_s": [1], "stop_s": [2]})
    assert drawn is not None and drawn.recordings is None and drawn.spans is not None


@pytest.mark.parametrize("change", [{"stop_s": [5.5, 2, 5]}, {"start_s": [0, None, 0]}, {"start_s": [0, "x", 0]}])
def test_windows_without_a_length_are_named(change: dict[str, list[Any]]) -> None:
    with pytest.raises(DataError, match=r"x\.parquet, row [01]: start_s and stop_s are no seconds of a window"):
        read_drawn_windows("x.parquet", SAID, COLUMNS | change)


def test_a_recording_in_some_rows_only_is_refused() -> None:
    with pytest.raises(DataError, match="the recording is empty here and given elsewhere"):
        read_drawn_windows("x.parquet", SAID, COLUMNS | {"recording": ["a", None, "b"]})


@pytest.mark.parametrize("said", [b"no JSON", b"[]", b'{"notes": 3}', b'{"notes": [{}]}', b"[" * 100_000])
def test_metadata_of_another_form_is_refused(said: bytes) -> None:
    with pytest.raises(DataError, match="cannot be read; pack the recordings again"):
        read_drawn_windows("x.parquet", {b"phoropter": said}, COLUMNS)
