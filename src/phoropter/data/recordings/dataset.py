"""Recordings, cleaned, cut and rendered, as a Dataset whose pictures are drawn when they are asked for.

A row is a window: its id is the recording's and the second it begins, its group the subject, its span the seconds it covers.
What a picture is depends on samples and View alone (drawn.py), so the identity is a digest of both, and a recording that
comes later as a file is drawn as those of the study were. Cutting needs the samples, so opening such a dataset reads the
recordings; within a process they are read once, whatever the number of variants of a sweep.

Left out on purpose: reading recordings one by one. They lie in memory (15 subjects of WESAD 0.2 GB, 40,000
cardiotocograms 6 GB); what is derived from them does not.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, InputProblem
from phoropter.core.files import digest, digest_array
from phoropter.data.dataset import Dataset, encode_labels
from phoropter.data.recordings.views import UNKNOWN_CLASS, RecordingView
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording
from phoropter.signals.windows import WindowTable

VERSION = 1  # of the numbers: raise it when the same samples would give another picture
MAX_MEMOIZED = 2  # sets of recordings a process keeps

Rows = NDArray[np.int64]


class LazyRecordings:
    """Recordings and the way to get them again: loaded when first asked for, left behind when pickled.

    known: what was found out about them at some cost, so that the variants of a sweep share it
    """

    def __init__(self, load: Callable[..., LoadedRecordings], *args: Any) -> None:
        self.loader, self.args = load, args
        self.memo: dict[str, Any] = {}
        self._loaded: LoadedRecordings | None = None
        self._lock = threading.Lock()

    @property
    def loaded(self) -> LoadedRecordings:
        """The recordings and the problems of those that could not be read."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self.loader(*self.args)
            return self._loaded

    def digest_recording(self, recording: Recording) -> str:
        """A digest of a recording's samples, and of what tells them apart from the same numbers of another kind."""
        name = f"digest of {recording.id}"
        if name not in self.memo:
            self.memo[name] = digest([digest_array(recording.samples), recording.channels, recording.rate_hz, recording.subject])
        found: str = self.memo[name]
        return found

    def __reduce__(self) -> Any:
        return LazyRecordings, (self.loader, *self.args)


class RenderedWindows:
    """A View of some recordings: the table of windows, and how each is drawn. `ids` are the recordings the table counts."""

    def __init__(self, held: LazyRecordings, view: RecordingView, ids: tuple[str, ...], table: WindowTable) -> None:
        self.lazy_recordings, self.view, self.recording_ids, self.table = held, view, ids, table

    @cached_property
    def recordings(self) -> list[Recording]:
        """Those the table's first column counts, in order."""
        there = {recording.id: recording for recording in self.lazy_recordings.loaded.recordings}
        return [there[name] for name in self.recording_ids]

    @cached_property
    def value_ranges(self) -> NDArray[Any] | None:
        """The grey scales that reach over several windows."""
        return self.view.compute_value_ranges(self.recordings, self.table)

    @cached_property
    def recording_digests(self) -> list[str]:
        """One of each recording."""
        return [self.lazy_recordings.digest_recording(recording) for recording in self.recordings]

    def render_rows(self, rows: Rows) -> NDArray[np.uint8]:
        """Rows of the table → (m, S, S, 3)."""
        return self.view.render_rows(self.recordings, self.table, rows, self.value_ranges)

    def identity(self, rows: Rows) -> str:
        """A digest of everything the pictures of these rows depend on."""
        recording, span = self.table.recording[rows], np.stack([self.table.start, self.table.stop], axis=1)
        pooled = self.view.kind == "strip" and self.view.per_subject
        shared = [*self.recording_digests, digest_array(span)] if pooled else []
        names = [self.recording_digests[i] for i in np.unique(recording)]
        places = np.unique(recording, return_inverse=True)[1]
        return digest(
            ["rendered", VERSION, self.view.image_settings, names, digest_array(places), digest_array(span[rows]), shared]
        )

    def __reduce__(self) -> Any:
        return RenderedWindows, (self.lazy_recordings, self.view, self.recording_ids, self.table)


