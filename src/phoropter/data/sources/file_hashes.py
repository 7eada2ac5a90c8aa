"""Cached digests of picture files: (digest of its path, size, times) → digest, in a small database in the user's cache.

Paths are not kept in words: the name of a file may be a patient's.

The contents of a dataset are part of every key, so every command needs them; reading 50,000 files each time would make `status`
as slow as a training epoch. A file whose size and times have not changed counts as unchanged, as in Git. A file that changed a
moment ago is never cached, because the clock of its file system may be too coarse to show a second change.

Where the database cannot be read or written, digests are computed again; so is an entry whose own checksum does not fit, because
a flipped bit in it would make another dataset of the same files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from json.encoder import encode_basestring_ascii
from pathlib import Path

from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.files import cache_dir, digest, digest_file

UNREADABLE = "unreadable"
SETTLED_S = 2.0  # a file younger than this is not cached
_THREADS = min(16, 4 * count_usable_cores())
_KEYS_PER_QUERY = 500
_FILES_PER_TASK = 64
SUM_BYTES = 8


def file_digests(paths: Sequence[Path | str]) -> list[str]:
    """Files → 32 hexadecimal digits each, hashed by several threads. Text is a path too: a Path costs more than its digest.

    A file that cannot be read gives `unreadable…` instead of an error; decoding it raises one that names it.
    """
    now = time.time()
    stamps = [_compute_file_stamp(path, now) for path in paths]
    keys = _make_file_keys(paths)
    known = _load_entries(dict(zip(keys, stamps, strict=True)))
    missing = [row for row, key in enumerate(keys) if key not in known]
    if missing:
        blocks = [missing[start : start + _FILES_PER_TASK] for start in range(0, len(missing), _FILES_PER_TASK)]
        with ThreadPoolExecutor(_THREADS) as pool:  # a task for each file would take 2 KB of memory for it
            hashed = pool.map(lambda rows: [_hash_file(Path(paths[row])) for row in rows], blocks)
            fresh = dict(zip(missing, chain.from_iterable(hashed), strict=True))
        _store_entries([(keys[r], stamps[r], d.encode()) for r, d in fresh.items() if not d.startswith(UNREADABLE)])
        known |= {keys[row]: file_digest.encode() for row, file_digest in fresh.items()}
    return [known[key].decode() for key in keys]


def memoize_by_files(files: Sequence[Path], what: str, compute: Callable[[], bytes]) -> bytes:
    """The result of `compute()`, cached as long as the files are unchanged. what: names the computation and its version."""
    key, stamp = _make_key(what, files), _compute_stamp(files)
    known = _load_entries({key: stamp})
    if key not in known:
        known[key] = compute()
        _store_entries([(key, stamp, known[key])])
    return known[key]


def _make_key(what: str, files: Sequence[Path]) -> str:
    return digest([what, *(str(file.absolute()) for file in files)])


def _make_file_keys(paths: Sequence[Path | str]) -> list[str]:
    """What `_make_key("file", [path])` gives for each, in a fifth of its time."""
    here = os.getcwd()  # noqa: PTH109 (paths are text here)
    texts = (os.path.join(here, path) for path in paths)  # noqa: PTH118
    plain = (f'["file",{encode_basestring_ascii(text)}]'.encode() for text in texts)
    return [hashlib.blake2b(text, digest_size=16).hexdigest() for text in plain]


def _hash_file(path: Path) -> str:
    try:
        return digest_file(path)
    except OSError as error:
        return f"{UNREADABLE} {type(error).__name__}"


def _compute_stamp(files: Sequence[Path]) -> str:
    """Size and times of the files; empty when one cannot be read or changed a moment ago."""
    now = time.time()
    parts = [_compute_file_stamp(file, now) for file in files]
    return "|".join(parts) if all(parts) else ""


def _compute_file_stamp(file: Path | str, now: float) -> str:
    try:
        stat = os.stat(file)  # noqa: PTH116
    except OSError:
        return ""
    if now - max(stat.st_mtime, stat.st_ctime) < SETTLED_S:
        return ""
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def _load_entries(stamps: Mapping[str, str]) -> dict[str, bytes]:
    """key → stamp into key → value, for the keys whose stamp has not changed."""
    found: dict[str, bytes] = {}
    keys = sorted(key for key, stamp in stamps.items() if stamp)  # in the order of the table: each page of it is read once
    with contextlib.suppress(sqlite3.Error, OSError, UnicodeError), _open_database() as base:
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            some = keys[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(some))
            rows = base.execute(f"SELECT key, stamp, value FROM memory WHERE key IN ({marks})", some)
            fitting = [(key, bytes(sealed)) for key, stamp, sealed in rows if stamp == stamps[key] and isinstance(sealed, bytes)]
            found |= {
                key: sealed[SUM_BYTES:] for key, sealed in fitting if sealed == _seal_entry(key, stamps[key], sealed[SUM_BYTES:])
            }
    return found


def _seal_entry(key: str, stamp: str, value: bytes) -> bytes:
    """The value after a checksum of the whole entry."""
    return hashlib.blake2b(f"{key} {stamp} ".encode() + value, digest_size=SUM_BYTES).digest() + value


def _store_entries(entries: Sequence[tuple[str, str, bytes]]) -> None:
    settled = [(key, stamp, _seal_entry(key, stamp, value)) for key, stamp, value in entries if stamp]
    if settled:
        with contextlib.suppress(sqlite3.Error, OSError, UnicodeError), _open_database() as base, base:
            base.executemany("INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", settled)


@contextlib.contextmanager
def _open_database() -> Iterator[sqlite3.Connection]:
    path = cache_dir() / "digests.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    base = sqlite3.connect(path, timeout=30)
    try:
        base.execute("CREATE TABLE IF NOT EXISTS memory (key TEXT PRIMARY KEY, stamp TEXT, value BLOB) WITHOUT ROWID")
        yield base
    finally:
        base.close()
