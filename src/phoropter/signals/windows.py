"""Windows cut from recordings, as a table.

A window is a row (recording, start, stop, label), never a copy of samples, so overlapping windows of a long recording are cheap
and overlaps can be read off the table.

Left out on purpose: mixing sampling rates (a resampled signal has another spectrogram), and merging classes before runs are
found (two conditions that touch stay two runs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, model_validator

from phoropter.core.errors import DataError, InputProblem, SpecError, did_you_mean, join_words
from phoropter.core.spec import Spec
from phoropter.signals.recording import Recording, label_runs

WindowRow = tuple[int, int, str]  # recording, start, class
# Index of a recording that gives no window → reason → its windows; the last tells why
Windowless = Mapping[int, Mapping[str, int]]


class WindowRule(Spec):
    """How windows follow each other. `step_s` is from start to start, `gap_s` from end to start; give one of them.

    The two readings of the SONIC paper's "window gap of 2 seconds" are step_s=2 (overlap 60 %) and gap_s=2 (none).
    """

    length_s: PositiveFloat = 5.0
    step_s: PositiveFloat | None = None
    gap_s: NonNegativeFloat | None = None

    @model_validator(mode="after")
    def _one_of_step_and_gap(self) -> Self:
        if (self.step_s is None) == (self.gap_s is None):
            raise ValueError("give either step_s (start to start) or gap_s (end to start), and not both")
        return self

    def length_and_step(self, rate_hz: float) -> tuple[int, int]:
        """(length, step) in samples; raises SpecError when one of them is less than a sample."""
        length = round(self.length_s * rate_hz)
        step = round(self.step_s * rate_hz) if self.step_s is not None else length + round((self.gap_s or 0.0) * rate_hz)
        if length < 1 or step < 1:
            step_s = self.step_s if self.step_s is not None else self.length_s + (self.gap_s or 0.0)
            raise SpecError(
                f"windows: length {self.length_s:g} s and step {step_s:g} s should both be at least one sample, which at "
                f"{rate_hz:g} Hz takes {1 / rate_hz:g} s: give longer ones, or correct the rate or the unit of times (time [ms])"
            )
        return length, step


@dataclass(frozen=True, eq=False)
class WindowTable:
    """N windows in order of recording and time, and counts of those left out."""

    recording: NDArray[np.int64]  # (N,) index into the recordings it was made from
    start: NDArray[np.int64]  # (N,) first sample
    stop: NDArray[np.int64]  # (N,) one past the last
    label: NDArray[np.str_]  # (N,) class name
    dropped: Mapping[str, int] = field(default_factory=dict)  # reason → windows
    problems: tuple[InputProblem, ...] = ()  # recordings too short for a window
    windowless: Windowless = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.recording)


def sliding_windows(
    recordings: Sequence[Recording],
    rule: WindowRule,
    labels: Mapping[str, str] | None = None,
    channels: Sequence[str] | None = None,
) -> WindowTable:
    """Windows inside unbroken runs of one label: floor((L - length)/step) + 1 for a run of L samples.

    labels: span label → class name; other labels are left out (None: keep all, under their own names)
    channels: a NaN in one of these drops the window (None: any channel)
    """
    _check_labels(labels, {run.label for r in recordings for run in label_runs(r)})
    length, step = rule.length_and_step(common_sampling_rate(recordings))
    rows: list[WindowRow] = []
    reasons: dict[int, dict[str, int]] = {}
    for index, recording in enumerate(recordings):
        runs = label_runs(recording)
        wanted = [run for run in runs if labels is None or run.label in labels]
        for first, stop, label in wanted:
            name = label if labels is None else labels[label]
            rows += [(index, start, name) for start in range(first, stop - length + 1, step)]
        why = "short_run" if wanted else "other_label" if runs else "no_label"
        reasons[index] = {"too_short" if runs and recording.length < length else why: 0}
    problems = [_too_short_problem(r, rule.length_s) for r in recordings if r.length < length]
    return _drop_nan_windows(recordings, make_window_table(rows, length, {}, problems, reasons), channels)


def event_windows(
    recordings: Sequence[Recording],
    length_s: float,
    labels: Mapping[str, str] | None = None,
    channels: Sequence[str] | None = None,
) -> WindowTable:
    """One window per event, beginning length//2 samples before it; one that would leave the recording is dropped as "edge"."""
    _check_labels(labels, {str(label) for r in recordings if r.events for label in r.events.labels})
    length = round(length_s * common_sampling_rate(recordings))
    if length < 1:
        raise SpecError(f"event windows: {length_s} s is shorter than one sample")
    rows: list[WindowRow] = []
    reasons = {index: {"other_label": 0} for index in range(len(recordings))}
    for index, recording in enumerate(recordings):
        if recording.events is None:
            raise DataError(f"recording {recording.id}: it has no events, so no window can be centred on one")
        for sample, label in zip(recording.events.samples.tolist(), recording.events.labels.tolist(), strict=True):
            if labels is not None and label not in labels:
                continue
            start = sample - length // 2
            if 0 <= start <= recording.length - length:
                rows.append((index, start, label if labels is None else labels[label]))
            else:
                reasons[index]["edge"] = reasons[index].get("edge", 0) + 1
    edge = sum(why.get("edge", 0) for why in reasons.values())
    dropped = {"edge": edge} if edge else {}
    table = _drop_nan_windows(recordings, make_window_table(rows, length, dropped, (), reasons), channels)
    return replace(table, windowless={index: {**reasons[index], **why} for index, why in table.windowless.items()})


