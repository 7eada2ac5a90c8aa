"""Files that are whole or absent, locks that die with their holder, and digests by contents."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from phoropter.core.errors import DiskError

_UNFINISHED_MARK = ".aside-"  # what is being written and does not count yet


def cache_dir(beside: Path | None = None) -> Path:
    """Where shared caches live: `PHOROPTER_CACHE`, else `.cache` beside the study's folder, else the user's cache folder."""
    if named := os.environ.get("PHOROPTER_CACHE"):
        return Path(named).expanduser()
    if beside is not None:
        return beside.parent / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "phoropter"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a path aside to write a file to; on leaving without an error it becomes `path`, else nothing remains.

    Raises DiskError when the disk is full or the folder may not be written.
    """
    aside = _temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        _sync_to_disk(aside)
        aside.replace(path)
    except OSError as error:
        raise_disk_error(error, path)
        raise
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def atomic_write_folder(path: Path) -> Iterator[Path]:
    """As `writing`, for a folder; if `path` appears meanwhile (another process was first), that one stays."""
    aside = _temporary_path(path)
    try:
        aside.mkdir(parents=True)
        yield aside
        for file in aside.iterdir():
            if file.is_file():
                _sync_to_disk(file)
        try:
            aside.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    except OSError as error:
        raise_disk_error(error, path)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes plain data as indented JSON, whole or not at all; NaN is refused because JSON has none."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed process had begun directly in `folder` and never finished. Hold the folder's lock."""
    for stale in folder.glob(f".*{_UNFINISHED_MARK}*") if folder.is_dir() else ():
        shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink(missing_ok=True)


def file_lock(path: Path) -> filelock.FileLock:
    """An exclusive lock between processes, free again the moment its holder dies. Use as a context, or `.acquire(timeout=0)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path, timeout=-1)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raises DiskError unless `needed` bytes and a tenth more are free where `folder` is or will be."""
    there = next(p for p in [folder, *folder.absolute().parents] if p.exists())
    free = shutil.disk_usage(there).free
    if needed * 1.1 > free:
        raise DiskError(
            f"{what} needs {format_bytes(needed)} in {folder}, where {format_bytes(free)} are free: "
            "free some space, or set PHOROPTER_CACHE to a larger disk"
        )


def format_bytes(count: float) -> str:
    """Bytes for people.

    >>> size_text(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def digest(value: Any) -> str:
    """Plain data (dicts, lists, strings, numbers, None) → 32 hexadecimal digits; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_json_default, allow_nan=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest_array(array: np.ndarray[Any, Any]) -> str:
    """An array's shape, kind and bytes → 32 hexadecimal digits."""
    hasher = hashlib.blake2b(f"{array.shape}{array.dtype.str}".encode(), digest_size=16)
    if array.dtype.kind in "UOS":
        hasher.update("\x1f".join(map(str, array.ravel().tolist())).encode())
    else:
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def digest_file(path: Path) -> str:
    """A file's bytes → 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _json_default(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{path.name}{_UNFINISHED_MARK}{os.getpid()}-{secrets.token_hex(4)}")


def _sync_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def raise_disk_error(error: OSError, path: Path) -> None:
    """Raises DiskError when that is what the error says: the disk is full, or this user may not write there."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DiskError(f"{path} could not be written because the disk is full: free some space and run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise DiskError(f"{path} could not be written because this user may not write there: choose another folder with -o")