class RenderedPictures:
    """Some rows of a Drawing, as Pictures (dataset.py)."""

    def __init__(self, drawing: RenderedWindows, index: Rows) -> None:
        self.windows, self.index = drawing, index

    def images(self, rows: Rows) -> NDArray[np.uint8]:
        """(m,) rows → (m, S, S, 3) uint8, drawn together."""
        return self.windows.render_rows(self.index[rows])

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (S, S, 3) uint8."""
        return np.array(self.images(np.array([row]))[0])

    def shape(self, row: int) -> tuple[int, int]:
        """(S, S)."""
        return self.windows.view.picture.size, self.windows.view.picture.size

    def source_signals(self, row: int) -> dict[str, NDArray[np.float32]]:
        """What a row was drawn from, by channel, for people."""
        return self.windows.view.source_signals(self.windows.recordings, self.windows.table, int(self.index[row]))

    def digests(self, rows: Rows) -> list[str]:
        """A digest of each window's raw samples: windows copied from one recording to another are told so."""
        found, table = [], self.windows.table
        for at in self.index[rows].tolist():
            samples = self.windows.recordings[int(table.recording[at])].samples
            piece = np.ascontiguousarray(samples[:, max(0, int(table.start[at])) : int(table.stop[at])])
            found.append(hashlib.blake2b(piece.data, digest_size=16).hexdigest())
        return found

    def identity(self, rows: Rows) -> str:
        """A digest of samples and View."""
        return self.windows.identity(self.index[rows])

    def select(self, rows: Rows) -> RenderedPictures:
        """Only these rows, in this order."""
        return RenderedPictures(self.windows, self.index[rows])


def render_recordings(
    recordings: LoadedRecordings | LazyRecordings | Sequence[Recording],
    view: RecordingView,
    *,
    name: str = "recordings",
    on_bad_input: OnBadInput = "stop",
    unknown: bool = False,
    notes: Sequence[str] = (),
) -> Dataset:
    """Recordings drawn by a View → Dataset.

    unknown: recordings without a class give rows without a label, as at prediction time; else they are left out and counted
    Raises DataError for a recording that cannot be used (listed with on_bad_input "skip"), or when no window is left.
    """
    held = recordings if isinstance(recordings, LazyRecordings) else LazyRecordings(_as_loaded, recordings)
    kept, problems, table = _cut_windows(held, view, on_bad_input, unknown)
    if not len(table):
        raise DataError(
            f"{name}: none of its {len(kept)} recordings gives a window ({_describe_dropped(table) or 'none has a class'})"
        )
    names = [label or None for label in table.label.tolist()]
    if unknown and view.classes is not None:
        names = [name if name in view.classes else None for name in names]
    labels, classes = encode_labels(names, view.classes)
    drawing = RenderedWindows(held, view, tuple(recording.id for recording in kept), table)
    sites = _window_column(kept, table, "site")
    return Dataset(
        name=name,
        ids=_window_ids(kept, table),
        labels=labels,
        classes=classes,
        pictures=RenderedPictures(drawing, np.arange(len(table), dtype=np.int64)),
        groups=_window_column(kept, table, "subject"),
        sites=sites if (sites != "").any() else None,
        spans=np.stack([table.start, table.stop], axis=1) / kept[0].rate_hz,
        recordings=_window_column(kept, table, "id"),
        problems=(*problems, *table.problems),
        notes=(*notes, *_describe_dataset(kept, view, table)),
    )


def subsample_windows(dataset: Dataset, count: int) -> Dataset:
    """At most `count` windows, evenly spaced within each class of each recording, so that everybody stays; where that leaves
    fewer than two of each, whole groups are left out instead (Dataset.sample)."""
    if count >= len(dataset) or dataset.recordings is None:
        return dataset.sample(count)
    _, cell = np.unique([f"{r}\x1f{k}" for r, k in zip(dataset.recordings, dataset.labels, strict=True)], return_inverse=True)
    sizes = np.bincount(cell)
    if 2 * len(sizes) > count:
        return dataset.sample(count)
    quota = np.maximum(np.minimum(2, sizes), np.floor(count * sizes / sizes.sum()).astype(np.int64))
    while quota.sum() > count:
        quota[np.argmax(quota / sizes * (quota > 2))] -= 1
    rows = [np.flatnonzero(cell == place)[_evenly_spaced(int(sizes[place]), int(quota[place]))] for place in range(len(sizes))]
    return dataset.select_rows(np.sort(np.concatenate(rows)))


def memoize_recordings(key: Hashable, root: Path | None, load: Callable[..., LoadedRecordings], *args: Any) -> LazyRecordings:
    """What `load(*args)` gave before in this process, if no file beside `root` or beside the recordings has changed since."""
    with _memo_lock:
        if key in _memoized and _memoized[key][1] == _stamp_files(root, _memoized[key][0]):
            _memoized.move_to_end(key)
            return _memoized[key][0]
        held = LazyRecordings(load, *args)
        held.loaded  # noqa: B018  read here, so that the stamp is that of what was read
        _memoized[key] = held, _stamp_files(root, held)
        while len(_memoized) > MAX_MEMOIZED:
            _memoized.popitem(last=False)
        return held


_memoized: OrderedDict[Hashable, tuple[LazyRecordings, Any]] = OrderedDict()
_memo_lock = threading.Lock()


