"""CachedArray: an array in the cache that is complete or absent, and whose computation resumes after a kill.

    FOLDER/NAME.npy        the array
    FOLDER/blocks.txt      a line for each block of it that is on the disk: where it ends, in bytes, and its checksum

The checksums are of what was computed, and every block is compared before the array is used, once in a process. A damaged array
is set aside and computed again; a computation that was killed resumes behind its last sound block.

Left out: arrays whose length is known only at the end. The pixel cache (data/images/cache.py) appends the images it could read.
"""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from phoropter.core.files import allocate_room, file_lock, make_folder, raise_disk_error, require_space
from phoropter.core.storage.checksums import BlockChecksums, print_notice, remove_path, set_aside
from phoropter.core.storage.sealed_json import CacheShape, read_cache_json, write_cache_json

CHECKPOINT_BLOCKS = 16  # blocks after which progress is noted
CHECKPOINT_INTERVAL_S = 0.1  # or seconds, if that is sooner: what a kill may cost
BLOCKS_FILE = "blocks.txt"
_JOURNAL_HEADER = "phoropter blocks 1"

ProgressFunction = Callable[[int, int], None]  # (rows done, rows in all)


@dataclass(frozen=True)
class CachedArray:
    """An array in one folder of the cache. The folder gets its name when the array is complete.

    file_name: of the array within the folder · description: in words, for messages
    """

    folder: Path
    file_name: str
    shape: tuple[int, ...]
    dtype: str
    description: str

    @property
    def is_complete(self) -> bool:
        """Whether it is there and sound. All of it is read, unless this process has done so before."""
        return self.folder.exists() and self._find_damage() is None

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def load_or_compute(
        self, blocks: Sequence[int], compute: Callable[[int], NDArray[Any]], progress: ProgressFunction | None = None
    ) -> NDArray[Any]:
        """The array, memory-mapped; where it is absent or damaged, it is computed first.

        blocks: number of rows of each block, which `compute(i)` returns; called in order
        Two processes never compute the same array: the second waits. Raises DiskError before anything is computed.
        """
        if not self.is_complete:
            with file_lock(self.folder.with_name(self.folder.name + ".lock")):
                if not self.is_complete:
                    damaged = self._set_aside_damaged()
                    self._compute_blocks(blocks, compute, progress)
                    if damaged:
                        remove_path(damaged)
        return self.load()

    def load(self) -> NDArray[Any]:
        """The complete array, memory-mapped."""
        stored: NDArray[Any] = np.load(self.folder / self.file_name, mmap_mode="r", allow_pickle=False)
        return stored

    def _find_damage(self) -> str | None:
        """What is wrong with the complete array, in words."""
        file, header = self.folder / self.file_name, self._make_header()
        try:
            blocks = _read_journal(self.folder)
            with file.open("rb") as opened:
                if opened.read(len(header)) != header:
                    return f"{self.file_name} does not begin as an array of the shape {self.shape} should"
        except (OSError, ValueError) as error:
            return f"{self.file_name} or its {BLOCKS_FILE} cannot be read: {error}"
        if blocks.total != self.nbytes:
            return f"{BLOCKS_FILE} lists {blocks.total:,} bytes, expected {self.nbytes:,}"
        sound = blocks.count_sound_blocks(file, len(header))
        return None if sound == len(blocks.blocks) else f"block {sound + 1} of {len(blocks.blocks)} has another checksum"

    def _set_aside_damaged(self) -> Path | None:
        if not self.folder.exists():
            return None
        damage = self._find_damage()
        target = set_aside(self.folder)
        print_notice(f"{self.description} in the cache are damaged ({self.folder}: {damage}): they are computed again")
        return target

    def _compute_blocks(
        self, blocks: Sequence[int], compute: Callable[[int], NDArray[Any]], progress: ProgressFunction | None
    ) -> None:
        require_space(self.folder.parent, self.nbytes, self.description)
        partial = self.folder.with_name(f"{self.folder.name}.part")
        done = self._count_resumed_rows(partial, blocks)
        stored = npy.open_memmap(partial / self.file_name, mode="r+")
        start, begun, noted = 0, done, time.monotonic()
        pending: list[NDArray[Any]] = []  # blocks whose checksum is not written yet
        for i, rows in enumerate(blocks):
            if start >= done:
                pending.append(self._convert_block(compute(i), rows))
                stored[start : start + rows] = pending[-1]
                if i % CHECKPOINT_BLOCKS == CHECKPOINT_BLOCKS - 1 or time.monotonic() - noted >= CHECKPOINT_INTERVAL_S:
                    stored.flush()  # rows first: the journal must never promise more than the file holds
                    _append_to_journal(partial, self._row_bytes * begun, pending)
                    pending, begun, noted = [], start + rows, time.monotonic()
                if progress:
                    progress(start + rows, self.shape[0])
            start += rows
        stored.flush()
        _append_to_journal(partial, self._row_bytes * begun, pending, sync=True)
        partial.rename(self.folder)

    def _count_resumed_rows(self, partial: Path, blocks: Sequence[int]) -> int:
        """How many rows a killed computation left that can be used; the file is made where there are none."""
        file, header = partial / self.file_name, self._make_header()
        try:
            with file.open("rb") as opened:
                if opened.read(len(header)) != header:
                    raise ValueError("it is of another array")
            left = _read_journal(partial, torn=True)
            left.blocks = left.blocks[: left.count_sound_blocks(file, len(header))]
            ends = {self._row_bytes * rows for rows in accumulate(blocks)}
            while left.blocks and left.total not in ends:
                left.blocks.pop()
            _write_journal(partial, left)
            allocate_room(file, len(header) + self.nbytes)
            return left.total // self._row_bytes
        except (OSError, ValueError):
            shutil.rmtree(partial, ignore_errors=True)
        make_folder(partial)
        try:
            file.write_bytes(header)
            _write_journal(partial, BlockChecksums())
        except OSError as error:
            raise_disk_error(error, file)
            raise
        allocate_room(file, len(header) + self.nbytes)
        return 0

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.shape[1:])) * np.dtype(self.dtype).itemsize

    def _convert_block(self, block: NDArray[Any], rows: int) -> NDArray[Any]:
        """The block as it is stored. Raises ValueError where it does not have its rows."""
        converted = np.ascontiguousarray(block, dtype=self.dtype)
        if converted.shape != (rows, *self.shape[1:]):
            raise ValueError(f"a block of {self.description} has the shape {converted.shape}, expected {(rows, *self.shape[1:])}")
        return converted

    def _make_header(self) -> bytes:
        """The bytes with which the file begins."""
        header = io.BytesIO()
        descr = npy.dtype_to_descr(np.dtype(self.dtype))
        npy.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": self.shape})
        return header.getvalue()


