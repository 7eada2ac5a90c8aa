"""Dataset → Pixels: every picture decoded once to (3, S, S) uint8, kept in one memory-mapped file, found again by contents.

    CACHE/pixels/IDENTITY/pixels.u8     (N, 3, S, S) uint8, C order: the pictures that could be read
                          index.json    shape, and which rows were bad and why
    CACHE/pixels/IDENTITY.partial/      the same, being written; its `done.json` says how far, so a killed run goes on there
    CACHE/pixels/IDENTITY.lock          held by the one process that writes

The identity is a digest of the pictures' contents and ids, the size, how they become square, and VERSION: never of paths,
labels or workers. Rows are written in order and a bad one is left out, so the file only grows; what is half done lies under
another name until it is whole. Memory holds a few shards, whatever the number of pictures.

A set over the budget (`PHOROPTER_PIXELS_BUDGET`, default 50 GiB or 80 % of what is free) is streamed instead: see stream.py.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from phoropter.core.cores import count_usable_cores
from phoropter.core.errors import DataError, DiskError, InputProblem
from phoropter.core.files import digest, file_lock, require_space, write_json
from phoropter.data.dataset import Dataset
from phoropter.data.images.decode import Interpolation, ResizeMode, SquareResize
from phoropter.data.images.decode_pool import decode_shards
from phoropter.data.images.pixels import Pixels

VERSION = 1  # of the numbers: raise it when the same picture would give other pixels
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
    """Decodes what is not decoded yet; returns the dataset without bad rows, and its pixels, row for row.

    cache:    the shared cache; pixels lie in its folder `pixels`
    progress: called as progress(done, total) in this thread
    Raises DataError for the first picture that cannot be read, unless `on_bad_input` is "skip": then it is in `.problems`.
    """
    place = PixelCacheEntry.for_dataset(dataset, SquareResize(size, resize, interpolation), cache)
    fits = place.bytes_needed(len(dataset)) <= pixel_budget_bytes(place.folder)
    if (there := place.load(dataset, on_bad_input)) and there[1].stored >= fits:
        return there
    with _explain_disk_errors(place), file_lock(place.lock_file):
        if (there := place.load(dataset, on_bad_input)) and there[1].stored >= fits:
            return there
        _remove_stale_partials(place)
        work = _DecodeJob(dataset, place, workers or count_usable_cores(), on_bad_input, progress)
        if fits:
            _decode_to_cache(work)
        else:
            _decode_to_check(work)
        there = place.load(dataset, on_bad_input)
    assert there, f"{place.folder} was written and is gone"
    return there


def load_cached_pixels(
    dataset: Dataset,
    size: int,
    *,
    resize: ResizeMode = "center-crop",
    interpolation: Interpolation = "bicubic",
    cache: Path,
    on_bad_input: str = "stop",
) -> tuple[Dataset, Pixels] | None:
    """What `prepare` gave before for the same contents, without decoding; None when it has not been called yet."""
    return PixelCacheEntry.for_dataset(dataset, SquareResize(size, resize, interpolation), cache).load(dataset, on_bad_input)


def pixel_budget_bytes(folder: Path) -> int:
    """Bytes pixels may take in a folder: `PHOROPTER_PIXELS_BUDGET` (200MB, 50GiB, 0), else 50 GiB or 80 % of what is free."""
    if named := os.environ.get("PHOROPTER_PIXELS_BUDGET", "").strip():
        return _parse_bytes(named)
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return min(BUDGET_BYTES, int(BUDGET_FREE_FRACTION * shutil.disk_usage(there).free))


def _parse_bytes(text: str) -> int:
    number = text.lower().rstrip("bi ")
    unit = number[-1:] if number[-1:] in "kmgt" else ""
    step = 1024 if "ib" in text.lower() or text.lower().endswith(unit or "?") else 1000
    try:
        return int(float(number.removesuffix(unit)) * step ** " kmgt".index(unit or " "))
    except (ValueError, OverflowError):
        raise DiskError(f"PHOROPTER_PIXELS_BUDGET is '{text}', expected bytes such as 20GB or 50GiB") from None


@dataclass(frozen=True)
class PixelCacheEntry:
    """Where the pixels of one dataset at one size lie."""

    folder: Path
    square: SquareResize
    identity: str

    @classmethod
    def for_dataset(cls, dataset: Dataset, square: SquareResize, cache: Path) -> PixelCacheEntry:
        """The place of a dataset's pixels; asks for its contents, which reads every file once in its life."""
        identity = digest(["pixels", VERSION, dataset.content_digest, square.size, square.resize, square.interpolation])
        return cls(cache / "pixels" / identity, square, identity)

    @property
    def partial_folder(self) -> Path:
        """What is being written."""
        return self.folder.with_name(f"{self.identity}.partial")

    @property
    def lock_file(self) -> Path:
        """Held while writing."""
        return self.folder.with_name(f"{self.identity}.lock")

    def bytes_needed(self, count: int) -> int:
        """Bytes of `count` squares."""
        return count * 3 * self.square.size**2

    def load(self, dataset: Dataset, on_bad_input: str) -> tuple[Dataset, Pixels] | None:
        """(Dataset without its bad rows, Pixels), or None when they are not there yet."""
        try:
            index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
            bad = [(int(row), str(what)) for row, what in index["bad"]]
            size = (self.folder / "pixels.u8").stat().st_size if index["stored"] else 0
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if index["stored"] and size != self.bytes_needed(len(dataset) - len(bad)):
            return None
        kept = _drop_bad_rows(dataset, bad, on_bad_input)
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
        raise DataError(f"{bad[0][1]}{more}; or say on_bad_input: skip")