def extract_windows(
    recordings: Sequence[Recording], table: WindowTable, rows: NDArray[np.int64], channels: Sequence[str]
) -> NDArray[np.float32]:
    """(m, channels, samples) of m rows of the table. Raises DataError when a channel is missing."""
    at = {int(i): [recordings[i].channel_index(name) for name in channels] for i in np.unique(table.recording[rows])}
    places = zip(table.recording[rows].tolist(), table.start[rows].tolist(), table.stop[rows].tolist(), strict=True)
    cuts = [recordings[index].samples[at[index], start:stop] for index, start, stop in places]
    return np.stack(cuts) if cuts else np.empty((0, len(channels), 0), np.float32)


def find_flat_windows(recordings: Sequence[Recording], table: WindowTable, channel: str) -> NDArray[np.bool_]:
    """(N,) whether a channel has one value throughout a window, as where a lead is off."""
    flat = np.zeros(len(table), bool)
    for index in np.unique(table.recording):
        samples, here = recordings[index].channel(channel), table.recording == index
        changes = np.concatenate([[0], np.cumsum(samples[1:] != samples[:-1])])  # NaN differs from itself
        first, last = np.maximum(table.start[here], 0), table.stop[here] - 1
        flat[here] = (changes[last] == changes[first]) & np.isfinite(samples[first])
    return flat


def make_window_table(
    rows: list[WindowRow],
    length: int,
    dropped: Mapping[str, int],
    problems: Sequence[InputProblem] = (),
    reasons: Windowless | None = None,
) -> WindowTable:
    """Rows (recording, start, class) of windows of `length` samples → the table.

    reasons: of every recording that may give no window; those with windows do not count
    """
    recording = np.array([row[0] for row in rows], np.int64)
    start = np.array([row[1] for row in rows], np.int64)
    names = np.array([row[2] for row in rows], np.str_)
    used = set(recording.tolist())
    windowless = {index: reason for index, reason in (reasons or {}).items() if index not in used}
    return WindowTable(recording, start, start + length, names, dropped, tuple(problems), windowless)


def _drop_nan_windows(recordings: Sequence[Recording], table: WindowTable, channels: Sequence[str] | None) -> WindowTable:
    """Drops and counts the windows with a NaN in one of the channels (None: in any)."""
    keep = np.ones(len(table), bool)
    for index in np.unique(table.recording):
        recording, here = recordings[index], table.recording == index
        chosen = range(len(recording.channels)) if channels is None else [recording.channel_index(name) for name in channels]
        missing = np.isnan(recording.samples[list(chosen)]).any(0)
        if missing.any():
            before = np.concatenate([[0], np.cumsum(missing)])
            keep[here] = before[table.stop[here]] == before[table.start[here]]
    if keep.all():
        return table
    dropped = {**table.dropped, "nan": int((~keep).sum())}
    columns = (table.recording[keep], table.start[keep], table.stop[keep], table.label[keep])
    emptied = {int(i): {"nan": int((table.recording == i).sum())} for i in np.setdiff1d(table.recording, columns[0])}
    return WindowTable(*columns, dropped, table.problems, {**table.windowless, **emptied})


def common_sampling_rate(recordings: Sequence[Recording]) -> float:
    """The sampling rate of all recordings in Hz. Raises DataError where one differs, and where there are no recordings."""
    if not recordings:
        raise DataError("windows: expected at least one recording, came none")
    first = recordings[0]
    for recording in recordings:
        if recording.rate_hz != first.rate_hz:
            raise DataError(
                f"recording {recording.id}: its rate is {recording.rate_hz:g} Hz, that of recording {first.id} "
                f"{first.rate_hz:g} Hz, and windows need one rate: leave the odd ones out or resample the files"
            )
    return first.rate_hz


def _check_labels(labels: Mapping[str, str] | None, present: set[str]) -> None:
    """Raises DataError for a class none of whose labels occurs, which is probably a typing error; single labels may be absent."""
    for wanted in sorted(set(labels.values())) if labels else ():
        words = [label for label, name in labels.items() if name == wanted] if labels else []
        if not present & set(words):
            raise DataError(
                f"class {wanted!r}: no recording has the label {join_words(words)}; there are {join_words(sorted(present))}"
                f"{did_you_mean(words[0], present)}"
            )


def _too_short_problem(recording: Recording, length_s: float) -> InputProblem:
    return InputProblem(recording.id, f"{recording.duration_s:g} s is shorter than one window of {length_s:g} s")