def load_sound_array(folder: Path, file_name: str) -> NDArray[Any] | None:
    """A complete array whose shape is not known, memory-mapped; None where it is absent or damaged."""
    try:
        stored: NDArray[Any] = np.load(folder / file_name, mmap_mode="r", allow_pickle=False)
    except Exception:  # a damaged header may raise whatever its parser can
        return None
    is_sound = CachedArray(folder, file_name, stored.shape, stored.dtype.str, "an array").is_complete
    return stored if is_sound else None


# ---------------------------------------------------------------------------------------------------------------- the journal


def _read_journal(folder: Path, torn: bool = False) -> BlockChecksums:
    """torn: a last line that a kill cut off is left out. Raises OSError or ValueError."""
    lines = (folder / BLOCKS_FILE).read_bytes().decode("ascii").split("\n")
    unfinished = lines.pop()
    if lines[:1] != [_JOURNAL_HEADER] or (unfinished and not torn):
        raise ValueError("it is no list of blocks")
    return BlockChecksums.from_plain([line.split(" ") for line in lines[1:]])


def _write_journal(folder: Path, blocks: BlockChecksums) -> None:
    lines = [_JOURNAL_HEADER, *(f"{end} {checksum}" for end, checksum in blocks.blocks)]
    (folder / BLOCKS_FILE).write_text("\n".join(lines) + "\n", encoding="ascii", newline="")


def _append_to_journal(folder: Path, begin: int, parts: Sequence[NDArray[Any]], sync: bool = False) -> None:
    """Appends the line of the block that these parts are together. begin: where it begins, in bytes"""
    block = BlockChecksums()
    block.add_block(*parts)
    try:
        with (folder / BLOCKS_FILE).open("a", encoding="ascii", newline="") as file:
            file.writelines(f"{begin + end} {checksum}\n" for end, checksum in block.blocks)
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise_disk_error(error, folder)
        raise


# ------------------------------------------------------------------------------------------------- what an entry is of, in words


class FeatureEntryInfo(CacheShape):
    """about.json: which backbone and pixels an entry is of, how it is stored and what computed it.

    The near-duplicate search (study/audit.py) and the forecast (study/cost.py) read it without torch.
    """

    pixels: str
    backbone: str
    weights: str
    dtype: str = "float32"
    engine: str = "torch"


def write_entry_info(folder: Path, info: FeatureEntryInfo) -> None:
    """Writes about.json into an entry that has none, or a damaged one."""
    if read_entry_info(folder) != info:
        write_cache_json(folder / "about.json", info)


def read_entry_info(folder: Path) -> FeatureEntryInfo | None:
    """about.json of an entry; None where it is missing or damaged."""
    return read_cache_json(folder / "about.json", FeatureEntryInfo)
