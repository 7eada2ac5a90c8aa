"""Pixel cache: every picture is decoded once to (3, S, S) uint8 and stored in one memory-mapped file, found by contents.

    CACHE/pixels/IDENTITY/pixels.u8     (N, 3, S, S) uint8, C order: the pictures that could be read
                          index.json    shape, which rows were bad and why, and which show next to nothing
    CACHE/pixels/IDENTITY.partial/      the same while it is written; `done.json` notes the progress, so that a killed run resumes
    CACHE/pixels/IDENTITY.lock          held by the one process that writes

The identity is a digest of the pictures' contents and ids, the size, the resizing, and VERSION; paths, labels and the number of
workers are not part of it. Rows are written in order and bad ones are left out, so the file only grows; the folder gets its final
name when it is complete. A few shards are in memory, however many pictures there are.

A dataset over the budget (`PHOROPTER_PIXELS_BUDGET`, default 50 GiB or 80 % of the free disk) is streamed instead: see
streaming.py.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import DataError, DiskError, InputProblem
from phoropter.core.files import digest, file_lock, require_space, write_json
from phoropter.data.dataset import Dataset
from phoropter.data.images.blank import describe_blank_rows
from phoropter.data.images.decode import Interpolation, ResizeMode, SquareResize
from phoropter.data.images.decode_pool import Shard, decode_shards
from phoropter.data.images.pixels import Pixels

VERSION = 2  # raise it when the same picture would give other pixels
CHECKPOINT_S = 5.0
STALE_S = 7 * 24 * 3600.0
BUDGET_BYTES = 50 * 1024**3
BUDGET_FREE_FRACTION = 0.8

DecodeProgress = Callable[[int, int], None]


def prepare_pixels(
    dataset: Dataset,
    size: int,
    *,
    resize: ResizeMode = "center-crop",
    interpolation: Interpolation = "bicubic",
    cache: Path,
    workers: int | None = None,
    on_bad_input: str = "stop",
    progress: DecodeProgress | None = None,
) -> tuple[Dataset, Pixels]:
    """Decodes the rows that are not decoded yet; returns the dataset without bad rows, and its pixels, row for row.

    size:     S, side of the square images in pixels
    cache:    the cache folder; pixels are stored in its folder `pixels`
    progress: called as progress(done, total) in this thread
    Raises DataError for the first picture that cannot be read, unless `on_bad_input` is "skip": then it is in `.problems`.
    Raises DiskError when the disk is full or may not be written.
    """
    entry = PixelCacheEntry.for_dataset(dataset, SquareResize(size, resize, interpolation), cache)
    fits = entry.bytes_needed(len(dataset)) <= pixel_budget_bytes(entry.folder)
    if (cached := entry.load(dataset, on_bad_input)) and cached[1].stored >= fits:
        return cached
    with _explain_disk_errors(entry), file_lock(entry.lock_file):
        if (cached := entry.load(dataset, on_bad_input)) and cached[1].stored >= fits:  # another process wrote it meanwhile
            return cached
        _remove_stale_partials(entry)
        job = _DecodeJob(dataset, entry, workers or count_usable_cores(), on_bad_input, progress)
        if fits:
            _decode_to_cache(job)
        else:
            _decode_to_check(job)
        cached = entry.load(dataset, on_bad_input)
    assert cached, f"{entry.folder} was written and is gone"
    return cached


def load_cached_pixels(
    dataset: Dataset,
    size: int,
    *,
    resize: ResizeMode = "center-crop",
    interpolation: Interpolation = "bicubic",
    cache: Path,
    on_bad_input: str = "stop",
) -> tuple[Dataset, Pixels] | None:
    """What `prepare_pixels` returned before for the same contents, without decoding; None when it has not run yet."""
    return PixelCacheEntry.for_dataset(dataset, SquareResize(size, resize, interpolation), cache).load(dataset, on_bad_input)


def pixel_budget_bytes(folder: Path) -> int:
    """Bytes for pixels in a folder: `PHOROPTER_PIXELS_BUDGET` (200MB, 50GiB, 0), else 50 GiB or 80 % of the free space."""
    if named := os.environ.get("PHOROPTER_PIXELS_BUDGET", "").strip():
        return _parse_bytes(named)
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return min(BUDGET_BYTES, int(BUDGET_FREE_FRACTION * shutil.disk_usage(existing).free))


def _parse_bytes(text: str) -> int:
    number = text.lower().rstrip("bi ")
    unit = number[-1:] if number[-1:] in "kmgt" else ""
    step = 1024 if "ib" in text.lower() or text.lower().endswith(unit or "?") else 1000
    try:
        return int(float(number.removesuffix(unit)) * step ** " kmgt".index(unit or " "))
    except (ValueError, OverflowError):
        raise DiskError(f"PHOROPTER_PIXELS_BUDGET is '{text}', expected bytes such as 20GB or 50GiB") from None


@dataclass
class RowNotes:
    """What decoding found. bad: (row, reason) of rows that cannot be read · blank: (row, what it shows), of blank.py"""

    bad: list[tuple[int, str]] = field(default_factory=list)
    blank: list[tuple[int, str]] = field(default_factory=list)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> RowNotes:
        """Raises KeyError, TypeError or ValueError for anything but the record of a RowNotes."""
        bad, blank = ([(int(row), str(what)) for row, what in record[key]] for key in ("bad", "blank"))
        return cls(bad, blank)

    def add_shard(self, shard: Shard, on_bad_input: str) -> None:
        """Adds the rows of a shard. Raises DataError for a bad one under "stop"."""
        _raise_on_bad_rows(shard.bad_rows, on_bad_input)
        self.bad += shard.bad_rows
        self.blank += shard.blank_rows


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
        """(Dataset without its bad rows, Pixels), or None when they are not cached."""
        try:
            index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
            rows = RowNotes.from_json(index)
            size = (self.folder / "pixels.u8").stat().st_size if index["stored"] else 0
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if index["stored"] and size != self.bytes_needed(len(dataset) - len(rows.bad)):
            return None
        notes = describe_blank_rows(dataset, rows.blank, len(dataset) - len(rows.bad))
        kept = _drop_bad_rows(dataset, rows.bad, on_bad_input)
        kept = replace(kept, notes=(*kept.notes, *(note for note in notes if note not in kept.notes))) if notes else kept
        if index["stored"]:
            shape = (len(kept), 3, self.square.size, self.square.size)
            return kept, Pixels(self.folder / "pixels.u8", shape, self.identity)
        from phoropter.data.images.streaming import StreamedPixels

        return kept, StreamedPixels(kept, self.square, self.identity)


@dataclass(frozen=True)
class _DecodeJob:
    dataset: Dataset
    entry: PixelCacheEntry
    workers: int
    on_bad_input: str
    progress: DecodeProgress | None

    def report_progress(self, done: int) -> None:
        if self.progress:
            self.progress(done, len(self.dataset))


def _drop_bad_rows(dataset: Dataset, bad: list[tuple[int, str]], on_bad_input: str) -> Dataset:
    if not bad:
        return dataset
    _raise_on_bad_rows(bad, on_bad_input)
    rows = np.setdiff1d(np.arange(len(dataset), dtype=np.int64), [row for row, _ in bad])
    if not rows.size:
        raise DataError(f"{dataset.name}: none of its {len(dataset)} pictures can be read; the first: {bad[0][1]}")
    problems = [InputProblem(str(dataset.ids[row]), what.removeprefix(f"{dataset.ids[row]}: ")) for row, what in bad]
    return replace(dataset.select_rows(rows), problems=(*dataset.problems, *problems))


def _raise_on_bad_rows(bad: list[tuple[int, str]], on_bad_input: str) -> None:
    if bad and on_bad_input == "stop":
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise DataError(f"{bad[0][1]}{more}; or set on_bad_input: skip")


def _decode_to_cache(job: _DecodeJob) -> None:
    """Decodes into the partial folder, from where a killed run stopped, and renames it when it is complete."""
    entry, count = job.entry, len(job.dataset)
    row_bytes = entry.bytes_needed(1)
    done, notes = _resume_partial(entry, row_bytes)
    require_space(entry.partial_folder, (count - done) * row_bytes, f"keeping {count} pictures at {entry.square.size} pixels")
    job.report_progress(done)
    with (
        (entry.partial_folder / "pixels.u8").open("ab") as file,
        closing(decode_shards(job.dataset, entry.square, done, job.workers)) as stream,
    ):
        saved = time.monotonic()
        for shard in stream:
            notes.add_shard(shard, job.on_bad_input)
            file.write(shard.squares.data)
            done = shard.stop
            if time.monotonic() - saved > CHECKPOINT_S:
                _save_checkpoint(entry, file, done, notes)
                saved = time.monotonic()
            job.report_progress(done)
        _save_checkpoint(entry, file, done, notes)
    _publish_partial(entry, count, notes, stored=True)


def _decode_to_check(job: _DecodeJob) -> None:
    """Decodes every picture without storing it, so that no bad picture turns up in the middle of a study on streamed pixels."""
    notes = RowNotes()
    job.report_progress(0)
    with closing(decode_shards(job.dataset, job.entry.square, 0, job.workers)) as stream:
        for shard in stream:
            notes.add_shard(shard, job.on_bad_input)
            job.report_progress(shard.stop)
    job.entry.partial_folder.mkdir(parents=True, exist_ok=True)
    _publish_partial(job.entry, len(job.dataset), notes, stored=False)


@contextmanager
def _explain_disk_errors(entry: PixelCacheEntry) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(
                f"{entry.partial_folder} could not be written because the disk is full: free some space, or set PHOROPTER_CACHE "
                "to a larger disk, and run the same command again"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DiskError(
                f"{entry.folder.parent} may not be written by this user: set PHOROPTER_CACHE to a folder that may"
            ) from None
        raise


def _resume_partial(entry: PixelCacheEntry, row_bytes: int) -> tuple[int, RowNotes]:
    """(rows done, their notes) of a partial folder, with its file truncated to these rows; 0 rows when the note is not usable."""
    entry.partial_folder.mkdir(parents=True, exist_ok=True)
    file = entry.partial_folder / "pixels.u8"
    file.touch()
    try:
        note = json.loads((entry.partial_folder / "done.json").read_text(encoding="utf-8"))
        done, notes = int(note["done"]), RowNotes.from_json(note)
        size = (done - len(notes.bad)) * row_bytes
        if file.stat().st_size < size:
            raise ValueError("the file is shorter than the note says")
    except (OSError, ValueError, KeyError, TypeError):
        done, notes, size = 0, RowNotes(), 0
    os.truncate(file, size)
    return done, notes


def _save_checkpoint(entry: PixelCacheEntry, file: Any, done: int, notes: RowNotes) -> None:
    file.flush()
    os.fsync(file.fileno())  # pixels first: the note must never promise more than is on the disk
    write_json(entry.partial_folder / "done.json", {"done": done, **asdict(notes)})


def _publish_partial(entry: PixelCacheEntry, count: int, notes: RowNotes, stored: bool) -> None:
    write_json(entry.partial_folder / "index.json", {"rows": count, "size": entry.square.size, "stored": stored, **asdict(notes)})
    (entry.partial_folder / "done.json").unlink(missing_ok=True)
    if entry.folder.exists():  # damaged, or streamed until now: otherwise `load` had returned it
        shutil.rmtree(entry.folder, ignore_errors=True)
    entry.partial_folder.rename(entry.folder)


def _remove_stale_partials(entry: PixelCacheEntry) -> None:
    """Removes partial folders that killed runs left over a week ago, unless a process holds their lock."""
    for stale in entry.folder.parent.glob("*.partial"):
        if stale != entry.partial_folder and time.time() - stale.stat().st_mtime > STALE_S:
            other = file_lock(stale.with_suffix(".lock"))
            try:
                other.acquire(timeout=0)
            except TimeoutError:
                continue
            shutil.rmtree(stale, ignore_errors=True)
            other.release()
