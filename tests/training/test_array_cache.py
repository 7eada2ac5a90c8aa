"""An array that is complete or absent, and whose computation resumes after a kill."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from phoropter.core.errors import DiskError
from phoropter.core.files import allocate_room
from phoropter.training import array_cache
from phoropter.training.array_cache import (
    CHECKPOINT_BLOCKS,
    CachedArray,
    FeatureEntryInfo,
    load_sound_array,
    read_entry_info,
    write_entry_info,
)


@pytest.mark.parametrize("slow", [False, True])
def test_a_killed_computation_resumes_at_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    monkeypatch.setattr(array_cache, "CHECKPOINT_INTERVAL_S", 0.0 if slow else 1e9)  # as if every block took long, or none
    array = CachedArray(tmp_path / "entry", "array.npy", (2 * CHECKPOINT_BLOCKS + 3,), "uint16", "an array")
    computed: list[int] = []

    def compute(block: int, dies_at: int) -> Any:
        if block == dies_at:
            raise KeyboardInterrupt
        computed.append(block)
        return np.array([block * block], dtype=np.uint16)

    blocks = [1] * (2 * CHECKPOINT_BLOCKS + 3)
    with pytest.raises(KeyboardInterrupt):
        array.load_or_compute(blocks, lambda i: compute(i, CHECKPOINT_BLOCKS + 5))
    assert not array.is_complete
    computed.clear()
    np.testing.assert_array_equal(
        array.load_or_compute(blocks, lambda i: compute(i, -1)), np.arange(2 * CHECKPOINT_BLOCKS + 3) ** 2
    )
    assert computed[0] == (CHECKPOINT_BLOCKS + 5 if slow else CHECKPOINT_BLOCKS)


def test_a_partial_file_of_another_shape_is_computed_anew(tmp_path: Path) -> None:
    def die(block: int) -> Any:
        if block == CHECKPOINT_BLOCKS:
            raise KeyboardInterrupt
        return np.ones((1, 2), np.float32)

    blocks = [1] * (CHECKPOINT_BLOCKS + 1)
    with pytest.raises(KeyboardInterrupt):
        CachedArray(tmp_path / "entry", "array.npy", (len(blocks), 2), "float32", "an array").load_or_compute(blocks, die)
    wider = CachedArray(tmp_path / "entry", "array.npy", (len(blocks), 3), "float32", "an array")
    computed = wider.load_or_compute(blocks, lambda i: np.full((1, 3), i, np.float32))
    np.testing.assert_array_equal(computed[:, 0], np.arange(len(blocks)))
    assert wider.is_complete and wider.nbytes == computed.nbytes and not list(tmp_path.glob("*.part"))


def test_a_complete_array_is_not_computed_again(tmp_path: Path) -> None:
    array = CachedArray(tmp_path / "entry", "array.npy", (3,), "int64", "an array")
    done: list[tuple[int, int]] = []
    array.load_or_compute([2, 1], lambda i: np.arange(2 - i), lambda *at: done.append(at))
    assert done == [(2, 3), (3, 3)]
    assert array.load_or_compute([2, 1], lambda i: 1 / 0).tolist() == [0, 1, 0]  # type: ignore[arg-type, return-value]


def compute_squares(array: CachedArray, computed: list[int] | None = None) -> Any:
    def compute(block: int) -> Any:
        if computed is not None:
            computed.append(block)
        return np.full((2, 3), block * block, np.float32)

    return np.array(array.load_or_compute([2] * (array.shape[0] // 2), compute))


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["array.npy", "blocks.txt"])
def test_a_flipped_bit_anywhere_is_found_said_and_computed_again(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    array = CachedArray(tmp_path / "entry", "array.npy", (40, 3), "float32", "the squares")
    sound = compute_squares(array)
    size = (tmp_path / "entry" / name).stat().st_size
    for at in range(0, size, max(1, size // 25)):
        flip(tmp_path / "entry" / name, at)
        assert not array.is_complete and load_sound_array(tmp_path / "entry", "array.npy") is None
        caplog.clear()
        np.testing.assert_array_equal(compute_squares(array), sound)
        (line,) = caplog.messages
        assert line.startswith("the squares in the cache are damaged") and line.endswith("they are computed again")
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == ["entry"]
    stored = load_sound_array(tmp_path / "entry", "array.npy")
    assert stored is not None
    np.testing.assert_array_equal(stored, sound)


def test_a_resumed_computation_begins_behind_the_last_sound_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_cache, "CHECKPOINT_INTERVAL_S", 0.0)
    array = CachedArray(tmp_path / "entry", "array.npy", (20, 3), "float32", "the squares")

    def die(block: int) -> Any:
        if block == 8:
            raise KeyboardInterrupt
        return np.full((2, 3), block * block, np.float32)

    with pytest.raises(KeyboardInterrupt):
        array.load_or_compute([2] * 10, die)
    file = tmp_path / "entry.part" / "array.npy"
    flip(file, file.stat().st_size - 20 * 12 + 5 * 2 * 12)  # in block 5
    computed: list[int] = []
    came = compute_squares(array, computed)
    assert computed == [5, 6, 7, 8, 9]
    np.testing.assert_array_equal(came[:, 0], np.repeat(np.arange(10) ** 2, 2))


def test_the_journal_holds_checksums_of_what_was_computed(tmp_path: Path) -> None:
    array = CachedArray(tmp_path / "entry", "array.npy", (40, 3), "float32", "the squares")
    data = compute_squares(array).tobytes()
    header, *lines = (tmp_path / "entry" / "blocks.txt").read_text().splitlines()
    begin = 0
    for line in lines:
        end, checksum = line.split(" ")
        assert checksum == xxhash.xxh3_128(data[begin : int(end)]).hexdigest()
        begin = int(end)
    assert header == "phoropter blocks 1" and begin == len(data)


def test_a_full_disk_is_an_error_before_the_map_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # D8
    def fill_disk(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", fill_disk)
    array = CachedArray(tmp_path / "entry", "array.npy", (40, 3), "float32", "the squares")
    with pytest.raises(DiskError, match="disk is full"):
        array.load_or_compute([40], lambda block: pytest.fail("it computed"))
    monkeypatch.undo()
    compute_squares(array)


def test_a_file_with_holes_gets_its_room_with_or_without_the_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, remove in enumerate((False, True)):
        file = tmp_path / str(number)
        file.write_bytes(b"abc")
        if remove:
            monkeypatch.delattr("os.posix_fallocate")
        allocate_room(file, 3_000_000)
        assert file.stat().st_size == 3_000_000 <= file.stat().st_blocks * 512 and file.read_bytes()[:4] == b"abc\0"


def test_about_is_written_again_where_it_is_damaged(tmp_path: Path) -> None:  # T10
    info = FeatureEntryInfo(pixels="p", backbone="b", weights="pretrained")
    for content in ("[]", "{", '{"pixels": "p", "backbone": "b", "weights": "random"}'):
        (tmp_path / "about.json").write_text(content)
        assert read_entry_info(tmp_path) is None
        write_entry_info(tmp_path, info)
        assert read_entry_info(tmp_path) == info
