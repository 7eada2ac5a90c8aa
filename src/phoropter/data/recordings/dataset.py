"""Windows of recordings as a Dataset whose images are rendered on demand.

A row is a window: its id is the recording's id and the second the window begins, its group the subject, its span the seconds it
covers. An image depends on the samples and the View alone (views.py), so its identity is a digest of both, and a recording read
from a file at prediction time gives the same image. Cutting needs the samples, so opening such a dataset reads the recordings,
once a process, however many variants a sweep has.

Left out on purpose: reading recordings one by one. They stay in memory (15 subjects of WESAD are 0.2 GB, 40,000
cardiotocograms 6 GB); what is derived from them does not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, InputProblem, join_words
from phoropter.core.files import digest, digest_array
from phoropter.data.dataset import Dataset, encode_labels
from phoropter.data.labels.label_sets import LabelSets
from phoropter.data.recordings.lazy import LazyRecordings
from phoropter.data.recordings.notes.window_exclusions import count_exclusions
from phoropter.data.recordings.notes.window_notes import describe_dropped, describe_windows
from phoropter.data.recordings.views import RecordingView
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording, SignalStage
from phoropter.signals.windows import WindowTable

RENDERING_VERSION = 1  # raise it when the same samples would give other pixels

Rows = NDArray[np.int64]


class RenderedWindows:
    """A table of windows and the View that renders them. `ids` names the recordings the table's first column indexes."""

    def __init__(self, recordings: LazyRecordings, view: RecordingView, ids: tuple[str, ...], table: WindowTable) -> None:
        self.lazy_recordings, self.view, self.recording_ids, self.table = recordings, view, ids, table

    @cached_property
    def recordings(self) -> list[Recording]:
        """The recordings the table's first column indexes."""
        by_id = {recording.id: recording for recording in self.lazy_recordings.loaded.recordings}
        return [by_id[name] for name in self.recording_ids]

    @cached_property
    def value_ranges(self) -> NDArray[Any] | None:
        """(N, 2) grey scales that span several windows; None where every window has its own."""
        return self.view.compute_value_ranges(self.recordings, self.table)

    @cached_property
    def recording_digests(self) -> list[str]:
        """A digest of each recording."""
        return [self.lazy_recordings.digest_recording(recording) for recording in self.recordings]

    def render_rows(self, rows: Rows) -> NDArray[np.uint8]:
        """Rows of the table → (m, S, S, 3)."""
        return self.view.render_rows(self.recordings, self.table, rows, self.value_ranges)

    def identity(self, rows: Rows) -> str:
        """A digest of everything the pixels of these rows depend on."""
        recording, span = self.table.recording[rows], np.stack([self.table.start, self.table.stop], axis=1)
        shared = [*self.recording_digests, digest_array(span)] if self.view.pools_grey_scale else []
        names = [self.recording_digests[i] for i in np.unique(recording)]
        places = np.unique(recording, return_inverse=True)[1]
        return digest(
            [
                "rendered",
                RENDERING_VERSION,
                self.view.image_settings,
                names,
                digest_array(places),
                digest_array(span[rows]),
                shared,
            ]
        )

    def __reduce__(self) -> Any:
        return RenderedWindows, (self.lazy_recordings, self.view, self.recording_ids, self.table)


