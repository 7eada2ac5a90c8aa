"""The note of a study that is being prepared: written, read in words, removed, and never in the way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from phoropter.results.preparation import PreparationNote, describe_preparation


def test_a_note_is_read_in_words_and_removed_with_the_folder_it_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert describe_preparation(out) == ""
    note = PreparationNote(out)
    note.write_progress("reading the data")
    assert describe_preparation(out) == "reading the data"
    note.write_progress("decoding images", 1200, 5000)
    assert describe_preparation(out) == "decoding images: 1,200 of 5,000"
    note.clear()
    assert describe_preparation(out) == "" and not out.exists()


def test_a_folder_that_holds_anything_stays(tmp_path: Path) -> None:
    note = PreparationNote(tmp_path)
    note.write_progress("decoding images")
    (tmp_path / "study.json").write_text("{}")
    note.clear()
    assert (tmp_path / "work").is_dir() and not list((tmp_path / "work").iterdir())


def test_progress_of_one_kind_is_written_once_in_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = PreparationNote(tmp_path)
    note.write_progress("decoding images", 1, 9)
    note.write_progress("decoding images", 2, 9)
    assert describe_preparation(tmp_path).endswith("1 of 9")
    monkeypatch.setattr(note, "interval_s", 0.0)
    note.write_progress("decoding images", 3, 9)
    assert describe_preparation(tmp_path).endswith("3 of 9")


def test_a_note_of_what_is_done_is_removed_and_the_folder_stays(tmp_path: Path) -> None:
    note = PreparationNote(tmp_path / "out")
    note.remove()
    note.write_progress("decoding images", 9, 9)
    note.remove()
    assert describe_preparation(tmp_path / "out") == "" and (tmp_path / "out" / "work").is_dir()
    note.write_progress("decoding images", 1, 9)
    assert describe_preparation(tmp_path / "out").endswith("1 of 9"), "at once, as it is another preparation"


def test_an_old_note_says_so(tmp_path: Path) -> None:
    PreparationNote(tmp_path).write_progress("decoding images", 1, 9)
    then = time.time() - 180
    os.utime(tmp_path / "work" / "preparing.json", (then, then))
    assert describe_preparation(tmp_path) == "decoding images: 1 of 9 (no progress for 3 min)"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"doing": 3}', '{"doing": "x", "done": "y", "total": 1}', "{" * 9000])
def test_a_damaged_note_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "preparing.json").write_text(text)
    assert describe_preparation(tmp_path) == ""


def test_a_place_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    PreparationNote(tmp_path / "out").write_progress("reading the data")
    PreparationNote(tmp_path / "out").clear()
    assert (tmp_path / "out").read_text() == "a file"
