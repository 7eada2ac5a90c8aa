"""Answers on corrupted rows are whole or absent, and belong to the predictions beside which they were made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phoropter.results.shift.answer_file import (
    find_missing_answers,
    load_shift_answers,
    take_shift_answers,
    write_shift_answers,
)

KEY = "0" * 32
CLEAN = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_answers_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    write_shift_answers(tmp_path, KEY, CLEAN, {"blur 1": CLEAN + 1})
    write_shift_answers(tmp_path, KEY, CLEAN, {"blur 2": CLEAN + 2})
    found = load_shift_answers(tmp_path, KEY, CLEAN)
    assert list(found) == ["blur 1", "blur 2"] and np.array_equal(found["blur 2"], CLEAN + 2)
    assert find_missing_answers(tmp_path, KEY, CLEAN, ["blur 2", "blur 3"]) == ["blur 3"]


def test_answers_of_another_computation_of_the_run_do_not_count(tmp_path: Path) -> None:
    write_shift_answers(tmp_path, KEY, CLEAN, {"blur 1": CLEAN})
    assert load_shift_answers(tmp_path, KEY, CLEAN + 1e-3) == {}
    write_shift_answers(tmp_path, KEY, CLEAN + 1e-3, {"blur 2": CLEAN})
    assert list(load_shift_answers(tmp_path, KEY, CLEAN + 1e-3)) == ["blur 2"]


def test_a_missing_or_damaged_file_has_no_answers(tmp_path: Path) -> None:
    assert load_shift_answers(tmp_path, KEY, CLEAN) == {}
    write_shift_answers(tmp_path, KEY, CLEAN, {"blur 1": CLEAN})
    path = tmp_path / "shift" / f"{KEY}.npz"
    content = bytearray(path.read_bytes())
    content[content.index(CLEAN.tobytes()) + 5] ^= 1  # one bit of an answer
    path.write_bytes(bytes(content))
    assert load_shift_answers(tmp_path, KEY, CLEAN) == {}
    path.write_bytes(b"no archive")
    assert load_shift_answers(tmp_path, KEY, CLEAN) == {}


def test_answers_of_one_folder_are_added_to_those_of_another(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    take_shift_answers(there, here, KEY, CLEAN)
    assert not (here / "shift").exists()
    write_shift_answers(here, KEY, CLEAN, {"blur 1": CLEAN + 1})
    write_shift_answers(there, KEY, CLEAN, {"blur 2": CLEAN + 2})
    take_shift_answers(there, here, KEY, CLEAN)
    assert sorted(load_shift_answers(here, KEY, CLEAN)) == ["blur 1", "blur 2"]
