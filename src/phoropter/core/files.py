"""Atomic writes (a file is complete or absent), locks that are freed when their holder dies, and digests by contents."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from phoropter.core.errors import DiskError, PhoropterError, cut_message

_ELSEWHERE = "choose another folder with -o, or with PHOROPTER_CACHE for the cache"
UNFINISHED_MARK = ".aside-"  # in the name of a file that is still being written
_TEMPORARY_MARK = "phoropter-"
_OWNED = re.compile(rf"^(?:\..*{re.escape(UNFINISHED_MARK)}|{_TEMPORARY_MARK}\w+-)([0-9a-f]{{8}})-(\d+)-\w+$")
_swept: set[tuple[int, Path]] = set()  # process and folder, as a forked process has a set of its own


def cache_dir(beside: Path | None = None) -> Path:
    """The folder of shared caches: `PHOROPTER_CACHE`, else `.cache` beside the results folder, else the user's cache folder."""
    if named := os.environ.get("PHOROPTER_CACHE"):
        return Path(named).expanduser()
    if beside is not None:
        return beside.parent / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "phoropter"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write a file to; on leaving without an error it becomes `path`, else nothing remains.

    In a folder that is itself unfinished (`atomic_write_folder`) it is `path` at once: the folder becomes whole as one.
    Raises DiskError when the disk is full or the folder may not be written.
    """
    is_inside = UNFINISHED_MARK in path.parent.name  # a sync of its own would double what each run waits for the disk
    aside = path if is_inside else _temporary_path(path)
    make_folder(path.parent)
    try:
        yield aside
        if not is_inside:
            _sync_to_disk(aside)
            aside.replace(path)
    except OSError as error:
        raise_disk_error(error, path)
        raise
    finally:
        if not is_inside:
            with suppress(OSError):  # on a read-only disk even this fails, and would hide the reason
                aside.unlink(missing_ok=True)


@contextmanager
def atomic_write_folder(path: Path) -> Iterator[Path]:
    """The same for a folder; if `path` appears meanwhile (another process was first), that one stays."""
    aside = _temporary_path(path)
    make_folder(path.parent)
    try:
        aside.mkdir()
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


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, where they are missing. Raises DiskError, also where a file stands in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise_disk_error(error, folder)
        raise


def require_writable(folder: Path) -> None:
    """Makes a folder where it is missing. Raises DiskError where this user may not write in it, before hours are spent."""
    make_folder(folder)
    _require_permission(folder, folder)


def require_writable_place(path: Path) -> None:
    """Raises DiskError where no file or folder of this name could be made, before hours are spent. Makes nothing."""
    there = next(p for p in path.absolute().parents if p.exists())
    if not there.is_dir():
        raise_disk_error(OSError(errno.ENOTDIR, "not a folder"), path)
    _require_permission(there, path)


def _require_permission(folder: Path, path: Path) -> None:
    """Raises DiskError where this user may not write in a folder. path: what was to be written"""
    if not os.access(folder, os.W_OK):
        read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
        raise_disk_error(OSError(errno.EROFS if read_only else errno.EACCES, "no permission"), path)


def allocate_room(path: Path, size: int) -> None:
    """Makes a file at least `size` bytes long on the disk, zeros where it was shorter. Raises DiskError when they are not free.

    A write into a memory map of a file with holes would end the process with SIGBUS when the disk is full.
    """
    try:
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):
                if size:
                    os.posix_fallocate(file.fileno(), 0, size)
                return
            file.seek(0, os.SEEK_END)
            while (missing := size - file.tell()) > 0:
                file.write(bytes(min(missing, 1 << 20)))
    except OSError as error:
        raise_disk_error(error, path)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes plain data as indented JSON atomically. Raises ValueError for NaN and infinity, which JSON lacks."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, max_bytes: int, error: type[PhoropterError]) -> Any:
    """Reads a JSON file of bounded size. Raises `error` when it is missing, too large or malformed."""
    try:
        if path.stat().st_size > max_bytes:
            raise error(f"{path} has more than {max_bytes:,} bytes and is not read")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path} cannot be read as JSON: {cut_message(problem, 160)}") from None


def remove_unfinished(folder: Path, older_than_s: float | None = None) -> None:
    """Removes what a killed process left unfinished directly in `folder`.

    older_than_s: seconds since it was changed, in a folder without a lock, where others may be writing; None: everything goes,
    because the caller holds the folder's lock
    """
    for stale in folder.glob(f".*{UNFINISHED_MARK}*") if folder.is_dir() else ():
        with suppress(OSError):
            if older_than_s is None or time.time() - stale.stat().st_mtime > older_than_s:
                shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Removes what killed processes left unfinished of one folder. The caller holds its lock."""
    for name in os.listdir(path.parent):  # thousands of names, for which a glob would take longer than a small run
        if name.startswith(f".{path.name}{UNFINISHED_MARK}"):
            shutil.rmtree(path.parent / name, ignore_errors=True)


