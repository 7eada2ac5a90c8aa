"""Checksums of folders and of blocks against the library's own function, and every kind of damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xxhash

from phoropter.core.storage.checksums import (
    BlockChecksums,
    checksum_bytes,
    checksum_file,
    compare_files,
    describe_files,
    find_damage,
    remove_path,
    set_aside,
    write_checksums,
)


@pytest.mark.parametrize("size", [0, 1, 4 << 20, (4 << 20) + 1])
def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    (tmp_path / "a").write_bytes(data)
    assert checksum_file(tmp_path / "a") == checksum_bytes(data) == xxhash.xxh3_128(data).hexdigest()


def test_every_flipped_byte_and_missing_file_of_a_folder_is_found(tmp_path: Path) -> None:
    for name, data in (("a.bin", b"abcdef"), ("b.bin", b"")):
        (tmp_path / name).write_bytes(data)
    assert find_damage(tmp_path) == "checksums.json is missing or damaged"
    write_checksums(tmp_path)
    assert find_damage(tmp_path) is None
    for at in range(6):
        flipped = bytearray(b"abcdef")
        flipped[at] ^= 1
        (tmp_path / "a.bin").write_bytes(flipped)
        assert find_damage(tmp_path) == "a.bin is damaged: its checksum is not the one it was written with"
    (tmp_path / "a.bin").write_bytes(b"abcdef")
    assert find_damage(tmp_path) is None
    (tmp_path / "b.bin").unlink()
    assert find_damage(tmp_path) == "b.bin cannot be read (No such file or directory)"


@pytest.mark.parametrize("length", [0, 1, 5_000_000])
def test_a_file_of_another_length_than_it_should_have_has_another_checksum(tmp_path: Path, length: int) -> None:
    """Few bytes are read at once, and never only as many as there should be."""
    (tmp_path / "a").write_bytes(bytes(length))
    assert checksum_file(tmp_path / "a", length) == checksum_file(tmp_path / "a") == checksum_bytes(bytes(length))
    assert checksum_file(tmp_path / "a", max(0, length - 1)) == checksum_bytes(bytes(length))


def test_sound_files_are_not_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    files = describe_files(tmp_path)
    assert compare_files(tmp_path, files) is None

    def refuse(path: str, size: int) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr("phoropter.core.storage.checksums.checksum_file", refuse)
    assert compare_files(tmp_path, files) is None
    (tmp_path / "a.bin").write_bytes(b"abd")
    with pytest.raises(AssertionError, match="read again"):
        compare_files(tmp_path, files)


def test_blocks_are_counted_up_to_the_first_damaged_one(tmp_path: Path) -> None:
    blocks, data = BlockChecksums(), np.arange(40, dtype=np.uint8)
    blocks.add_block(data[:10], data[10:12])
    blocks.add_block(b"")
    blocks.add_block(data[12:])
    assert blocks.blocks == [(12, checksum_bytes(data[:12])), (40, checksum_bytes(data[12:]))] and blocks.total == 40
    file = tmp_path / "a"
    for flipped, sound in ((None, 2), (0, 2), (3, 0), (14, 0), (15, 1), (42, 1)):
        content = bytearray(b"abc" + data.tobytes())
        if flipped is not None:
            content[flipped] ^= 8
        file.write_bytes(content)
        assert blocks.count_sound_blocks(file, start=3) == sound
    file.write_bytes(b"abc" + data.tobytes()[:20])
    assert blocks.count_sound_blocks(file, start=3) == 1
    file.unlink()
    assert blocks.count_sound_blocks(file) == 0


@pytest.mark.parametrize("value", [None, [[1]], [["x", "y"]], [[2, "a"], [2, "b"]], [[2, "a"], [1, "b"]]])
def test_blocks_that_do_not_follow_one_another_are_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        BlockChecksums.from_plain(value)


def test_what_is_set_aside_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    for content in ("1", "2"):
        (tmp_path / "entry").mkdir()
        (tmp_path / "entry" / "a").write_text(content)
        target = set_aside(tmp_path / "entry")
    assert [p.name for p in tmp_path.iterdir()] == ["entry.damaged"] and (target / "a").read_text() == "2"
    remove_path(target)
    remove_path(target)
    assert not list(tmp_path.iterdir())
