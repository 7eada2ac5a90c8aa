"""What a study changes in recordings right after they are read, or refuses: names of channels, missing samples, rate, gaps.

data: {recordings: births.csv, columns: {fhr: HR1, uc: TOCO}, missing: [-9999], resample_hz: 4, gaps: refuse}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from phoropter.core.errors import DataError, InputProblem, did_you_mean, join_words
from phoropter.data.recordings.spec import RecordingFields
from phoropter.signals.ctg import CTG_CHANNELS
from phoropter.signals.quality.sentinels import find_sentinel_values, format_sample
from phoropter.signals.recording import GAPS_NOTE, LoadedRecordings, OnBadInput, Recording
from phoropter.signals.resample import resample_recording

_CANONICAL = {name.casefold(): name for name in CTG_CHANNELS[:2]}  # FHR and UC, in which cardiotocograms are recognised


@dataclass(frozen=True)
class RecordingChanges:
    """columns: (our name of a channel, the file's) pairs · resample_hz: the rate that all recordings are brought to

    refuse_gaps: whether a recording whose time jumps is bad input · missing: values that stand for a missing sample
    """

    columns: tuple[tuple[str, str], ...] = ()
    resample_hz: float | None = None
    refuse_gaps: bool = False
    missing: tuple[float, ...] = ()

    @classmethod
    def of(cls, fields: RecordingFields) -> RecordingChanges:
        """The changes that a study's `data:` asks for."""
        columns: Mapping[str, str] = getattr(fields, "columns", {})
        return cls(tuple(sorted(columns.items())), fields.resample_hz, fields.gaps == "refuse", fields.missing)

    def check_missing(self, loaded: LoadedRecordings) -> None:
        """Raises DataError for a value under `missing` that no sample has, which is probably a typing error."""
        for value in self.missing:
            if not any((recording.samples == np.float32(value)).any() for recording in loaded.recordings):
                usual = sorted({v for r in loaded.recordings for row in r.samples for v in find_sentinel_values(row)})
                hint = f"; {join_words(map(format_sample, usual))} may be meant" if usual else ""
                raise DataError(f"missing: {format_sample(value)}: no sample has this value{hint}; correct it, or leave it out")

    def apply(self, loaded: LoadedRecordings, on_bad_input: OnBadInput) -> LoadedRecordings:
        """The recordings with the changes. One that cannot be changed is raised, or listed and left out under "skip"."""
        kept: list[Recording] = []
        problems = list(loaded.problems)
        for recording in loaded.recordings:
            try:
                kept.append(self.apply_one(recording))
            except DataError as error:
                if on_bad_input == "stop":
                    raise
                problems.append(InputProblem(recording.id, str(error).removeprefix(f"recording {recording.id}: ")))
        return replace(loaded, recordings=kept, problems=problems)

    def apply_one(self, recording: Recording) -> Recording:
        """Renames channels, takes out `missing`, then resamples. `fhr` and `uc` together are FHR and UC, in whatever case.

        Raises DataError for a recording whose time jumps, unless gaps are allowed, and for one that is missing throughout.
        """
        if self.refuse_gaps and GAPS_NOTE in recording.notes:
            missing = float(np.isnan(recording.samples).all(axis=0).sum()) / recording.rate_hz
            raise DataError(
                f"recording {recording.id}: its time jumps, {missing:g} s are missing: split the file, or say gaps: missing"
            )
        names = self._rename(recording) if self.columns else list(recording.channels)
        lower = [name.casefold() for name in names]
        if all(lower.count(word) == 1 for word in _CANONICAL):
            names = [_CANONICAL.get(word, name) for word, name in zip(lower, names, strict=True)]
        if tuple(names) != recording.channels:
            recording = replace(recording, channels=tuple(names))
        recording = self._take_out_missing(recording) if self.missing else recording
        return recording if self.resample_hz is None else resample_recording(_note_sentinels(recording), self.resample_hz)

    def _take_out_missing(self, recording: Recording) -> Recording:
        values = np.array(self.missing, np.float32)
        there = np.isin(recording.samples, values)
        if not there.any():
            return recording
        note = f"{join_words(format_sample(v) for v in values[np.isin(values, recording.samples[there])])} counted as missing"
        return replace(recording, samples=np.where(there, np.float32(np.nan), recording.samples), notes=(*recording.notes, note))

    def _rename(self, recording: Recording) -> list[str]:
        names: list[str] = list(recording.channels)
        for ours, theirs in self.columns:
            at = [i for i, name in enumerate(recording.channels) if name == theirs] or [
                i for i, name in enumerate(recording.channels) if name.casefold() == theirs.casefold()
            ]
            if len(at) != 1:
                there = f"{join_words(recording.channels)}{did_you_mean(theirs, recording.channels)}"
                raise DataError(
                    f"recording {recording.id}: columns.{ours} is {theirs!r}, and {len(at) or 'no'} channel is called so; "
                    f"there are {there}"
                )
            names[at[0]] = _CANONICAL.get(ours.casefold(), ours)
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise DataError(f"recording {recording.id}: after columns two channels are called {twice!r}: rename the other too")
        return names


def _note_sentinels(recording: Recording) -> Recording:
    """The recording with a note on values that may stand for a missing sample: after resampling they can no longer be told."""
    found = [
        (name, v) for name, row in zip(recording.channels, recording.samples, strict=True) for v in find_sentinel_values(row)
    ]
    notes = [
        f"WARNING: {name} has the value {format_sample(v)}, far from all others, which was resampled with them; if it means a "
        f"missing sample, say missing: [{format_sample(v)}]"
        for name, v in found
        if name != CTG_CHANNELS[0]  # a heart rate out of range is taken out by its own rules
    ]
    return replace(recording, notes=(*recording.notes, *notes)) if notes else recording
