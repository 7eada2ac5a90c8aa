"""Checksums of what phoropter writes and reads back, compared whenever it is opened: a damaged file is never read as a sound one.

    FOLDER/checksums.json     name → [bytes, checksum] of each file directly in the folder, written last
    BlockChecksums            of the blocks of one large file, added while it is written

The function is XXH3 with 128 bits (Collet), which is as fast as memory: it finds damage by disks, networks and hands. It is no
signature: whoever wants to deceive can write a new one. What a run is computed from is identified by BLAKE2 (files.digest).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import xxhash

from phoropter.core.errors import PhoropterError
from phoropter.core.storage.sealed_json import read_sealed_json, write_sealed_json

CHECKSUM_FILE = "checksums.json"
FORMAT = 1
_READ_BYTES = 4 << 20

_logger = logging.getLogger("phoropter")
_sound: dict[str, tuple[int, ...]] = {}  # files and folders found sound by this process, and their state on the disk then


def print_notice(text: str) -> None:
    """Tells the user something in one line on stderr, or by the handlers of logging where there are any; from workers too."""
    _logger.warning("%s", text)


def checksum_bytes(data: Any) -> str:
    """Bytes, or the contiguous memory of an array → 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


def checksum_file(path: Path | str, size: int | None = None) -> str:
    """A file's bytes → 32 hexadecimal digits. size: how many they should be, so that few are read at once. Raises OSError."""
    if size is not None and size < _READ_BYTES:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (there may be 50,000 of them)
            return xxhash.xxh3_128_hexdigest(file.read(size + 1))
    hasher = xxhash.xxh3_128()
    for chunk in _read_chunks(path, 0, None):
        hasher.update(chunk)
    return hasher.hexdigest()


# ------------------------------------------------------------------------------------------------------------- a folder of files


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files directly in a folder. Nothing may be written to it afterwards."""
    write_sealed_json(folder / CHECKSUM_FILE, {"format": FORMAT, "files": describe_files(folder)})


def describe_files(folder: Path) -> dict[str, list[int | str]]:
    """Name → [bytes, checksum] of every file directly in a folder."""
    covered = [p for p in sorted(folder.iterdir()) if p.is_file() and p.name != CHECKSUM_FILE and not p.name.startswith(".")]
    return {p.name: [p.stat().st_size, checksum_file(p)] for p in covered}


def find_damage(folder: Path) -> str | None:
    """What is wrong with a folder that has a checksums.json, in words; None where every file is as it was written."""
    try:
        recorded = read_sealed_json(folder / CHECKSUM_FILE, PhoropterError)
        if recorded["format"] != FORMAT:
            return f"{CHECKSUM_FILE} is of format {recorded['format']}, and this phoropter reads {FORMAT}"
        return compare_files(folder, recorded["files"])
    except (PhoropterError, KeyError):
        return f"{CHECKSUM_FILE} is missing or damaged"


def compare_files(folder: Path, recorded: Any) -> str | None:
    """What is wrong with files that `describe_files` described, in words; None where they are as they were.

    Files that were found sound are read again only when one of them has another size, time or inode.
    """
    try:
        files = {str(name): (int(size), str(expected)) for name, (size, expected) in recorded.items()}
        state: tuple[int, ...] = ()
        for name, (size, _) in files.items():
            if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):  # noqa: PTH117 (text, as below)
                return f"its list of files names {name}, which lies outside it"
            state += describe_file_state(f"{folder}/{name}")
            if state[-2] != size:
                return f"{name} does not have the {size:,} bytes it was written with"
        key = f"{folder}:{checksum_bytes(repr(files).encode())}"
        if _sound.get(key) == state:
            return None
        for name, (size, expected) in files.items():
            if checksum_file(f"{folder}/{name}", size) != expected:
                return f"{name} is damaged: its checksum is not the one it was written with"
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror or error})"
    except (TypeError, ValueError, AttributeError):
        return "its list of files is damaged"
    _sound[key] = state
    return None


def describe_file_state(path: Path | str) -> tuple[int, int, int]:
    """Inode, size and time of a file, which change when it is written. Raises OSError."""
    stat = os.stat(path)  # noqa: PTH116 (text is a path here: of thousands of runs, making a Path takes longer than the call)
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


# ------------------------------------------------------------------------------------------------------------ a file of blocks


@dataclass
class BlockChecksums:
    """Checksums of the consecutive blocks of a file, computed from what is written and not from what the disk gives back.

    blocks: (where the block ends, in bytes from the first block; its checksum)
    """

    blocks: list[tuple[int, str]] = field(default_factory=list)

    @classmethod
    def from_plain(cls, value: Any) -> BlockChecksums:
        """Raises TypeError or ValueError for anything but ascending [end, checksum] pairs."""
        blocks = [(int(end), str(checksum)) for end, checksum in value]
        if any(a >= b for (a, _), (b, _) in pairwise(blocks)):
            raise ValueError("the blocks do not follow one another")
        return cls(blocks)

    @property
    def total(self) -> int:
        """Bytes of all blocks."""
        return self.blocks[-1][0] if self.blocks else 0

    def add_block(self, *parts: Any) -> None:
        """Adds the next block, in parts: bytes, or the contiguous memory of arrays. An empty one is left out."""
        hasher = xxhash.xxh3_128()
        for part in parts:
            hasher.update(part)
        if size := sum(memoryview(part).nbytes for part in parts):
            self.blocks.append((self.total + size, hasher.hexdigest()))

    def count_sound_blocks(self, path: Path, start: int = 0) -> int:
        """How many blocks, from the first, stand in the file as they were written. start: where the first begins, in bytes

        A file found sound as a whole is read again only when its size, time or inode has changed.
        """
        try:
            key, state = f"{path}:{checksum_bytes(repr(self.blocks).encode())}", describe_file_state(path)
            if _sound.get(key) == state:
                return len(self.blocks)
            for number, ((_, expected), came) in enumerate(zip(self.blocks, self._checksum_blocks(path, start), strict=True)):
                if came != expected:
                    return number
        except OSError:
            return 0
        _sound[key] = state
        return len(self.blocks)

    def _checksum_blocks(self, path: Path, start: int) -> Iterator[str]:
        begin = 0
        for end, _ in self.blocks:
            hasher = xxhash.xxh3_128()
            for chunk in _read_chunks(path, start + begin, end - begin):
                hasher.update(chunk)
            begin = end
            yield hasher.hexdigest()


def _read_chunks(path: Path | str, start: int, length: int | None) -> Iterator[memoryview]:
    """The bytes of a part of a file, in one buffer that is used again; fewer where the file ends."""
    buffer = bytearray(min(_READ_BYTES, length) if length is not None else _READ_BYTES)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        file.seek(start)
        while length is None or length > 0:
            count = file.readinto(view if length is None else view[: min(len(view), length)])
            if not count:
                return
            yield view[:count]
            length = None if length is None else length - count


# ------------------------------------------------------------------------------------------------------------------ set aside


def set_aside(path: Path) -> Path:
    """Renames a damaged file or folder to `NAME.damaged`, in place of an earlier one; returns the new path."""
    target = path.with_name(f"{path.name}.damaged")
    remove_path(target)
    path.rename(target)
    return target


def remove_path(path: Path) -> None:
    """Removes a file or a folder with all it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
