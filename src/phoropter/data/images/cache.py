"""Pixel cache: every picture is decoded once to (3, S, S) uint8 and stored in one memory-mapped file, found by contents.

    CACHE/pixels/IDENTITY/pixels.u8     (N, 3, S, S) uint8, C order: the pictures that could be read
                          index.json    shape, which rows were bad and why, which show next to nothing, checksums of the blocks
    CACHE/pixels/IDENTITY.partial/      the same while it is written; `done.json` notes the progress, so that a killed run resumes
    CACHE/pixels/IDENTITY.lock          held by the one process that writes

The identity is a digest of the pictures' contents and ids, the size, the resizing, and VERSION; paths, labels and the number of
workers are not part of it. Rows are written in order and bad ones are left out, so the file only grows; the folder gets its final
name when it is complete. A few shards are in memory, however many pictures there are.

The checksums are of the decoded bytes. Before a study computes with the pixels, all of them are compared, once in each process;
planning reads only the index. A damaged entry is set aside and decoded again.

A dataset over the budget (`PHOROPTER_PIXELS_BUDGET`, default 50 GiB or 80 % of the free disk) is streamed instead: see
streaming.py.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import DiskError
from phoropter.core.files import file_lock, make_folder, require_space
from phoropter.core.storage.checksums import BlockChecksums, remove_path
from phoropter.core.storage.sealed_json import read_cache_json, write_cache_json
from phoropter.data.dataset import Dataset
from phoropter.data.images.cache_entry import PixelCacheEntry, PixelIndex, PixelProgress, RowNotes
from phoropter.data.images.decode import Interpolation, ResizeMode, SquareResize
from phoropter.data.images.decode_pool import decode_shards
from phoropter.data.images.pixels import Pixels

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
    if cached := _load_sound(entry, dataset, on_bad_input, fits):
        return cached
    with _explain_disk_errors(entry), file_lock(entry.lock_file):
        if cached := _load_sound(entry, dataset, on_bad_input, fits):  # another process wrote it meanwhile
            return cached
        entry.set_aside_damaged()
        _remove_stale_partials(entry)
        job = _DecodeJob(dataset, entry, workers or count_usable_cores(), on_bad_input, progress)
        if fits:
            _decode_to_cache(job)
        else:
            _decode_to_check(job)
        cached = entry.load(dataset, on_bad_input)
    assert cached, f"{entry.folder} was written and is gone"
    remove_path(entry.folder.with_name(f"{entry.folder.name}.damaged"))
    return cached


def _load_sound(entry: PixelCacheEntry, dataset: Dataset, on_bad_input: str, fits: bool) -> tuple[Dataset, Pixels] | None:
    """What the cache holds of a dataset, if it is sound, and stored in a file where it fits."""
    cached = entry.load(dataset, on_bad_input)
    return cached if cached and cached[1].stored >= fits and entry.find_damage() is None else None


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


def _decode_to_cache(job: _DecodeJob) -> None:
    """Decodes into the partial folder, from where a killed run stopped, and renames it when it is complete."""
    entry, count = job.entry, len(job.dataset)
    row_bytes = entry.bytes_needed(1)
    done, notes, blocks = _resume_partial(entry, row_bytes)
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
            blocks.add_block(shard.squares.data)
            done = shard.stop
            if time.monotonic() - saved > CHECKPOINT_S:
                _save_checkpoint(entry, file, done, notes, blocks)
                saved = time.monotonic()
            job.report_progress(done)
        _save_checkpoint(entry, file, done, notes, blocks)
    _publish_partial(entry, count, notes, blocks)


def _decode_to_check(job: _DecodeJob) -> None:
    """Decodes every picture without storing it, so that no bad picture turns up in the middle of a study on streamed pixels."""
    notes = RowNotes()
    job.report_progress(0)
    with closing(decode_shards(job.dataset, job.entry.square, 0, job.workers)) as stream:
        for shard in stream:
            notes.add_shard(shard, job.on_bad_input)
            job.report_progress(shard.stop)
    job.entry.partial_folder.mkdir(parents=True, exist_ok=True)
    _publish_partial(job.entry, len(job.dataset), notes, None)


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
            reason = "lies on a read-only file system" if error.errno == errno.EROFS else "may not be written by this user"
            raise DiskError(f"{entry.folder.parent} {reason}: set PHOROPTER_CACHE to a folder that may be written") from None
        raise


def _resume_partial(entry: PixelCacheEntry, row_bytes: int) -> tuple[int, RowNotes, BlockChecksums]:
    """Rows done of a partial folder, their notes and their blocks, with its file cut to these rows; 0 rows where the note or one
    of the blocks cannot be used."""
    make_folder(entry.partial_folder)
    file = entry.partial_folder / "pixels.u8"
    file.touch()
    note = read_cache_json(entry.partial_folder / "done.json", PixelProgress)
    blocks = BlockChecksums([] if note is None else note.blocks)
    rows = 0 if note is None else note.done - len(note.bad)
    if note is None or blocks.total != rows * row_bytes or blocks.count_sound_blocks(file) < len(blocks.blocks):
        os.truncate(file, 0)
        return 0, RowNotes(), BlockChecksums()
    os.truncate(file, blocks.total)
    return note.done, RowNotes(note.bad, note.blank), blocks


def _save_checkpoint(entry: PixelCacheEntry, file: Any, done: int, notes: RowNotes, blocks: BlockChecksums) -> None:
    file.flush()
    os.fsync(file.fileno())  # pixels first: the note must never promise more than is on the disk
    progress = PixelProgress(done=done, bad=notes.bad, blank=notes.blank, blocks=blocks.blocks)
    write_cache_json(entry.partial_folder / "done.json", progress)


def _publish_partial(entry: PixelCacheEntry, count: int, notes: RowNotes, blocks: BlockChecksums | None) -> None:
    """blocks: of the stored pixels; None where they are streamed"""
    index = PixelIndex(
        rows=count,
        size=entry.square.size,
        stored=blocks is not None,
        bad=notes.bad,
        blank=notes.blank,
        blocks=[] if blocks is None else blocks.blocks,
    )
    write_cache_json(entry.partial_folder / "index.json", index)
    (entry.partial_folder / "done.json").unlink(missing_ok=True)
    if entry.folder.exists():  # streamed until now
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
