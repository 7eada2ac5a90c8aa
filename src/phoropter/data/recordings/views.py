"""Views: how recordings are cut into windows and rendered as images; one channel, or a cardiotocogram.

A View is plain data. Together with the samples it decides every pixel, so its plain form is part of the images' identity, and a
bundle records it to cut and render recordings at prediction time as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.core.spec import Spec
from phoropter.signals.ctg import (
    CTG_CHANNELS,
    CtgFilter,
    CtgRules,
    ctg_clean,
    ctg_windows,
    extract_ctg_windows,
    trace_ctg_stages,
)
from phoropter.signals.ecg import require_heartbeat
from phoropter.signals.outcomes import OUTCOME_CLASSES, outcome_class
from phoropter.signals.recording import Recording, SignalStage
from phoropter.signals.render import (
    ChannelRepresentation,
    CtgPlot,
    Spectrogram,
    pool_ranges,
    render_windows,
    repeat_to_rgb,
    value_range,
)
from phoropter.signals.windows import WindowRule, WindowTable, event_windows, extract_windows, sliding_windows

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]
SampleChange = Callable[[NDArray[np.float32], Rows], NDArray[np.float32]]  # ((m, …, T) samples, rows of the table)
UNKNOWN_CLASS = ""  # class name of windows without a known class
GreyScale = Literal["per-image", "per-subject"]
BEAT_WINDOW_S = 0.8  # length of a window around a heartbeat: the interval at 75 beats a minute
_CHUNK_WINDOWS = 256  # windows whose values are in memory at once while grey scales are computed


class ChannelView(Spec):
    """Windows of one channel, each rendered as one image.

    rule:            how windows follow each other; None: one around each event, `event_s` seconds long
    labels:          label of a span or event → class; None: labels are the classes
    outcome:         a rule that classifies recordings by their outcome, in place of labels
    classes:         the classes in order, where it is known beforehand
    grey_scale:      "per-subject": the grey scale spans all windows of a subject
    require_r_peaks: refuse recordings without a heartbeat
    """

    kind: Literal["channel"] = "channel"
    channel: str
    representation: ChannelRepresentation = Spectrogram()
    rule: WindowRule | None = WindowRule(step_s=2.0)
    event_s: float | None = None
    labels: dict[str, str] | None = None
    outcome: str | None = None
    classes: tuple[str, ...] | None = None
    grey_scale: GreyScale = "per-image"
    require_r_peaks: bool = False

    @property
    def pools_grey_scale(self) -> bool:
        """Whether the grey scale spans all windows of a subject, so that an image depends on the subject's other windows."""
        return self.grey_scale == "per-subject"

    @property
    def reads_labels(self) -> bool:
        """Whether classes are made of the labels and spans of recordings, not of their outcome or their events."""
        return self.outcome is None and self.rule is not None

    @property
    def measured_channels(self) -> tuple[str, ...]:
        """The channels of a recording that the image shows."""
        return (self.channel,)

    @property
    def summary_text(self) -> str:
        """One line for the dataset's notes."""
        if self.rule is None:
            how = f"one window of {self.event_s:g} s around each event"
        else:
            step = f"{self.rule.step_s:g} s apart" if self.rule.step_s is not None else f"with gaps of {self.rule.gap_s:g} s"
            how = f"windows of {self.rule.length_s:g} s {step}"
        grey = "each subject" if self.pools_grey_scale else "each window"
        return f"{how}, {self.channel} as {self.representation.kind}, grey scale of {grey}"

    @property
    def window_settings(self) -> dict[str, Any]:
        """The settings that decide the table of windows."""
        return {name: value for name, value in self.plain().items() if name not in ("representation", "grey_scale", "classes")}

    @property
    def image_settings(self) -> dict[str, Any]:
        """The settings that decide the image of a given window, whatever its label."""
        return {name: self.plain()[name] for name in ("kind", "channel", "representation", "grey_scale")}

    def without_filters(self) -> ChannelView:
        """Itself: a channel is cut as it was recorded."""
        return self

    def check_recording(self, recording: Recording) -> None:
        """Raises DataError for a recording that cannot be cut or rendered."""
        samples = recording.channel(self.channel)
        if not np.isfinite(samples).any():
            raise DataError(f"recording {recording.id}: channel {self.channel} has no finite sample: leave the recording out")
        if self.require_r_peaks:
            require_heartbeat(samples, recording.rate_hz, f"recording {recording.id}")
        if self.rule is None and recording.events is None:
            raise DataError(f"recording {recording.id}: it has no events, so no window can be centred on one")
        self._apply_outcome_rule(recording)

    def missing_fraction(self, recording: Recording) -> float:
        """The share of samples that were not measured, 0 to 1."""
        return float(np.isnan(recording.channel(self.channel)).mean())

    def build_window_table(self, recordings: Sequence[Recording], unknown: bool) -> WindowTable:
        """The table of windows of all recordings.

        A recording without any label is left out and counted; with `unknown`, it is cut from beginning to end into windows of
        UNKNOWN_CLASS.
        """
        known = [self._apply_outcome_rule(recording) for recording in recordings]
        blank = [self.rule is not None and r.label is None and not r.spans for r in known]
        table = self._cut_by_rule(
            [replace(r, label=UNKNOWN_CLASS) if b and unknown else r for r, b in zip(known, blank, strict=True)]
        )
        dropped = {"no_label": sum(blank)} if any(blank) and not unknown else {}
        return replace(table, dropped={**table.dropped, **dropped})

    def _apply_outcome_rule(self, recording: Recording) -> Recording:
        if self.outcome is None:
            return recording
        label = outcome_class(recording.outcome, self.outcome, f"recording {recording.id}")
        return replace(recording, label=label, spans=())

    def _cut_by_rule(self, recordings: Sequence[Recording]) -> WindowTable:
        if self.rule is None:
            return event_windows(recordings, self.event_s or BEAT_WINDOW_S, self.labels, (self.channel,))
        unknown = {UNKNOWN_CLASS: UNKNOWN_CLASS} if any(r.label == UNKNOWN_CLASS for r in recordings) else {}
        labels = None if self.labels is None else self.labels | unknown
        if labels and unknown and all(r.label == UNKNOWN_CLASS for r in recordings):
            labels = unknown  # nothing is trained on these, so no class needs to occur
        return sliding_windows(recordings, self.rule, labels, (self.channel,))

    def compute_value_ranges(self, recordings: Sequence[Recording], table: WindowTable) -> NDArray[Any] | None:
        """(N, 2) lowest and highest value of each window's grey scale; None where every window has its own."""
        if not self.pools_grey_scale:
            return None
        parts = np.array_split(np.arange(len(table)), -(-len(table) // _CHUNK_WINDOWS))
        rate_hz = recordings[0].rate_hz
        own = np.concatenate(
            [value_range(self._extract_samples(recordings, table, rows), rate_hz, self.representation) for rows in parts]
        )
        return pool_ranges(own, np.array([recordings[i].subject for i in table.recording]))

    def render_rows(
        self,
        recordings: Sequence[Recording],
        table: WindowTable,
        rows: Rows,
        ranges: NDArray[Any] | None,
        change: SampleChange | None = None,
    ) -> Bytes:
        """Rows of the table → (m, S, S, 3). change: what is done to the samples of their windows before they are drawn"""
        own, samples = None if ranges is None else ranges[rows], self._extract_samples(recordings, table, rows)
        samples = samples if change is None else change(samples, rows)
        return repeat_to_rgb(render_windows(samples, recordings[0].rate_hz, self.representation, own))

    def source_signals(self, recordings: Sequence[Recording], table: WindowTable, row: int) -> dict[str, NDArray[np.float32]]:
        """Channel → the samples of a row's window, for plots."""
        return {self.channel: self._extract_samples(recordings, table, np.array([row]))[0]}

    def trace_stages(self, recordings: Sequence[Recording], table: WindowTable, row: int) -> list[SignalStage]:
        """A row's window on its way to the picture: as it was read, since a channel is drawn without a filter."""
        recording, samples = recordings[int(table.recording[row])], self._extract_samples(recordings, table, np.array([row]))[0]
        unit = recording.units[recording.channels.index(self.channel)]
        return [SignalStage(self.channel, unit, f"as read, {recording.rate_hz:g} samples a second", samples)]

    def _extract_samples(self, recordings: Sequence[Recording], table: WindowTable, rows: Rows) -> NDArray[np.float32]:
        return extract_windows(recordings, table, rows, (self.channel,))[:, 0]


class CtgView(Spec):
    """Fetal heart rate, contractions and baseline of a birth: cleaned as a whole record, cut, filtered, rendered as one image.

    outcome: the rule that classifies births; None: the recordings' own labels
    """

    kind: Literal["ctg"] = "ctg"
    representation: CtgPlot = CtgPlot()
    clean: CtgRules = CtgRules()
    outcome: str | None = None
    classes: tuple[str, ...] | None = OUTCOME_CLASSES

    @property
    def pools_grey_scale(self) -> bool:
        """Never: the axes are fixed."""
        return False

    @property
    def reads_labels(self) -> bool:
        """Whether classes are made of the labels of recordings, not of their outcome."""
        return self.outcome is None

    @property
    def measured_channels(self) -> tuple[str, ...]:
        """The channels of a recording that the image shows."""
        return CTG_CHANNELS[:2]

    @property
    def summary_text(self) -> str:
        """One line for the dataset's notes."""
        position, minutes = self.clean.window.position, self.clean.window.length_s / 60
        return f"windows of {minutes:g} min ({position}), at most {self.clean.window.max_missing:.0%} missing, labels by " + (
            self.outcome or "the recordings"
        )

    @property
    def window_settings(self) -> dict[str, Any]:
        """The settings that decide the table of windows."""
        return {"kind": self.kind, "fhr": self.clean.fhr.plain(), "window": self.clean.window.plain(), "outcome": self.outcome}

    @property
    def image_settings(self) -> dict[str, Any]:
        """The settings that decide the image of a given window, whatever its label."""
        return {
            "kind": self.kind,
            "representation": self.representation.plain(),
            "clean": self.clean.model_dump(mode="json", exclude={"window"}),
        }

    def without_filters(self) -> CtgView:
        """The same without the filters that serve the image: cleaned, and in the units of the record."""
        return self.model_copy(update={"clean": self.clean.model_copy(update={"filter": CtgFilter()})})

    def check_recording(self, recording: Recording) -> None:
        """Raises DataError for a record without FHR or UC, or whose outcome is not a number."""
        for name in CTG_CHANNELS[:2]:
            recording.channel(name)
        self._class_name(recording)

    def missing_fraction(self, recording: Recording) -> float:
        """The share of heart-rate samples that were not measured or are out of range, 0 to 1."""
        rate, rules = recording.channel("FHR"), self.clean.fhr
        return float((np.isnan(rate) | (rate <= rules.low_bpm) | (rate >= rules.high_bpm)).mean())

    def build_window_table(self, recordings: Sequence[Recording], unknown: bool) -> WindowTable:
        """The table of windows. A record without a class is left out and counted; with `unknown`, it gets UNKNOWN_CLASS."""
        classes = [self._class_name(recording) for recording in recordings]
        return ctg_windows(recordings, [UNKNOWN_CLASS if c is None and unknown else c for c in classes], self.clean)

    def _class_name(self, recording: Recording) -> str | None:
        if self.outcome is None or not recording.outcome:
            return recording.label if self.outcome is None else None
        return outcome_class(recording.outcome, self.outcome, f"recording {recording.id}")

    def compute_value_ranges(self, recordings: Sequence[Recording], table: WindowTable) -> None:
        """None: the axes are fixed."""

    def render_rows(
        self,
        recordings: Sequence[Recording],
        table: WindowTable,
        rows: Rows,
        ranges: object,
        change: SampleChange | None = None,
    ) -> Bytes:
        """Rows of the table → (m, S, S, 3); each record is cleaned once, whatever the number of its rows.

        change: what is done to the samples of their windows before they are drawn
        """
        size = self.representation.size
        out = np.empty((len(rows), size, size, 3), np.uint8)
        for index in np.unique(table.recording[rows]):
            places = np.flatnonzero(table.recording[rows] == index)
            pieces = self._extract_samples(recordings[index], table.start[rows[places]].tolist())
            pieces = pieces if change is None else change(pieces, rows[places])
            out[places] = render_windows(pieces, recordings[index].rate_hz, self.representation)
        return out

    def source_signals(self, recordings: Sequence[Recording], table: WindowTable, row: int) -> dict[str, NDArray[np.float32]]:
        """Channel → the samples of a row's window, for plots."""
        window = self._extract_samples(recordings[int(table.recording[row])], [int(table.start[row])])[0]
        return {name: window[at] for at, name in enumerate(CTG_CHANNELS)}

    def trace_stages(self, recordings: Sequence[Recording], table: WindowTable, row: int) -> list[SignalStage]:
        """A row's window on its way to the picture: as recorded, after each cleaning rule, after each filter."""
        return list(trace_ctg_stages(recordings[int(table.recording[row])], int(table.start[row]), self.clean))

    def _extract_samples(self, recording: Recording, starts: Sequence[int]) -> NDArray[np.float32]:
        return extract_ctg_windows(ctg_clean(recording, self.clean), starts, self.clean)


RecordingView = ChannelView | CtgView