class RenderedPictures:
    """Some rows of RenderedWindows, as the PictureSource of a Dataset."""

    def __init__(self, windows: RenderedWindows, index: Rows) -> None:
        self.windows, self.index = windows, index

    @property
    def pools_grey_scale(self) -> bool:
        """Whether a row's pixels depend on the other windows of its subject."""
        return self.windows.view.pools_grey_scale

    def images(self, rows: Rows) -> NDArray[np.uint8]:
        """(m,) rows → (m, S, S, 3) uint8, rendered as one batch."""
        return self.windows.render_rows(self.index[rows])

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (S, S, 3) uint8."""
        return np.array(self.images(np.array([row]))[0])

    def shape(self, row: int) -> tuple[int, int]:
        """(S, S)."""
        return self.windows.view.representation.size, self.windows.view.representation.size

    def source_signals(self, row: int) -> dict[str, NDArray[np.float32]]:
        """Channel → the samples a row was rendered from, for plots."""
        return self.windows.view.source_signals(self.windows.recordings, self.windows.table, int(self.index[row]))

    def trace_stages(self, row: int) -> list[SignalStage]:
        """A row's window on its way to the picture, for plots."""
        return self.windows.view.trace_stages(self.windows.recordings, self.windows.table, int(self.index[row]))

    @property
    def rate_hz(self) -> float:
        """Samples per second, the same in all recordings."""
        return self.windows.recordings[0].rate_hz

    def unfiltered_signals(self, row: int) -> dict[str, NDArray[np.float32]]:
        """Channel → the cleaned samples of a row's window, without the filters that serve its image."""
        windows = self.windows
        return windows.view.without_filters().source_signals(windows.recordings, windows.table, int(self.index[row]))

    def digests(self, rows: Rows) -> list[str]:
        """A digest of each window's raw samples, equal for windows copied from one recording to another."""
        digests, table = [], self.windows.table
        for at in self.index[rows].tolist():
            samples = self.windows.recordings[int(table.recording[at])].samples
            piece = np.ascontiguousarray(samples[:, max(0, int(table.start[at])) : int(table.stop[at])])
            digests.append(hashlib.blake2b(piece.data, digest_size=16).hexdigest())
        return digests

    def identity(self, rows: Rows) -> str:
        """A digest of the samples and the View."""
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
    subjects: str = "subjects",
    multi_label: LabelSets | None = None,
) -> Dataset:
    """Recordings rendered by a View → the Dataset of their windows.

    unknown:  recordings without a class give rows without a label, as at prediction time; else they are left out and counted
    subjects: what the notes call the groups, in the plural
    multi_label: how several labels of a recording are written in its label, where it has several
    Raises DataError for a recording that cannot be used (listed with on_bad_input "skip"), or when no window is left.
    """
    lazy = recordings if isinstance(recordings, LazyRecordings) else LazyRecordings(_as_loaded, recordings)
    kept, problems, table = _cut_windows(lazy, view, on_bad_input, unknown)
    if not len(table):
        first = str(table.problems[0]) if table.problems else "none has a class"
        why = f"{describe_dropped(table) or first}{_hint_outcomes(kept, view)}"
        raise DataError(f"{name}: none of its {len(kept)} recordings gives a window: {why}")
    labels, classes = _encode_window_labels(kept, table, view.classes, unknown, multi_label)
    windows = RenderedWindows(lazy, view, tuple(recording.id for recording in kept), table)
    sites, parts = _window_column(kept, table, "site"), _window_column(kept, table, "part")
    return Dataset(
        name=name,
        ids=_window_ids(kept, table),
        labels=labels,
        classes=classes,
        pictures=RenderedPictures(windows, np.arange(len(table), dtype=np.int64)),
        groups=_window_column(kept, table, "subject"),
        sites=sites if (sites != "").any() else None,
        parts=parts if (parts != "").any() else None,
        spans=np.stack([table.start, table.stop], axis=1) / kept[0].rate_hz,
        recordings=_window_column(kept, table, "id"),
        problems=(*problems, *table.problems),
        notes=(*notes, *lazy.loaded.notes, *describe_windows(kept, view, table, subjects)),
        exclusions=count_exclusions(lazy.loaded, kept, table),
    )


def _hint_outcomes(recordings: Sequence[Recording], view: RecordingView) -> str:
    """How classes are made of the outcomes of recordings without labels; nothing where there are none."""
    keys = list(dict.fromkeys(key for recording in recordings for key in recording.outcome))
    if view.outcome is not None or not keys or any(recording.label or recording.spans for recording in recordings):
        return ""
    return f"; they have outcomes ({join_words(keys, 5)}), and a rule makes classes of one, as in `outcome: {keys[0]}<=NUMBER`"


def subsample_windows(dataset: Dataset, count: int) -> Dataset:
    """At most `count` windows, evenly spaced within each class of each recording, so that every subject stays.

    Where that leaves fewer than two of each, whole groups are left out instead (Dataset.sample).
    """
    return dataset.note_exclusion(_subsample_windows(dataset, count), f"beyond max_samples of {count:,}")