def make_temporary_folder(purpose: str) -> Path:
    """A new folder for temporary files, whose name says what for and of which process; those that dead ones left are removed."""
    place = Path(tempfile.gettempdir())
    remove_orphans(place)
    return Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY_MARK}{purpose}-{_name_owner()}-", dir=place))


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """As `make_temporary_folder`; it is removed on leaving."""
    folder = make_temporary_folder(purpose)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_orphans(folder: Path) -> None:
    """Removes half-written and temporary files directly in `folder` whose process on this machine is dead; once in a process.

    Names say the owner; what another machine, another container or another user made stays.
    """
    if (os.getpid(), folder) in _swept:
        return
    _swept.add((os.getpid(), folder))
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            owner = _OWNED.search(entry.name)
            if owner and owner[1] == _name_machine() and not _is_alive(int(owner[2])):
                with suppress(OSError):
                    is_folder = entry.is_dir(follow_symlinks=False)
                    shutil.rmtree(entry.path, ignore_errors=True) if is_folder else Path(entry.path).unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(process))


def _name_owner() -> str:
    """Machine and process, as names of unfinished and temporary files hold them."""
    return f"{_name_machine()}-{os.getpid()}"


@cache
def _name_machine() -> str:
    """This machine since it was started and, on Linux, this container: within it a number of a process has one meaning."""
    facts = [platform.node()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    return digest(facts)[:8]


def file_lock(path: Path) -> filelock.FileLock:
    """An exclusive lock between processes, freed when its holder dies. Use it in a `with`, or `.acquire(timeout=0)`.

    Raises DiskError, here or when it is acquired, where this user may not write.
    """
    make_folder(path.parent)
    return _ExplainedLock(path, timeout=-1)


class _ExplainedLock(filelock.FileLock):
    """A lock whose file cannot be made says why."""

    def _acquire(self) -> None:
        try:
            super()._acquire()
        except OSError as error:
            raise_disk_error(error, Path(self.lock_file))
            raise


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raises DiskError unless `needed` bytes and a tenth more are free on the disk of `folder`, which need not exist yet."""
    existing = next(p for p in [folder, *folder.absolute().parents] if p.exists())
    free = shutil.disk_usage(existing).free
    if needed * 1.1 > free:
        raise DiskError(
            f"{what} needs {format_bytes(needed)} in {folder}, where {format_bytes(free)} are free: "
            "free some space, or set PHOROPTER_CACHE to a larger disk"
        )


def format_bytes(count: float) -> str:
    """A number of bytes in a readable unit.

    >>> format_bytes(1536)
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
    remove_orphans(path.parent)
    return path.with_name(f".{path.name}{UNFINISHED_MARK}{_name_owner()}-{secrets.token_hex(4)}")


def _sync_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def raise_disk_error(error: OSError, path: Path) -> None:
    """Raises DiskError when the error says that the disk is full, failing or read-only, that this user may not write there, that
    a file stands where a folder is needed, or a folder in the place of the file; else returns."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DiskError(f"{path} could not be written because the disk is full: free some space and run the same command again")
    if error.errno == errno.EROFS:
        raise DiskError(f"{path} could not be written because its file system is read-only: {_ELSEWHERE}")
    if error.errno == errno.EISDIR:
        raise DiskError(f"{path} could not be written because it is a folder: rename or remove it, or {_ELSEWHERE}")
    if error.errno in (errno.EACCES, errno.EPERM):
        raise DiskError(f"{path} could not be written because this user may not write there: {_ELSEWHERE}")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        blocking = next((p for p in (path, *path.parents) if p.is_file()), path)
        raise DiskError(f"{path} could not be written because {blocking} is a file, and a folder is needed there: {_ELSEWHERE}")
    if error.errno == errno.EIO:
        raise DiskError(f"{path} could not be written because the disk reports an error: see whether it is failing")
