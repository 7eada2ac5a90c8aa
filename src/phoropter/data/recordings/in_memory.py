"""Recordings that are objects in memory: Recording, MNE's Raw and WFDB's Record → Recording → Dataset.

Neither package is imported: an object is taken by what it offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.core.spec import SourceMap, validate_as
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.changes import RecordingChanges
from phoropter.data.recordings.dataset import render_recordings
from phoropter.data.recordings.lazy import LazyRecordings
from phoropter.data.recordings.spec import RecordingFields, check_recording_options, resolve_recording_view
from phoropter.signals.recording import Events, LoadedRecordings, OnBadInput, Recording, Span

_SOURCE = "recordings"


def from_recordings(
    recordings: Iterable[Any],
    *,
    labels: Sequence[str | None] | None = None,
    subjects: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    size: int | None = None,
    name: str = "recordings",
    on_bad_input: OnBadInput = "stop",
    **options: Any,
) -> Dataset:
    """Recordings in memory → the Dataset of their windows, for `ph.Study(data=...)`.

    recordings: `Recording`, MNE `Raw` and WFDB `Record` objects, all of one sampling rate
    labels:     class of each recording; spans and events of the objects are kept without it
    subjects:   person of each recording (default: every recording is another person's), who is held out together
    sites:      hospital of each recording
    size:       side of the images in pixels (default: 224)
    options:    `window`, `channel`, `representation`, `grey_scale`, `require_r_peaks`, `resample_hz`, `gaps`, `missing`,
                `outcome`, `clean`, `multi_label` as under `data:`

    Raises DataError for objects of another kind, columns of another length, and recordings that give no window.

    >>> dataset = from_recordings(raws, labels=["rest", "task"], subjects=["p1", "p1"], channel="ECG")  # doctest: +SKIP
    """
    objects = list(recordings)
    columns = {"label": labels, "subject": subjects, "site": sites}
    for column, values in columns.items():
        if values is not None and len(values) != len(objects):
            raise DataError(f"from_recordings: {len(values)} {column}s were given for {len(objects)} recordings")
    loaded = LoadedRecordings([_describe_object(at, item, columns) for at, item in enumerate(objects)])
    ids = [recording.id for recording in loaded.recordings]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise DataError(f"from_recordings: the id {twice[0]} came more than once; give the recordings ids of their own")
    fields = validate_as(RecordingFields, options, SourceMap("from_recordings(…)"))
    check_recording_options(fields, _SOURCE)
    changes = RecordingChanges.of(fields)
    changes.check_missing(loaded)
    loaded = changes.apply(loaded, on_bad_input)
    view = resolve_recording_view(fields, _SOURCE, size, loaded.recordings)
    lazy = LazyRecordings(_return_loaded, loaded)
    return render_recordings(lazy, view, name=name, on_bad_input=on_bad_input, multi_label=fields.multi_label)


def as_recording(item: Any, id: str | None = None) -> Recording:
    """A Recording, MNE `Raw` or WFDB `Record` → Recording. Raises DataError for anything else.

    id: of an object that has no name of its own; by default "recording"
    """
    if isinstance(item, Recording):
        return item
    if _is_mne_raw(item):
        return _convert_mne_raw(item, id or "recording")
    if _is_wfdb_record(item):
        return _convert_wfdb_record(item, id or "recording")
    raise DataError(f"expected a Recording, an MNE Raw or a WFDB Record, came {type(item).__module__}.{type(item).__name__}")


def looks_like_recording(item: Any) -> bool:
    """Whether `as_recording` takes an object."""
    return isinstance(item, Recording) or _is_mne_raw(item) or _is_wfdb_record(item)


def _describe_object(at: int, item: Any, columns: dict[str, Any]) -> Recording:
    recording = as_recording(item, f"recording-{at + 1:04d}")
    changes = {column: values[at] for column, values in columns.items() if values is not None}
    if changes.get("label") is not None:
        changes["spans"] = ()  # they would win over the label
    return replace(recording, **changes)


def _return_loaded(loaded: LoadedRecordings) -> LoadedRecordings:
    return loaded


# --- MNE --------------------------------------------------------------------------------------------------------------


def _is_mne_raw(item: Any) -> bool:
    return all(hasattr(item, name) for name in ("get_data", "info", "ch_names", "annotations"))


def _convert_mne_raw(raw: Any, id: str) -> Recording:
    """MNE's annotations become spans, or events where they last no time; samples annotated as "bad…" count as missing."""
    samples = np.array(raw.get_data(), np.float32, order="C")
    rate_hz = float(raw.info["sfreq"])
    files = [file for file in (getattr(raw, "filenames", None) or ()) if file is not None]
    name = Path(files[0]).stem if files else id
    spans, moments = [], []
    for first, last, label in _annotation_samples(raw, rate_hz, samples.shape[1]):
        if label.lower().startswith("bad"):
            samples[:, first:last] = np.nan
        elif last > first:
            spans.append(Span(first, last, label))
        elif first < samples.shape[1]:
            moments.append((first, label))
    channels = tuple(raw.ch_names)
    return Recording(
        name, name, samples, channels, ("V",) * len(channels), rate_hz, spans=tuple(sorted(spans)), events=_make_events(moments)
    )


def _annotation_samples(raw: Any, rate_hz: float, length: int) -> Iterable[tuple[int, int, str]]:
    """(first, last, label) of every annotation, clipped to the recording.

    Onsets count from the start of the measurement where it is dated, and from the first sample of the object otherwise.
    """
    notes = raw.annotations
    offset_s = float(getattr(raw, "first_time", 0.0)) if getattr(notes, "orig_time", None) is not None else 0.0
    for onset_s, duration_s, label in zip(notes.onset, notes.duration, notes.description, strict=True):
        first = round((float(onset_s) - offset_s) * rate_hz)
        last = first + round(float(duration_s) * rate_hz)
        if last >= 0 and first < length:
            yield max(0, first), min(length, last), str(label)


def _make_events(moments: Sequence[tuple[int, str]]) -> Events | None:
    if not moments:
        return None
    ordered = sorted(moments)
    return Events(np.array([at for at, _ in ordered], np.int64), np.array([label for _, label in ordered], np.str_))


# --- WFDB -------------------------------------------------------------------------------------------------------------


def _is_wfdb_record(item: Any) -> bool:
    return all(hasattr(item, name) for name in ("p_signal", "fs", "sig_name", "units"))


def _convert_wfdb_record(record: Any, id: str) -> Recording:
    """Physical samples, converted from digital ones where the record holds only those."""
    physical: NDArray[Any] | None = record.p_signal if record.p_signal is not None else record.dac(return_res=64)
    if physical is None:
        raise DataError(
            f"WFDB record {record.record_name or id}: it holds no signal of one rate; read it with smooth_frames=True"
        )
    samples = np.ascontiguousarray(np.asarray(physical).T, np.float32)
    names = tuple(name or f"channel {i + 1}" for i, name in enumerate(record.sig_name))
    name = record.record_name or id
    return Recording(name, name, samples, names, tuple(record.units), float(record.fs))