def _subsample_windows(dataset: Dataset, count: int) -> Dataset:
    if count >= len(dataset) or dataset.recordings is None:
        return dataset.sample(count)
    _, cell = np.unique([f"{r}\x1f{k}" for r, k in zip(dataset.recordings, dataset.label_sets, strict=True)], return_inverse=True)
    sizes = np.bincount(cell)
    if 2 * len(sizes) > count:
        return dataset.sample(count)
    quota = np.maximum(np.minimum(2, sizes), np.floor(count * sizes / sizes.sum()).astype(np.int64))
    while quota.sum() > count:
        quota[np.argmax(quota / sizes * (quota > 2))] -= 1
    rows = [np.flatnonzero(cell == place)[_evenly_spaced(int(sizes[place]), int(quota[place]))] for place in range(len(sizes))]
    return dataset.select_rows(np.sort(np.concatenate(rows)))


def _as_loaded(recordings: LoadedRecordings | Sequence[Recording]) -> LoadedRecordings:
    return recordings if isinstance(recordings, LoadedRecordings) else LoadedRecordings(list(recordings))


def _cut_windows(
    lazy: LazyRecordings, view: RecordingView, on_bad_input: OnBadInput, unknown: bool
) -> tuple[list[Recording], list[InputProblem], WindowTable]:
    """The usable recordings, the problems of the others, and the table of windows."""
    name = digest(["windows", view.window_settings, on_bad_input, unknown])
    if name not in lazy.memo:
        kept, problems = _select_usable(lazy.loaded, view, on_bad_input)
        table = view.build_window_table(kept, unknown)
        _raise_on_problems(table.problems, on_bad_input)
        lazy.memo[name] = kept, problems, table
    result: tuple[list[Recording], list[InputProblem], WindowTable] = lazy.memo[name]
    return result


def _select_usable(
    loaded: LoadedRecordings, view: RecordingView, on_bad_input: OnBadInput
) -> tuple[list[Recording], list[InputProblem]]:
    """The recordings the View can render, all at the rate most of them have."""
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
        raise DataError(f"none of {len(loaded.recordings) + len(loaded.problems)} recordings can be rendered{first}")
    return kept, problems


def _raise_on_problems(problems: Sequence[InputProblem], on_bad_input: OnBadInput) -> None:
    if problems and on_bad_input == "stop":
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"recording {problems[0]}{more}; or say on_bad_input: skip")


def _encode_window_labels(
    recordings: Sequence[Recording],
    table: WindowTable,
    classes: tuple[str, ...] | None,
    unknown: bool,
    multi_label: LabelSets | None,
) -> tuple[Rows, tuple[str, ...]]:
    """(labels of the windows, their names). At prediction time (`unknown`) a label that is no class is none."""
    names: list[str] = table.label.tolist()
    if multi_label is not None and not unknown:
        return multi_label.encode_cells(names, lambda row: recordings[int(table.recording[row])].id, classes)
    known = set(names) if classes is None or not unknown else set(classes)
    return encode_labels([name if name and name in known else None for name in names], classes)


def _window_ids(recordings: Sequence[Recording], table: WindowTable) -> NDArray[np.str_]:
    """`S2@0700.000`: recording and start in seconds, padded to one width so that ids sort by time."""
    seconds = table.start / recordings[0].rate_hz
    width = len(f"{max(seconds.max(), 0):.3f}")
    names = [recordings[i].id for i in table.recording.tolist()]
    return np.array([f"{name}@{second:0{width}.3f}" for name, second in zip(names, seconds.tolist(), strict=True)])


def _window_column(recordings: Sequence[Recording], table: WindowTable, field: str) -> NDArray[np.str_]:
    return np.array([getattr(recording, field) for recording in recordings], dtype=np.str_)[table.recording]


def _evenly_spaced(size: int, count: int) -> Rows:
    """`count` of 0..size-1, evenly spaced; the middle where count is 1."""
    return ((np.arange(count) + 0.5) * size / count).astype(np.int64)
