"""Inputs of a finished classifier: image files and recordings outside any study, prepared as its training data were.

Recordings are rendered by data/recordings/dataset.py and images decoded by data/images/decode_pool.py, as in a study, with the
View and the resizing the bundle records, so the same samples give the same pixels. Labels are not needed. A recording with labels
of known classes is cut into windows where training would have cut it, any other from beginning to end.

Left out: packed images (npz, Parquet, CIFAR). Predict those in a study with `split: test-only`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, InputProblem
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.folders.scan import normalize_unicode, scan_folder
from phoropter.data.images.decode import SquareResize
from phoropter.data.images.decode_pool import decode_shards
from phoropter.data.images.pixels import InMemoryPixels
from phoropter.data.recordings.bundle_view import BundleView
from phoropter.data.recordings.changes import RecordingChanges
from phoropter.data.recordings.database import Database
from phoropter.data.recordings.dataset import render_recordings
from phoropter.data.recordings.files import read_recording_paths
from phoropter.data.recordings.views import CtgView, RecordingView
from phoropter.data.sources.dicom_names import hide_identifiers
from phoropter.data.sources.storage import FilePictures
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording

CHUNK_IMAGES = 512  # decoded images in memory at once


@dataclass(frozen=True, eq=False)
class DecodedChunk:
    """Some rows of a dataset, their pixels, and the problems of rows that could not be decoded."""

    rows: NDArray[np.int64]
    pixels: InMemoryPixels
    problems: list[InputProblem]


def decode_in_chunks(dataset: Dataset, square: SquareResize, on_bad_input: OnBadInput, workers: int) -> Iterator[DecodedChunk]:
    """Chunks of about CHUNK_IMAGES images, in order. Raises DataError for the first bad image under "stop"."""
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
        if done - first >= CHUNK_IMAGES or done == len(dataset):
            kept = np.setdiff1d(np.arange(first, done, dtype=np.int64), [row for row, _ in bad])
            problems = [_name_once(str(dataset.ids[row]), what) for row, what in bad]
            yield DecodedChunk(kept, InMemoryPixels(np.concatenate(squares)), problems)
            first, squares, bad = done, [], []


def _name_once(name: str, what: str) -> InputProblem:
    """The problem of an input, without the place of the same file that the sentence begins with."""
    place, colon, rest = what.partition(": ")
    return InputProblem(name, rest if colon and f"/{place}".endswith(f"/{name}") else what)


def describe_unreadable(name: str, n_inputs: int, problems: Sequence[InputProblem]) -> str:
    """The sentence where nothing can be read. name: of all inputs together"""
    return str(problems[0]) if n_inputs == 1 else f"{name}: none of its {n_inputs} inputs can be read; the first: {problems[0]}"


def open_pictures(paths: Sequence[Path], classes: tuple[str, ...], on_bad_input: OnBadInput) -> Dataset:
    """Image files, and all images below folders → a Dataset without labels.

    Ids are paths relative to the folder where only one is given, else paths as given; of DICOM files, opaque names. Raises
    DataError for a path where there is nothing, and for an unreadable or empty folder under "stop".
    """
    names: dict[str, str] = {}
    problems: list[InputProblem] = []
    for path in paths:
        if path.is_dir():
            walk = scan_folder(path)
            problems += walk.collect_problems(on_bad_input)
            inside = {normalize_unicode("/".join(name)): "/".join(name) for name in walk.picture_paths}
            single = len(paths) == 1
            if not inside and on_bad_input == "stop":
                raise DataError(f"{path}: there is no image; expected files such as .jpg or .png")
            if not inside:
                problems.append(InputProblem(path.as_posix(), "there is no image in this folder"))
            names |= {i if single else f"{path.as_posix()}/{i}": str((path / name).absolute()) for i, name in inside.items()}
        elif path.is_file():
            names[path.as_posix()] = str(path.absolute())
        else:
            raise DataError(f"there is nothing at {path}; expected an image, or a folder of images")
    if not names:
        raise DataError(f"{paths[0]}: there is no image; expected files such as .jpg or .png")
    dataset = Dataset(
        name=_dataset_name(paths),
        ids=np.array(list(names)),
        labels=np.full(len(names), UNLABELLED, dtype=np.int64),
        classes=classes,
        pictures=FilePictures(Path("/"), list(names.values())),
        problems=tuple(problems),
    )
    return hide_identifiers(dataset, read_groups=False)


def open_recording_files(
    paths: Sequence[Path],
    recorded: BundleView,
    database: Database,
    classes: tuple[str, ...],
    on_bad_input: OnBadInput,
    changes: RecordingChanges | None = None,
) -> Dataset:
    """Recordings (files, folders or manifests) → the Dataset of their windows, rendered as those of the bundle's study.

    recorded: the View and rate the bundle records · database: whose readers are used · changes: of names of channels and rate
    Raises DataError for recordings that cannot be used, unless they are skipped and listed.
    """
    loaded = read_recording_paths(paths, database, recorded.rate_hz, on_bad_input, changes)
    return open_loaded_recordings(loaded, recorded, classes, on_bad_input, _dataset_name(paths))


def open_loaded_recordings(
    loaded: LoadedRecordings, recorded: BundleView, classes: tuple[str, ...], on_bad_input: OnBadInput, name: str
) -> Dataset:
    """As `open_recording_files`, of recordings in memory, changed by RecordingChanges already."""
    kept, problems = _keep_matching_rate(loaded, recorded.rate_hz, on_bad_input)
    if not kept:
        first = f"; the first: {problems[0]}" if problems else ""
        raise DataError(f"none of the recordings at {name} can be used{first}")
    view, kept = _drop_unknown_labels(recorded.view, kept, classes)
    return render_recordings(LoadedRecordings(kept, problems), view, name=name, on_bad_input=on_bad_input, unknown=True)


def _dataset_name(paths: Sequence[Path]) -> str:
    path = paths[0].absolute()
    return (path.name if path.is_dir() else path.stem) if len(paths) == 1 else f"{len(paths)} paths"


def _keep_matching_rate(
    loaded: LoadedRecordings, rate_hz: float, on_bad_input: OnBadInput
) -> tuple[list[Recording], list[InputProblem]]:
    """Lists or refuses recordings of another rate, which would give other images of the same signal."""
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
    """Keeps the labels that mean one of the classes; a recording without any is cut into windows from beginning to end."""
    if isinstance(view, CtgView):
        unlabelled = [view.outcome is None and r.label not in classes for r in recordings]
        return view.with_changes(classes=classes), [
            _without_labels(r) if s else r for r, s in zip(recordings, unlabelled, strict=True)
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
    """The labels of a recording's events, or of its spans and of the recording."""
    if events:
        return set() if recording.events is None else set(recording.events.labels.tolist())
    return {s.label for s in recording.spans} or {recording.label or ""}


def _without_labels(recording: Recording) -> Recording:
    return replace(recording, label=None, spans=())


def find_paths(paths: Sequence[Path], on_bad_input: OnBadInput) -> tuple[list[Path], list[InputProblem]]:
    """The paths where something lies, and the others as problems; all of them where that is an error."""
    there = [p for p in paths if p.exists() or p.with_suffix(".hea").exists()]
    if on_bad_input == "stop" or not there:
        return list(paths), []
    return there, [InputProblem(str(p), "there is nothing") for p in paths if p not in there]
