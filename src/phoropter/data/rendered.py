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

from phoropter.core.errors import DataError, Problem
from phoropter.core.files import digest, digest_array
from phoropter.data.dataset import Dataset, coded
from phoropter.data.drawn import UNKNOWN, View
from phoropter.signals.recording import Loaded, OnBadInput, Recording
from phoropter.signals.windows import Windows

VERSION = 1  # of the numbers: raise it when the same samples would give another picture
REMEMBERED = 2  # sets of recordings a process keeps

Rows = NDArray[np.int64]


class HeldRecordings:
    """Recordings and the way to get them again: loaded when first asked for, left behind when pickled.

    known: what was found out about them at some cost, so that the variants of a sweep share it
    """

    def __init__(self, load: Callable[..., Loaded], *args: Any) -> None:
        self.load, self.args = load, args
        self.known: dict[str, Any] = {}
        self._loaded: Loaded | None = None
        self._lock = threading.Lock()

    @property
    def loaded(self) -> Loaded:
        """The recordings and the problems of those that could not be read."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self.load(*self.args)
            return self._loaded

    def digest(self, recording: Recording) -> str:
        """A digest of a recording's samples, and of what tells them apart from the same numbers of another kind."""
        name = f"digest of {recording.id}"
        if name not in self.known:
            self.known[name] = digest([digest_array(recording.samples), recording.channels, recording.rate_hz, recording.subject])
        found: str = self.known[name]
        return found

    def __reduce__(self) -> Any:
        return HeldRecordings, (self.load, *self.args)


class Drawing:
    """A View of some recordings: the table of windows, and how each is drawn. `ids` are the recordings the table counts."""

    def __init__(self, held: HeldRecordings, view: View, ids: tuple[str, ...], table: Windows) -> None:
        self.held, self.view, self.ids, self.table = held, view, ids, table

    @cached_property
    def recordings(self) -> list[Recording]:
        """Those the table's first column counts, in order."""
        there = {recording.id: recording for recording in self.held.loaded.recordings}
        return [there[name] for name in self.ids]

    @cached_property
    def ranges(self) -> NDArray[Any] | None:
        """The grey scales that reach over several windows."""
        return self.view.ranges(self.recordings, self.table)

    @cached_property
    def digests(self) -> list[str]:
        """One of each recording."""
        return [self.held.digest(recording) for recording in self.recordings]

    def draw(self, rows: Rows) -> NDArray[np.uint8]:
        """Rows of the table → (m, S, S, 3)."""
        return self.view.draw(self.recordings, self.table, rows, self.ranges)

    def identity(self, rows: Rows) -> str:
        """A digest of everything the pictures of these rows depend on."""
        recording, span = self.table.recording[rows], np.stack([self.table.start, self.table.stop], axis=1)
        pooled = self.view.kind == "strip" and self.view.per_subject
        shared = [*self.digests, digest_array(span)] if pooled else []
        names = [self.digests[i] for i in np.unique(recording)]
        places = np.unique(recording, return_inverse=True)[1]
        return digest(["rendered", VERSION, self.view.drawing, names, digest_array(places), digest_array(span[rows]), shared])

    def __reduce__(self) -> Any:
        return Drawing, (self.held, self.view, self.ids, self.table)