def _as_loaded(recordings: LoadedRecordings | Sequence[Recording]) -> LoadedRecordings:
    return recordings if isinstance(recordings, LoadedRecordings) else LoadedRecordings(list(recordings))


def _stamp_files(root: Path | None, held: LazyRecordings) -> Any:
    if root is None:
        return None
    folders = {r.source.parent for r in held.loaded.recordings if r.source is not None} | {root if root.is_dir() else root.parent}
    return [
        sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in folder.iterdir())
        for folder in sorted(folders)
        if folder.is_dir()
    ]


def _cut_windows(
    held: LazyRecordings, view: RecordingView, on_bad_input: OnBadInput, unknown: bool
) -> tuple[list[Recording], list[InputProblem], WindowTable]:
    """The usable recordings, the problems of the others, and the table of windows."""
    name = digest(["windows", view.window_settings, on_bad_input, unknown])
    if name not in held.memo:
        kept, problems = _select_usable(held.loaded, view, on_bad_input)
        table = view.build_window_table(kept, unknown)
        _raise_on_problems(table.problems, on_bad_input)
        held.memo[name] = kept, problems, table
    found: tuple[list[Recording], list[InputProblem], WindowTable] = held.memo[name]
    return found


def _select_usable(
    loaded: LoadedRecordings, view: RecordingView, on_bad_input: OnBadInput
) -> tuple[list[Recording], list[InputProblem]]:
    """The recordings the View can be drawn of, all at the rate most of them have."""
    kept: list[Recording] = []
    problems = list(loaded.problems)
    usual = Counter(recording.rate_hz for recording in loaded.recordings).most_common(1)
    for recording in loaded.recordings:
        try:
            view.check_recording(recording)
            if recording.rate_hz != usual[0][0]:
                raise DataError(
                    f"recording {recording.id}: its rate is {recording.rate_hz:g} Hz, that of most is {usual[0][0]:g} Hz"
                )
        except DataError as error:
            if on_bad_input == "stop":
                raise DataError(f"{error}; or say on_bad_input: skip") from None
            problems.append(InputProblem(recording.id, str(error).removeprefix(f"recording {recording.id}: ")))
            continue
        kept.append(recording)
    if not kept:
        first = f"; the first: {problems[0]}" if problems else ""
        raise DataError(f"none of {len(loaded.recordings)} recordings can be drawn{first}")
    return kept, problems


def _raise_on_problems(problems: Sequence[InputProblem], on_bad_input: OnBadInput) -> None:
    if problems and on_bad_input == "stop":
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"recording {problems[0]}{more}; or say on_bad_input: skip")


def _window_ids(recordings: Sequence[Recording], table: WindowTable) -> NDArray[np.str_]:
    """`S2@0700.000`: the recording and the second a window begins, as wide for all, so that their order is that of time."""
    seconds = table.start / recordings[0].rate_hz
    width = len(f"{max(seconds.max(), 0):.3f}")
    names = [recordings[i].id for i in table.recording.tolist()]
    return np.array([f"{name}@{second:0{width}.3f}" for name, second in zip(names, seconds.tolist(), strict=True)])


def _window_column(recordings: Sequence[Recording], table: WindowTable, field: str) -> NDArray[np.str_]:
    return np.array([getattr(recording, field) for recording in recordings], dtype=np.str_)[table.recording]


def _describe_dataset(recordings: Sequence[Recording], view: RecordingView, table: WindowTable) -> list[str]:
    """How it was drawn, what was left out and why, and how much was not measured."""
    hours = sum(recording.duration_s for recording in recordings) / 3600
    missing = float(np.average([view.missing_fraction(r) for r in recordings], weights=[r.length for r in recordings]))
    unknown = int((table.label == UNKNOWN_CLASS).sum())
    subjects = len({r.subject for r in recordings})
    return [
        f"{len(recordings)} recordings of {subjects} subjects, {hours:.1f} hours, {missing:.1%} missing",
        view.summary_text,
        *([f"left out: {_describe_dropped(table)}"] if table.dropped else []),
        *([f"{unknown} windows of no known class"] if unknown else []),
    ]


def _describe_dropped(table: WindowTable) -> str:
    return ", ".join(f"{count} ({_DROP_REASONS.get(reason, reason)})" for reason, count in sorted(table.dropped.items()))


def _evenly_spaced(size: int, count: int) -> Rows:
    """`count` of 0..size-1, evenly spaced, the middle for one."""
    return ((np.arange(count) + 0.5) * size / count).astype(np.int64)


_DROP_REASONS = {
    "nan": "windows with missing samples",
    "edge": "events too near to an end of the recording",
    "no_label": "recordings whose class is unknown",
    "invalid": "records without any heart rate",
    "too_short": "records shorter than a window",
    "missing": "windows with more missing than allowed",
}