def _decode_to_cache(work: _DecodeJob) -> None:
    """Decodes into the partial folder, from where a killed run stopped, and gives it its name when it is whole."""
    place, count = work.entry, len(work.dataset)
    row_bytes = place.bytes_needed(1)
    done, bad = _resume_partial(place, row_bytes)
    require_space(place.partial_folder, (count - done) * row_bytes, f"keeping {count} pictures at {place.square.size} pixels")
    work.report_progress(done)
    with (
        (place.partial_folder / "pixels.u8").open("ab") as file,
        closing(decode_shards(work.dataset, place.square, done, work.workers)) as stream,
    ):
        saved = time.monotonic()
        for shard in stream:
            _raise_on_bad_rows(shard.bad_rows, work.on_bad_input)
            bad += shard.bad_rows
            file.write(shard.squares.data)
            done = shard.stop
            if time.monotonic() - saved > CHECKPOINT_S:
                _save_checkpoint(place, file, done, bad)
                saved = time.monotonic()
            work.report_progress(done)
        _save_checkpoint(place, file, done, bad)
    _publish_partial(place, count, bad, stored=True)


def _decode_to_check(work: _DecodeJob) -> None:
    """A set that is streamed is decoded once without keeping it, so that no bad picture turns up in the middle of a study."""
    bad: list[tuple[int, str]] = []
    work.report_progress(0)
    with closing(decode_shards(work.dataset, work.entry.square, 0, work.workers)) as stream:
        for shard in stream:
            _raise_on_bad_rows(shard.bad_rows, work.on_bad_input)
            bad += shard.bad_rows
            work.report_progress(shard.stop)
    work.entry.partial_folder.mkdir(parents=True, exist_ok=True)
    _publish_partial(work.entry, len(work.dataset), bad, stored=False)


@contextmanager
def _explain_disk_errors(place: PixelCacheEntry) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(
                f"{place.partial_folder} could not be written because the disk is full: free some space, or set PHOROPTER_CACHE "
                "to a larger disk, and run the same command again"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DiskError(
                f"{place.folder.parent} may not be written by this user: set PHOROPTER_CACHE to a folder that may"
            ) from None
        raise


def _resume_partial(place: PixelCacheEntry, row_bytes: int) -> tuple[int, list[tuple[int, str]]]:
    """(rows done, bad rows) of a partial folder, its file cut to exactly that; from the beginning when nothing can be trusted."""
    place.partial_folder.mkdir(parents=True, exist_ok=True)
    file = place.partial_folder / "pixels.u8"
    file.touch()
    try:
        note = json.loads((place.partial_folder / "done.json").read_text(encoding="utf-8"))
        done, bad = int(note["done"]), [(int(row), str(what)) for row, what in note["bad"]]
        size = (done - len(bad)) * row_bytes
        if file.stat().st_size < size:
            raise ValueError("the file is shorter than its note says")
    except (OSError, ValueError, KeyError, TypeError):
        done, bad, size = 0, [], 0
    os.truncate(file, size)
    return done, bad


def _save_checkpoint(place: PixelCacheEntry, file: Any, done: int, bad: list[tuple[int, str]]) -> None:
    file.flush()
    os.fsync(file.fileno())  # pixels first: the note must never promise more than lies on the disk
    write_json(place.partial_folder / "done.json", {"done": done, "bad": bad})


def _publish_partial(place: PixelCacheEntry, count: int, bad: list[tuple[int, str]], stored: bool) -> None:
    write_json(place.partial_folder / "index.json", {"rows": count, "size": place.square.size, "stored": stored, "bad": bad})
    (place.partial_folder / "done.json").unlink(missing_ok=True)
    if place.folder.exists():  # damaged, or streamed until now: `load` would have taken it otherwise
        shutil.rmtree(place.folder, ignore_errors=True)
    place.partial_folder.rename(place.folder)


def _remove_stale_partials(place: PixelCacheEntry) -> None:
    """Removes what other, killed runs began over a week ago: their pictures have changed since, or nobody came back."""
    for stale in place.folder.parent.glob("*.partial"):
        if stale != place.partial_folder and time.time() - stale.stat().st_mtime > STALE_S:
            other = file_lock(stale.with_suffix(".lock"))
            try:
                other.acquire(timeout=0)
            except TimeoutError:
                continue
            shutil.rmtree(stale, ignore_errors=True)
            other.release()
