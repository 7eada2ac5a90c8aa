"""Notes on the windows of a dataset: how they were drawn, what was left out, and what looks wrong in the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from phoropter.data.recordings.views import UNKNOWN_CLASS, CtgView, RecordingView
from phoropter.signals.quality.clipping import count_clipped_samples
from phoropter.signals.quality.sentinels import find_sentinel_values, format_sample
from phoropter.signals.recording import Recording
from phoropter.signals.windows import WindowTable, find_flat_windows

Sentinels = dict[str, list[dict[float, int]]]  # channel → of each recording the values far from all others → how many samples


def describe_windows(recordings: Sequence[Recording], view: RecordingView, table: WindowTable, subjects: str) -> list[str]:
    """How windows were rendered, what was left out and why, and how much was not measured. subjects: the groups, in the plural"""
    hours = sum(recording.duration_s for recording in recordings) / 3600
    missing = float(np.average([view.missing_fraction(r) for r in recordings], weights=[r.length for r in recordings]))
    unknown = int((table.label == UNKNOWN_CLASS).sum())
    count = len({r.subject for r in recordings})
    far = _find_sentinels(recordings, view)
    return [
        f"{len(recordings)} recordings of {count} {subjects}, {hours:.1f} hours, {missing:.1%} missing",
        view.summary_text,
        *([f"left out: {describe_dropped(table)}"] if table.dropped else []),
        *([f"{unknown} windows of no known class"] if unknown else []),
        *_describe_flat(recordings, view, table),
        *_describe_sentinels(recordings, far),
        *_describe_clipped(recordings, view, far),
        *_describe_units(recordings, view),
        *_describe_readings(recordings),
    ]


def describe_dropped(table: WindowTable) -> str:
    """What was left out of a table of windows, with counts."""
    return ", ".join(f"{count} ({_DROP_REASONS.get(reason, reason)})" for reason, count in sorted(table.dropped.items()))


def _describe_flat(recordings: Sequence[Recording], view: RecordingView, table: WindowTable) -> list[str]:
    """A note for each channel that has one value throughout some windows."""
    notes = []
    for channel in view.measured_channels:
        flat = find_flat_windows(recordings, table, channel)
        if flat.any():
            names = [recordings[at].id for at in np.unique(table.recording[flat]).tolist()]
            notes.append(
                f"flat: {channel} has one value throughout in {int(flat.sum())} of {len(flat)} windows, of {_list_ids(names)}; "
                "was the lead off?"
            )
    return notes


def _find_sentinels(recordings: Sequence[Recording], view: RecordingView) -> Sentinels:
    """Values that may stand for a missing sample. A heart rate out of range is taken out by its own rules."""
    channels = view.measured_channels[isinstance(view, CtgView) :]
    return {channel: [find_sentinel_values(recording.channel(channel)) for recording in recordings] for channel in channels}


def _describe_sentinels(recordings: Sequence[Recording], far: Sentinels) -> list[str]:
    """A note for each value that may stand for a missing sample."""
    notes = []
    for channel, values in far.items():
        found: dict[float, dict[str, int]] = {}
        for recording, counts in zip(recordings, values, strict=True):
            if any(note.startswith(f"WARNING: {channel} ") for note in recording.notes):
                continue  # told before it was resampled
            for value, count in counts.items():
                found.setdefault(value, {})[recording.id] = count
        notes += [_describe_sentinel(channel, value, of_ids) for value, of_ids in sorted(found.items())]
    return notes


def _describe_sentinel(channel: str, value: float, counts: Mapping[str, int]) -> str:
    text, total = format_sample(value), sum(counts.values())
    return (
        f"WARNING: {channel} is {text} in {total:,} sample{'s' * (total > 1)} of {_list_ids(list(counts))}, far from all others, "
        f"and is drawn so: if it means a missing sample, say missing: [{text}]"
    )


def _describe_clipped(recordings: Sequence[Recording], view: RecordingView, far: Sentinels) -> list[str]:
    """A note for each channel that was clipped; of cardiotocograms none, whose contractions rest at their smallest value."""
    notes = []
    for channel in () if isinstance(view, CtgView) else view.measured_channels:
        counts = {}
        for recording, values in zip(recordings, far[channel], strict=True):
            samples = recording.channel(channel)
            measured = np.where(np.isin(samples, list(values)), np.nan, samples) if values else samples
            if clipped := count_clipped_samples(measured):
                counts[recording.id] = clipped
        if counts:
            notes.append(
                f"clipped: {channel} stays at its largest or smallest value in {sum(counts.values()):,} samples of "
                f"{_list_ids(list(counts))}; was the recorder's range too small?"
            )
    return notes


def _describe_units(recordings: Sequence[Recording], view: RecordingView) -> list[str]:
    """A note for each channel whose unit differs from recording to recording."""
    notes = []
    for channel in view.measured_channels:
        ids: dict[str, list[str]] = {}
        spelt: dict[str, str] = {}
        for recording in recordings:
            unit = recording.units[recording.channel_index(channel)]
            key = unit.replace("µ", "u").replace("μ", "u").casefold()
            if key:
                ids.setdefault(key, []).append(recording.id)
                spelt.setdefault(key, unit)
        if len(ids) > 1:
            which = " and ".join(f"in {spelt[key]} in {_list_ids(names)}" for key, names in ids.items())
            notes.append(f"{channel} is {which}, and was not converted")
    return notes


def _describe_readings(recordings: Sequence[Recording]) -> list[str]:
    """What reading changed or left out, with the recordings it concerns."""
    ids: dict[str, list[str]] = {}
    for recording in recordings:
        for note in recording.notes:
            ids.setdefault(note, []).append(recording.id)
    return [f"{note}: in {_list_ids(names)}" for note, names in ids.items()]


def _list_ids(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} recording{'s' if len(names) > 1 else ''} ({', '.join(names[:3])}{more})"


_DROP_REASONS = {
    "nan": "windows with missing samples",
    "edge": "events too near to an end of the recording",
    "no_label": "recordings whose class is unknown",
    "invalid": "records without any heart rate",
    "too_short": "records shorter than a window",
    "missing": "windows with more missing than allowed",
}