class RenderedPictures:
    """Some rows of a Drawing, as Pictures (dataset.py)."""

    def __init__(self, drawing: Drawing, index: Rows) -> None:
        self.drawing, self.index = drawing, index

    def images(self, rows: Rows) -> NDArray[np.uint8]:
        """(m,) rows → (m, S, S, 3) uint8, drawn together."""
        return self.drawing.draw(self.index[rows])

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (S, S, 3) uint8."""
        return np.array(self.images(np.array([row]))[0])

    def shape(self, row: int) -> tuple[int, int]:
        """(S, S)."""
        return self.drawing.view.picture.size, self.drawing.view.picture.size

    def trace(self, row: int) -> dict[str, NDArray[np.float32]]:
        """What a row was drawn from, by channel, for people."""
        return self.drawing.view.trace(self.drawing.recordings, self.drawing.table, int(self.index[row]))

    def digests(self, rows: Rows) -> list[str]:
        """A digest of each window's raw samples: windows copied from one recording to another are told so."""
        found, table = [], self.drawing.table
        for at in self.index[rows].tolist():
            samples = self.drawing.recordings[int(table.recording[at])].samples
            piece = np.ascontiguousarray(samples[:, max(0, int(table.start[at])) : int(table.stop[at])])
            found.append(hashlib.blake2b(piece.data, digest_size=16).hexdigest())
        return found

    def identity(self, rows: Rows) -> str:
        """A digest of samples and View."""
        return self.drawing.identity(self.index[rows])

    def select(self, rows: Rows) -> RenderedPictures:
        """Only these rows, in this order."""
        return RenderedPictures(self.drawing, self.index[rows])


def rendered(
    recordings: Loaded | HeldRecordings | Sequence[Recording],
    view: View,
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
    held = recordings if isinstance(recordings, HeldRecordings) else HeldRecordings(_same, recordings)
    kept, problems, table = _cut(held, view, on_bad_input, unknown)
    if not len(table):
        raise DataError(f"{name}: none of its {len(kept)} recordings gives a window ({_reasons(table) or 'none has a class'})")
    names = [label or None for label in table.label.tolist()]
    if unknown and view.classes is not None:
        names = [name if name in view.classes else None for name in names]
    labels, classes = coded(names, view.classes)
    drawing = Drawing(held, view, tuple(recording.id for recording in kept), table)
    sites = _column(kept, table, "site")
    return Dataset(
        name=name,
        ids=_ids(kept, table),
        labels=labels,
        classes=classes,
        pictures=RenderedPictures(drawing, np.arange(len(table), dtype=np.int64)),
        groups=_column(kept, table, "subject"),
        sites=sites if (sites != "").any() else None,
        spans=np.stack([table.start, table.stop], axis=1) / kept[0].rate_hz,
        recordings=_column(kept, table, "id"),
        problems=(*problems, *table.problems),
        notes=(*notes, *_notes(kept, view, table)),
    )


def thinned(dataset: Dataset, count: int) -> Dataset:
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
    rows = [np.flatnonzero(cell == place)[_spaced(int(sizes[place]), int(quota[place]))] for place in range(len(sizes))]
    return dataset.rows(np.sort(np.concatenate(rows)))


def remembered(key: Hashable, root: Path | None, load: Callable[..., Loaded], *args: Any) -> HeldRecordings:
    """What `load(*args)` gave before in this process, if no file beside `root` or beside the recordings has changed since."""
    with _lock:
        if key in _memory and _memory[key][1] == _stamp(root, _memory[key][0]):
            _memory.move_to_end(key)
            return _memory[key][0]
        held = HeldRecordings(load, *args)
        held.loaded  # noqa: B018  read here, so that the stamp is that of what was read
        _memory[key] = held, _stamp(root, held)
        while len(_memory) > REMEMBERED:
            _memory.popitem(last=False)
        return held


_memory: OrderedDict[Hashable, tuple[HeldRecordings, Any]] = OrderedDict()
_lock = threading.Lock()


def _same(recordings: Loaded | Sequence[Recording]) -> Loaded:
    return recordings if isinstance(recordings, Loaded) else Loaded(list(recordings))


def _stamp(root: Path | None, held: HeldRecordings) -> Any:
    if root is None:
        return None
    folders = {r.source.parent for r in held.loaded.recordings if r.source is not None} | {root if root.is_dir() else root.parent}
    return [
        sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in folder.iterdir())
        for folder in sorted(folders)
        if folder.is_dir()
    ]


