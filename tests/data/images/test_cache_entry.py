"""Damage of a cached image set: found before a study computes with it, said in one line, and decoded again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.data.images.cache import load_cached_pixels, prepare_pixels
from phoropter.data.sources.folder import open_folder


def flip_byte(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0x10
    file.write_bytes(data)


def edit_index(folder: Path, **fields: Any) -> None:
    """Changes the index by hand, so that its checksum no longer fits."""
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | fields))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: flip_byte(folder / "pixels.u8", 100),
        lambda folder: flip_byte(folder / "index.json", 60),
        lambda folder: (folder / "pixels.u8").write_bytes(b"short"),
        lambda folder: (folder / "pixels.u8").unlink(),
        lambda folder: (folder / "index.json").write_text("[]"),
        lambda folder: edit_index(folder, bad=[[0, "is said to be bad"]]),
        lambda folder: edit_index(folder, stored=False),
    ],
)
def test_a_damaged_entry_is_decoded_again_with_one_line(
    zoo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], Any]
) -> None:
    dataset = open_folder(zoo)
    _, pixels = prepare_pixels(dataset, 16, cache=tmp_path)
    expected = np.array(pixels.array)
    spoil(pixels.file.parent)
    with caplog.at_level(logging.WARNING, logger="phoropter"):
        kept, again = prepare_pixels(dataset, 16, cache=tmp_path)
    assert len(kept) == 5
    np.testing.assert_array_equal(again.array, expected)
    (line,) = caplog.messages
    assert "are damaged" in line and "decoded again" in line and "\n" not in line
    assert not list((tmp_path / "pixels").glob("*.damaged"))


def test_an_index_with_another_checksum_is_no_entry_for_a_plan(zoo: Path, tmp_path: Path) -> None:
    dataset = open_folder(zoo)
    _, pixels = prepare_pixels(dataset, 16, cache=tmp_path)
    edit_index(pixels.file.parent, bad=[[0, "is said to be bad"]])
    assert load_cached_pixels(dataset, 16, cache=tmp_path, on_bad_input="skip") is None


def test_a_damaged_part_of_a_killed_pass_is_decoded_anew(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phoropter.data.images.cache.CHECKPOINT_S", 0.0)
    dataset = open_folder(zoo)

    def stop_early(done: int, total: int) -> None:
        if done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_pixels(dataset, 16, cache=tmp_path, workers=1, progress=stop_early)
    (partial,) = (tmp_path / "pixels").glob("*.partial")
    flip_byte(partial / "pixels.u8", 5)
    seen: list[int] = []
    _, pixels = prepare_pixels(dataset, 16, cache=tmp_path, workers=1, progress=lambda done, total: seen.append(done))
    assert seen[0] == 0
    np.testing.assert_array_equal(pixels.array, prepare_pixels(dataset, 16, cache=tmp_path / "other")[1].array)
