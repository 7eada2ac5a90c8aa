from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import pytest

from phoropter.core.files import digest_file
from phoropter.data.sources import file_hashes
from phoropter.data.sources.file_hashes import file_digests, memoize_by_files


@pytest.fixture(autouse=True)
def _own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOROPTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "SETTLED_S", -1e9)


def files(tmp_path: Path, count: int) -> list[Path]:
    paths = [tmp_path / f"{i}.bin" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(b"content %d" % (i % 7))
    return paths


def test_digests_are_of_the_bytes_in_the_requested_order(tmp_path: Path) -> None:
    paths = files(tmp_path, 600)
    expected = [hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in paths]
    assert file_digests(paths) == expected == file_digests(paths)
    assert file_digests(paths[::-1]) == expected[::-1]


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(tmp_path, 3)
    first = file_digests(paths)
    hashed: list[Path] = []
    monkeypatch.setattr(file_hashes, "_hash_file", lambda path: (hashed.append(path), "new")[1])
    assert file_digests(paths) == first and not hashed
    paths[1].write_bytes(b"changed since")
    assert file_digests(paths) == [first[0], "new", first[2]] and hashed == [paths[1]]


def test_a_change_that_keeps_size_and_modification_time_is_seen(tmp_path: Path) -> None:
    (path,) = files(tmp_path, 1)
    (first,) = file_digests([path])
    seen = path.stat()
    path.write_bytes(b"CONTENT 0")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert file_digests([path]) != [first]


def test_a_file_that_changed_a_moment_ago_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_hashes, "SETTLED_S", 60.0)
    paths = files(tmp_path, 1)
    file_digests(paths)
    monkeypatch.setattr(file_hashes, "_hash_file", lambda path: "hashed again")
    assert file_digests(paths) == ["hashed again"]


def test_the_digest_of_a_missing_file_is_marked_and_not_cached(tmp_path: Path) -> None:
    path = tmp_path / "late.bin"
    assert file_digests([path]) == ["unreadable FileNotFoundError"]
    path.write_bytes(b"x")
    assert file_digests([path]) == [hashlib.blake2b(b"x", digest_size=16).hexdigest()]


@pytest.mark.parametrize("spoil", ["directory", "garbage"])
def test_a_damaged_database_is_ignored(tmp_path: Path, spoil: str) -> None:
    (tmp_path / "cache").mkdir()
    base = tmp_path / "cache" / "digests.sqlite"
    if spoil == "directory":
        base.mkdir()
    else:
        base.write_bytes(b"this is no database" * 100)
    paths = files(tmp_path, 2)
    assert file_digests(paths) == [hashlib.blake2b(p.read_bytes(), digest_size=16).hexdigest() for p in paths]


def test_a_computation_is_cached_for_unchanged_files(tmp_path: Path) -> None:
    paths = files(tmp_path, 2)
    assert memoize_by_files(paths, "sum", lambda: b"first") == b"first"
    assert memoize_by_files(paths, "sum", lambda: b"second") == b"first"
    assert memoize_by_files(paths, "product", lambda: b"other") == b"other"
    paths[0].write_bytes(b"longer than before")
    assert memoize_by_files(paths, "sum", lambda: b"third") == b"third"


def test_a_flipped_entry_is_not_used_and_made_again(tmp_path: Path) -> None:
    paths = files(tmp_path, 3)
    expected = file_digests(paths)
    memoized = [memoize_by_files(paths, "sum-1", lambda: b"result") for _ in range(2)]
    assert memoized == [b"result"] * 2
    base = sqlite3.connect(tmp_path / "cache" / "digests.sqlite")
    rows = base.execute("SELECT key, value FROM memory").fetchall()
    assert len(rows) == 4
    for key, value in rows:
        for at in (0, len(value) - 1):  # in the checksum, and in what it is of
            flipped = bytearray(value)
            flipped[at] ^= 1
            base.execute("UPDATE memory SET value = ? WHERE key = ?", (bytes(flipped), key))
            base.commit()
            assert file_digests(paths) == expected
            assert memoize_by_files(paths, "sum-1", lambda: b"result") == b"result"
            assert base.execute("SELECT value FROM memory WHERE key = ?", (key,)).fetchone() == (value,)
    base.close()


@pytest.mark.parametrize("value", ["text", b"", b"short", None, 7])
def test_an_entry_of_another_form_is_made_again(tmp_path: Path, value: object) -> None:
    paths = files(tmp_path, 2)
    expected = file_digests(paths)
    with sqlite3.connect(tmp_path / "cache" / "digests.sqlite") as base:
        base.execute("UPDATE memory SET value = ?", (value,))
    base.close()
    assert file_digests(paths) == expected


def test_keys_of_many_files_are_those_of_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that digests kept by an earlier version are found again; text and Path name the same file."""
    monkeypatch.chdir(tmp_path)
    paths = [Path("a.bin"), tmp_path / 'quo"te.bin', Path("über/ö.bin")]
    keys = file_hashes._make_file_keys(paths)
    assert keys == [file_hashes._make_key("file", [path]) for path in paths] == file_hashes._make_file_keys(list(map(str, paths)))


def test_text_names_a_file_as_a_path_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(tmp_path, 3)
    first = file_digests(list(map(str, paths)))
    monkeypatch.setattr(file_hashes, "_hash_file", lambda path: "hashed again")
    assert file_digests(paths) == first


def test_digests_of_more_files_than_a_task_takes_come_in_their_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{row}.bin" for row in range(150)]
    for row, path in enumerate(paths):
        path.write_bytes(bytes([row]) * row)
    paths[97].unlink()
    expected = [digest_file(path) if path.exists() else "unreadable FileNotFoundError" for path in paths]
    assert file_digests(paths) == expected
