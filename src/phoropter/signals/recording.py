"""Recording: the channels of one subject, with labels, events and outcome.

Intervals are half-open and in samples; seconds appear only where users write them.

Left out on purpose: channels of different rates in one recording, and resampling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, InputProblem, did_you_mean, join_words

OnBadInput = Literal["stop", "skip"]
Item = TypeVar("Item")
GAPS_NOTE = "gaps in time, counted as missing samples"
MAX_FILLED_SAMPLES = 2**23  # of one channel with its gaps, or eight times what is there: a damaged date must not ask for years
MAX_FILLED_NUMBERS = 2**27  # of all channels, by the same rule: thousands of channels make a short gap large


class Span(NamedTuple):
    """Samples start..stop (half-open) with one label."""

    start: int
    stop: int
    label: str


class SignalStage(NamedTuple):
    """One channel of a window at one place on its way to a picture. values: (n,), NaN where a sample is missing

    unit: of the values; empty where they have none · title: what was done last, in words
    """

    channel: str
    unit: str
    title: str
    values: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Events:
    """Labelled moments, such as heartbeats: (N,) sample indices, ascending, and (N,) labels."""

    samples: NDArray[np.int64]
    labels: NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Recording:
    """One unbroken recording of one subject. Raises DataError where its fields contradict each other."""

    id: str
    subject: str
    samples: NDArray[np.float32]  # (channels, n); NaN where a sample is missing
    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate_hz: float
    site: str = ""
    spans: tuple[Span, ...] = ()  # ascending, not overlapping; take precedence over `label` when windows are cut
    events: Events | None = None
    label: str | None = None  # of the recording as a whole
    part: str = ""  # of the database's official split: "train", "val" or "test"
    outcome: Mapping[str, float | str | None] = field(default_factory=dict)
    source: Path | None = None
    truth: Mapping[str, Any] = field(default_factory=dict)  # what a simulator knows and no reader could
    notes: tuple[str, ...] = ()  # what reading changed or left out, in words that many recordings may share
    about: Mapping[str, float | str | None] = field(default_factory=dict)  # of the subject, known beforehand: sex, age …

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or len(self.channels) != len(self.samples) or len(self.units) != len(self.samples):
            raise DataError(
                f"recording {self.id}: expected one row of samples, one name and one unit for each channel, came samples of "
                f"shape {self.samples.shape}, {len(self.channels)} names and {len(self.units)} units"
            )
        if len(set(self.channels)) != len(self.channels):
            raise DataError(f"recording {self.id}: the channel names {join_words(self.channels)} are not all different")
        check_sampling_rate(self.rate_hz, f"recording {self.id}")
        if not np.isfinite(self.samples).any():
            raise DataError(f"recording {self.id}: no channel has a finite sample, expected at least one: leave it out")
        self._check_spans_and_events()

    def _check_spans_and_events(self) -> None:
        before = 0
        for start, stop, label in self.spans:
            if not before <= start < stop <= self.length:
                raise DataError(
                    f"recording {self.id}: the span {label!r} at samples {start}..{stop} is empty, overlaps the span before it "
                    f"or leaves the recording of {self.length} samples"
                )
            before = stop
        if self.events is not None and len(at := self.events.samples) and (at.min() < 0 or at.max() >= self.length):
            raise DataError(f"recording {self.id}: its events at samples {at.min()}..{at.max()} leave its {self.length} samples")

    @property
    def length(self) -> int:
        """Samples per channel."""
        return int(self.samples.shape[1])

    @property
    def duration_s(self) -> float:
        return self.length / self.rate_hz

    def channel(self, name: str) -> NDArray[np.float32]:
        """(n,) samples of a channel. Raises DataError naming the channels there are."""
        row: NDArray[np.float32] = self.samples[self.channel_index(name)]
        return row

    def channel_index(self, name: str) -> int:
        """The row of a channel. Raises DataError naming the channels there are."""
        if name not in self.channels:
            raise DataError(
                f"recording {self.id}: channel {name!r} is missing, there are {join_words(self.channels)}"
                f"{did_you_mean(name, self.channels)}"
            )
        return self.channels.index(name)


def find_channels(there: Sequence[str], wanted: Sequence[str] | None, where: str) -> list[int]:
    """Rows of the wanted channels (None: of all) among the names of a file.

    Raises DataError for a name that is missing, and for a wanted name that two channels have; other doubles do no harm.
    """
    for name in dict.fromkeys(there if wanted is None else wanted):
        if name not in there:
            raise DataError(f"{where}: channel {name!r} is missing, there are {join_words(there)}{did_you_mean(name, there)}")
        if (times := list(there).count(name)) > 1:
            choose = " or name the channels to use" if wanted is None and len(set(there)) > 1 else ""
            raise DataError(
                f"{where}: {times} channels are called {name!r}, so which one is meant is unknown: rename them{choose}"
            )
    return list(range(len(there))) if wanted is None else [list(there).index(name) for name in wanted]


def check_filled_length(length: int, measured: int, where: str, channels: int = 1) -> None:
    """Raises DataError where a recording with its gaps would be far longer than measured. Both in samples of a channel."""
    numbers = max(MAX_FILLED_NUMBERS, 8 * measured * channels)
    if length > max(MAX_FILLED_SAMPLES, 8 * measured) or length * channels > numbers:
        raise DataError(f"{where}: its times span {length} samples, and {measured} are there: check the times, or split the file")


def check_sampling_rate(rate_hz: float, where: str) -> None:
    """Raises DataError unless the rate is a finite number above zero."""
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise DataError(f"{where}: the sampling rate should be a number of Hz above zero, came {rate_hz}")


# --- many recordings --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadedRecordings:
    """The recordings of a folder or manifest that could be read, and the problems of those that could not.

    notes: facts a reader of results must know, such as how many were left out and why
    missing_labels: of a manifest with labels in some rows only, the first row without one and their number; else ""
    left_out: reason → recordings that the reader passed over, as its notes say
    """

    recordings: list[Recording]
    problems: list[InputProblem] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    missing_labels: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_recordings(
    items: Iterable[Item], read: Callable[[Item], Recording], on_bad_input: OnBadInput = "stop"
) -> LoadedRecordings:
    """Reads every item. One that raises DataError or repeats an id is raised, or listed and skipped under "skip"."""
    loaded = LoadedRecordings([])
    seen: dict[str, Path | None] = {}
    for item in items:
        try:
            recording = read(item)
            if recording.id in seen:
                raise DataError(
                    f"{recording.source or recording.id}: recording {recording.id!r} was already read from {seen[recording.id]}"
                )
        except DataError as error:
            if on_bad_input == "stop":
                raise
            loaded.problems.append(InputProblem(str(item), str(error).removeprefix(f"{item}: ")))
            continue
        seen[recording.id] = recording.source
        loaded.recordings.append(recording)
    return loaded


def read_folder(
    root: Path, on_bad_input: OnBadInput = "stop", *, pattern: str, read_file: Callable[[Path], Recording]
) -> LoadedRecordings:
    """Reads every file of a folder that matches `pattern`, in order of name.

    Small and capital letters are the same; hidden files are left out. Raises DataError where there is no folder, or no file in it
    that matches.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: check the path")
    files = sorted(file for file in root.glob(_any_case(pattern)) if not file.name.startswith("."))
    if not files:
        raise DataError(f"{root}: no {pattern} in this folder, so there is no recording to read")
    return read_recordings(files, read_file, on_bad_input)


