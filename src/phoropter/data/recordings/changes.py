"""What a study changes in recordings right after they are read, or refuses: names of channels, sampling rate, gaps.

data: {recordings: births.csv, columns: {fhr: HR1, uc: TOCO}, resample_hz: 4, gaps: refuse}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from phoropter.core.errors import DataError, InputProblem, did_you_mean, join_words
from phoropter.data.recordings.spec import RecordingFields
from phoropter.signals.ctg import CTG_CHANNELS
from phoropter.signals.recording import GAPS_NOTE, LoadedRecordings, OnBadInput, Recording
from phoropter.signals.resample import resample_recording

_CANONICAL = {name.casefold(): name for name in CTG_CHANNELS[:2]}  # FHR and UC, in which cardiotocograms are recognised


@dataclass(frozen=True)
class RecordingChanges:
    """columns: (our name of a channel, the file's) pairs · resample_hz: the rate that all recordings are brought to

    refuse_gaps: whether a recording whose time jumps is bad input
    """

    columns: tuple[tuple[str, str], ...] = ()
    resample_hz: float | None = None
    refuse_gaps: bool = False

    @classmethod
    def of(cls, fields: RecordingFields) -> RecordingChanges:
        """The changes that a study's `data:` asks for."""
        columns: Mapping[str, str] = getattr(fields, "columns", {})
        return cls(tuple(sorted(columns.items())), fields.resample_hz, fields.gaps == "refuse")

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
        """Renames channels, then resamples. `fhr` and `uc` together are FHR and UC, in whatever case."""
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
        return recording if self.resample_hz is None else resample_recording(recording, self.resample_hz)

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
