"""PixelCacheEntry: the pixels of one dataset at one size in the cache (cache.py), their index, and whether they are sound."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from phoropter.core.errors import DataError, InputProblem
from phoropter.core.files import digest
from phoropter.core.storage.checksums import BlockChecksums, print_notice, set_aside
from phoropter.core.storage.sealed_json import CacheShape, read_cache_json
from phoropter.data.dataset import Dataset
from phoropter.data.images.blank import describe_blank_rows
from phoropter.data.images.decode import SquareResize
from phoropter.data.images.decode_pool import Shard
from phoropter.data.images.pixels import Pixels

VERSION = 4  # raise it when the same picture would give other pixels


@dataclass
class RowNotes:
    """What decoding found. bad: (row, reason) of rows that cannot be read · blank: (row, what it shows), of blank.py"""

    bad: list[tuple[int, str]] = field(default_factory=list)
    blank: list[tuple[int, str]] = field(default_factory=list)

    def add_shard(self, shard: Shard, on_bad_input: str) -> None:
        """Adds the rows of a shard. Raises DataError for a bad one under "stop"."""
        raise_on_bad_rows(shard.bad_rows, on_bad_input)
        self.bad += shard.bad_rows
        self.blank += shard.blank_rows


class PixelIndex(CacheShape):
    """index.json. bad, blank: as RowNotes · blocks: where each ends in the file, in bytes, and its checksum"""

    rows: int
    size: int
    stored: bool
    bad: list[tuple[int, str]]
    blank: list[tuple[int, str]]
    blocks: list[tuple[int, str]]


class PixelProgress(CacheShape):
    """done.json: rows decoded so far, and what index.json will tell of them."""

    done: int
    bad: list[tuple[int, str]]
    blank: list[tuple[int, str]]
    blocks: list[tuple[int, str]]


@dataclass(frozen=True)
class PixelCacheEntry:
    """Paths of the pixels of one dataset at one size."""

    folder: Path
    square: SquareResize
    identity: str

    @classmethod
    def for_dataset(cls, dataset: Dataset, square: SquareResize, cache: Path) -> PixelCacheEntry:
        """The entry of a dataset; computes its content digest, which reads every file once."""
        identity = digest(["pixels", VERSION, dataset.content_digest, square.size, square.resize, square.interpolation])
        return cls(cache / "pixels" / identity, square, identity)

    @classmethod
    def find_damage_of(cls, folder: Path) -> str | None:
        """What is wrong with a complete entry of a dataset that is not at hand, in words."""
        index = read_cache_json(folder / "index.json", PixelIndex)
        return cls(folder, SquareResize(index.size if index else 0), folder.name).find_damage()

    @property
    def partial_folder(self) -> Path:
        """The folder while it is written."""
        return self.folder.with_name(f"{self.identity}.partial")

    @property
    def lock_file(self) -> Path:
        """Held while writing."""
        return self.folder.with_name(f"{self.identity}.lock")

    def bytes_needed(self, count: int) -> int:
        """Bytes of `count` squares."""
        return count * 3 * self.square.size**2

    def load(self, dataset: Dataset, on_bad_input: str) -> tuple[Dataset, Pixels] | None:
        """(Dataset without its bad rows, Pixels), or None when they are not cached. The pixels are not read."""
        index = read_cache_json(self.folder / "index.json", PixelIndex)
        if index is None or index.rows != len(dataset) or index.size != self.square.size:
            return None
        rows = RowNotes(index.bad, index.blank)
        if index.stored and not self._fits_index(index):
            return None
        notes = describe_blank_rows(dataset, rows.blank, len(dataset) - len(rows.bad))
        kept = _drop_bad_rows(dataset, rows.bad, on_bad_input)
        kept = replace(kept, notes=(*kept.notes, *(note for note in notes if note not in kept.notes))) if notes else kept
        if index.stored:
            shape = (len(kept), 3, self.square.size, self.square.size)
            return kept, Pixels(self.folder / "pixels.u8", shape, self.identity)
        from phoropter.data.images.streaming import StreamedPixels

        return kept, StreamedPixels(kept, self.square, self.identity)

    def _fits_index(self, index: PixelIndex) -> bool:
        """Whether the pixels have the size that the index tells."""
        try:
            size = (self.folder / "pixels.u8").stat().st_size
        except OSError:
            return False
        return size == self.bytes_needed(index.rows - len(index.bad)) == (index.blocks[-1][0] if index.blocks else 0)

    def find_damage(self) -> str | None:
        """What is wrong with a complete entry, in words. All of it is read, unless this process has done so before."""
        index = read_cache_json(self.folder / "index.json", PixelIndex)
        if index is None:
            return "index.json is missing, damaged or of an earlier version"
        if not index.stored:
            return None
        if not self._fits_index(index):
            return "pixels.u8 does not have the size that index.json tells"
        blocks = BlockChecksums(index.blocks)
        sound = blocks.count_sound_blocks(self.folder / "pixels.u8")
        return None if sound == len(index.blocks) else f"block {sound + 1} of {len(index.blocks)} has another checksum"

    def set_aside_damaged(self) -> None:
        """Renames a damaged entry and says so. The caller holds the lock."""
        if self.folder.exists() and (damage := self.find_damage()) is not None:
            set_aside(self.folder)
            print_notice(f"the decoded pictures in the cache are damaged ({self.folder}: {damage}): they are decoded again")


def _drop_bad_rows(dataset: Dataset, bad: list[tuple[int, str]], on_bad_input: str) -> Dataset:
    if not bad:
        return dataset
    raise_on_bad_rows(bad, on_bad_input)
    rows = np.setdiff1d(np.arange(len(dataset), dtype=np.int64), [row for row, _ in bad])
    if not rows.size:
        raise DataError(f"{dataset.name}: none of its {len(dataset)} pictures can be read; the first: {bad[0][1]}")
    problems = [InputProblem(str(dataset.ids[row]), what.removeprefix(f"{dataset.ids[row]}: ")) for row, what in bad]
    kept = dataset.note_exclusion(dataset.select_rows(rows), "cannot be read")
    return replace(kept, problems=(*dataset.problems, *problems))


def raise_on_bad_rows(bad: list[tuple[int, str]], on_bad_input: str) -> None:
    """Raises DataError for the first of the bad rows, under 'stop'."""
    if bad and on_bad_input == "stop":
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise DataError(f"{bad[0][1]}{more}; or set on_bad_input: skip")