def _any_case(pattern: str) -> str:
    """`*.edf` → `*.[eE][dD][fF]`, for file systems that tell small letters from capitals."""
    parts = re.split(r"(\[[^\]]*\])", pattern)  # letters in brackets stay
    return "".join(
        part if part.startswith("[") else "".join(f"[{c.lower()}{c.upper()}]" if c.isascii() and c.isalpha() else c for c in part)
        for part in parts
    )


def recording_summary(recording: Recording) -> dict[str, Any]:
    """Duration, rate, share missing per channel, and seconds and events per label of a recording."""
    seconds: dict[str, float] = {}
    for start, stop, label in label_runs(recording):
        seconds[label] = seconds.get(label, 0.0) + (stop - start) / recording.rate_hz
    events = np.unique(recording.events.labels, return_counts=True) if recording.events else ((), ())
    return {
        "id": recording.id,
        "subject": recording.subject,
        "site": recording.site,
        "duration_s": recording.duration_s,
        "rate_hz": recording.rate_hz,
        "missing": {name: float(np.isnan(row).mean()) for name, row in zip(recording.channels, recording.samples, strict=True)},
        "seconds": seconds,
        "events": {str(label): int(count) for label, count in zip(*events, strict=True)},
    }


# --- labels -----------------------------------------------------------------------------------------------------------


def codes_to_spans(codes: NDArray[Any], names: Mapping[int, str], ignored: Iterable[int], where: str) -> tuple[Span, ...]:
    """A label code per sample → the runs of the codes that have a name.

    Raises DataError for a code that is neither named nor ignored.
    """
    edges = np.flatnonzero(np.diff(codes)) + 1
    starts = np.concatenate([[0], edges]).astype(int)
    stops = np.concatenate([edges, [len(codes)]]).astype(int)
    known = set(names) | set(ignored)
    if unknown := sorted(set(codes[starts].tolist()) - known):
        raise DataError(f"{where}: unknown label code {unknown[0]}; the known codes are {join_words(map(str, sorted(known)))}")
    runs = zip(starts.tolist(), stops.tolist(), codes[starts].tolist(), strict=True)
    return tuple(Span(start, stop, names[code]) for start, stop, code in runs if code in names)


def label_runs(recording: Recording) -> list[Span]:
    """Unbroken runs of one label: spans that touch and agree are one run; without spans, the whole recording by its label."""
    if not recording.spans:
        return [Span(0, recording.length, recording.label)] if recording.label is not None else []
    runs: list[Span] = []
    for span in recording.spans:
        if runs and runs[-1].stop == span.start and runs[-1].label == span.label:
            runs[-1] = Span(runs[-1].start, span.stop, span.label)
        else:
            runs.append(span)
    return runs