def _cut(
    held: HeldRecordings, view: View, on_bad_input: OnBadInput, unknown: bool
) -> tuple[list[Recording], list[Problem], Windows]:
    """The usable recordings, the problems of the others, and the table of windows."""
    name = digest(["windows", view.cutting, on_bad_input, unknown])
    if name not in held.known:
        kept, problems = _usable(held.loaded, view, on_bad_input)
        table = view.windows(kept, unknown)
        _refuse(table.problems, on_bad_input)
        held.known[name] = kept, problems, table
    found: tuple[list[Recording], list[Problem], Windows] = held.known[name]
    return found


def _usable(loaded: Loaded, view: View, on_bad_input: OnBadInput) -> tuple[list[Recording], list[Problem]]:
    """The recordings the View can be drawn of, all at the rate most of them have."""
    kept: list[Recording] = []
    problems = list(loaded.problems)
    usual = Counter(recording.rate_hz for recording in loaded.recordings).most_common(1)
    for recording in loaded.recordings:
        try:
            view.check(recording)
            if recording.rate_hz != usual[0][0]:
                raise DataError(
                    f"recording {recording.id}: its rate is {recording.rate_hz:g} Hz, that of most is {usual[0][0]:g} Hz"
                )
        except DataError as error:
            if on_bad_input == "stop":
                raise DataError(f"{error}; or say on_bad_input: skip") from None
            problems.append(Problem(recording.id, str(error).removeprefix(f"recording {recording.id}: ")))
            continue
        kept.append(recording)
    if not kept:
        first = f"; the first: {problems[0]}" if problems else ""
        raise DataError(f"none of {len(loaded.recordings)} recordings can be drawn{first}")
    return kept, problems


def _refuse(problems: Sequence[Problem], on_bad_input: OnBadInput) -> None:
    if problems and on_bad_input == "stop":
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"recording {problems[0]}{more}; or say on_bad_input: skip")


def _ids(recordings: Sequence[Recording], table: Windows) -> NDArray[np.str_]:
    """`S2@0700.000`: the recording and the second a window begins, as wide for all, so that their order is that of time."""
    seconds = table.start / recordings[0].rate_hz
    width = len(f"{max(seconds.max(), 0):.3f}")
    names = [recordings[i].id for i in table.recording.tolist()]
    return np.array([f"{name}@{second:0{width}.3f}" for name, second in zip(names, seconds.tolist(), strict=True)])


def _column(recordings: Sequence[Recording], table: Windows, field: str) -> NDArray[np.str_]:
    return np.array([getattr(recording, field) for recording in recordings], dtype=np.str_)[table.recording]


def _notes(recordings: Sequence[Recording], view: View, table: Windows) -> list[str]:
    """How it was drawn, what was left out and why, and how much was not measured."""
    hours = sum(recording.duration_s for recording in recordings) / 3600
    missing = float(np.average([view.missing(r) for r in recordings], weights=[r.length for r in recordings]))
    unknown = int((table.label == UNKNOWN).sum())
    subjects = len({r.subject for r in recordings})
    return [
        f"{len(recordings)} recordings of {subjects} subjects, {hours:.1f} hours, {missing:.1%} missing",
        view.words,
        *([f"left out: {_reasons(table)}"] if table.dropped else []),
        *([f"{unknown} windows of no known class"] if unknown else []),
    ]


def _reasons(table: Windows) -> str:
    return ", ".join(f"{count} ({_WHY.get(reason, reason)})" for reason, count in sorted(table.dropped.items()))


def _spaced(size: int, count: int) -> Rows:
    """`count` of 0..size-1, evenly spaced, the middle for one."""
    return ((np.arange(count) + 0.5) * size / count).astype(np.int64)


_WHY = {
    "nan": "windows with missing samples",
    "edge": "events too near to an end of the recording",
    "no_label": "recordings whose class is unknown",
    "invalid": "records without any heart rate",
    "too_short": "records shorter than a window",
    "missing": "windows with more missing than allowed",
}
