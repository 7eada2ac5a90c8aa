"""What a finished classifier is asked about later: picture files and recordings of no study, read by the rules of its training.

Recordings go through `rendered` and pictures through `shards`, as in a study, with the View and the Square the bundle remembers;
so the same samples give the same pixels. Labels are not needed; where a recording has some of a known class, windows are cut
where training cut them, else everywhere.

Left out: packed pictures (npz, Parquet, CIFAR), which are asked about in a study with `split: test-only`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, InputProblem
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.images.decode import SquareResize
from phoropter.data.images.decode_pool import decode_shards
from phoropter.data.images.pixels import Pixels, check_row_range
from phoropter.data.recordings.bundle_view import BundleView
from phoropter.data.recordings.database import Database
from phoropter.data.recordings.dataset import render_recordings
from phoropter.data.recordings.files import read_recording_paths
from phoropter.data.recordings.views import CtgView, RecordingView
from phoropter.data.sources.folder import normalize_unicode, scan_folder
from phoropter.data.sources.storage import FilePictures
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording

CHUNK_PICTURES = 512  # pictures in memory at once


class InMemoryPixels(Pixels):
    """(N, 3, S, S) uint8 in memory, of pictures that are asked about once; in no file, and with no name to be found again by."""

    stored = False

    def __init__(self, squares: NDArray[np.uint8]) -> None:
        super().__init__(Path(), (len(squares), 3, squares.shape[2], squares.shape[3]), "asked once")
        self._array = squares

    @property
    def array(self) -> NDArray[np.uint8]:
        return self._array

    def batch(self, rows: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        return np.take(self._array, check_row_range(rows, len(self)), axis=0, out=out, mode="clip")

    def read_each(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        return [self._array[row] for row in check_row_range(rows, len(self)).tolist()]


@dataclass(frozen=True, eq=False)
class DecodedChunk:
    """Some rows of a dataset and their pixels; the rows that could not be decoded, and why."""

    rows: NDArray[np.int64]
    pixels: InMemoryPixels
    problems: list[InputProblem]


def decode_in_chunks(dataset: Dataset, square: SquareResize, on_bad_input: OnBadInput, workers: int) -> Iterator[DecodedChunk]:
    """Parts of about TOGETHER pictures, in order. Raises DataError for the first bad picture unless it is to be skipped."""
    first = 0
    squares: list[NDArray[np.uint8]] = []
    bad: list[tuple[int, str]] = []
    done = 0
    for shard in decode_shards(dataset, square, 0, workers):
        if shard.bad_rows and on_bad_input == "stop":
            raise DataError(f"{shard.bad_rows[0][1]}; or say --on-bad-input skip")
        squares.append(shard.squares)
        bad += shard.bad_rows
        done = shard.stop
        if done - first >= CHUNK_PICTURES or done == len(dataset):
            kept = np.setdiff1d(np.arange(first, done, dtype=np.int64), [row for row, _ in bad])
            problems = [InputProblem(str(dataset.ids[row]), what.removeprefix(f"{dataset.ids[row]}: ")) for row, what in bad]
            yield DecodedChunk(kept, InMemoryPixels(np.concatenate(squares)), problems)
            first, squares, bad = done, [], []


def open_pictures(paths: Sequence[Path], classes: tuple[str, ...], on_bad_input: OnBadInput) -> Dataset:
    """Picture files, and all pictures below folders → a Dataset without labels; ids are relative to a lone folder, else as given.

    Raises DataError where there is nothing, or something lost and `on_bad_input` is "stop".
    """
    names: dict[str, str] = {}
    problems: list[InputProblem] = []
    for path in paths:
        if path.is_dir():
            walk = scan_folder(path)
            problems += walk.collect_problems(on_bad_input)
            inside = {normalize_unicode("/".join(name)): "/".join(name) for name in walk.picture_paths}
            alone = len(paths) == 1
            names |= {i if alone else f"{path.as_posix()}/{i}": str((path / name).absolute()) for i, name in inside.items()}
        elif path.is_file():
            names[path.as_posix()] = str(path.absolute())
        else:
            raise DataError(f"there is nothing at {path}; expected a picture, or a folder of pictures")
    if not names:
        raise DataError(f"{paths[0]}: no picture lies there; expected files such as .jpg or .png")
    return Dataset(
        name=_dataset_name(paths),
        ids=np.array(list(names)),
        labels=np.full(len(names), UNLABELLED, dtype=np.int64),
        classes=classes,
        pictures=FilePictures(Path("/"), list(names.values())),
        problems=tuple(problems),
    )


def open_recording_files(
    paths: Sequence[Path], drawn: BundleView, database: Database, classes: tuple[str, ...], on_bad_input: OnBadInput
) -> Dataset:
    """Recordings (files, folders or manifests) → a Dataset of their windows, drawn as those of the study `drawn` is from.

    source: the key that named the study's recordings. Raises DataError for what cannot be used, or is skipped and listed.
    """
    loaded = read_recording_paths(paths, database, drawn.rate_hz, on_bad_input)
    kept, problems = _keep_matching_rate(loaded, drawn.rate_hz, on_bad_input)
    if not kept:
        first = f"; the first: {problems[0]}" if problems else ""
        raise DataError(f"none of the recordings at {_dataset_name(paths)} can be used{first}")
    view, kept = _drop_unknown_labels(drawn.view, kept, classes)
    return render_recordings(
        LoadedRecordings(kept, problems), view, name=_dataset_name(paths), on_bad_input=on_bad_input, unknown=True
    )


def _dataset_name(paths: Sequence[Path]) -> str:
    path = paths[0].absolute()
    return (path.name if path.is_dir() else path.stem) if len(paths) == 1 else f"{len(paths)} paths"


def _keep_matching_rate(
    loaded: LoadedRecordings, rate_hz: float, on_bad_input: OnBadInput
) -> tuple[list[Recording], list[InputProblem]]:
    """Another rate would draw another picture of the same heart."""
    kept, problems = [], list(loaded.problems)
    for recording in loaded.recordings:
        if recording.rate_hz == rate_hz:
            kept.append(recording)
            continue
        what = f"its rate is {recording.rate_hz:g} Hz and the classifier was trained at {rate_hz:g} Hz: resample the file"
        if on_bad_input == "stop":
            raise DataError(f"recording {recording.id}: {what}; or say --on-bad-input skip")
        problems.append(InputProblem(recording.id, what))
    return kept, problems


def _drop_unknown_labels(
    view: RecordingView, recordings: list[Recording], classes: tuple[str, ...]
) -> tuple[RecordingView, list[Recording]]:
    """The View and the recordings with the labels that mean one of the classes; a recording that has none is cut whole."""
    if isinstance(view, CtgView):
        strange = [view.outcome is None and r.label not in classes for r in recordings]
        return view.with_changes(classes=classes), [
            _without_labels(r) if s else r for r, s in zip(recordings, strange, strict=True)
        ]
    if view.outcome is not None:
        return view.with_changes(classes=classes, outcome=None, labels=None), [_without_labels(r) for r in recordings]
    named = view.labels or {name: name for name in classes}
    meant = {word: name for word, name in named.items() if name in classes}
    there = {word for r in recordings for word in _recording_labels(r, events=view.rule is None)}
    present = {meant[word] for word in there if word in meant}
    kept = {word: name for word, name in meant.items() if name in present}
    known = [bool(_recording_labels(r, events=view.rule is None) & set(kept)) for r in recordings]
    spare = [r if k or view.rule is None else _without_labels(r) for r, k in zip(recordings, known, strict=True)]
    return view.with_changes(classes=classes, labels=kept), spare


def _recording_labels(recording: Recording, events: bool) -> set[str]:
    """The labels a recording has: of its events, or of its spans and itself."""
    if events:
        return set() if recording.events is None else set(recording.events.labels.tolist())
    return {s.label for s in recording.spans} or {recording.label or ""}


def _without_labels(recording: Recording) -> Recording:
    return replace(recording, label=None, spans=())
