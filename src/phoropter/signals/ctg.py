"""Cardiotocograms, from record to windows: clean the whole record, assess it, cut (FHR, UC, baseline) windows, filter them.

The paper this follows (Hemmi 2024) does not state which half hour of a labour it uses; ours ends at the last sample that was
measured and kept. Everything works on one record at a time, so that forty thousand records need not be in memory cleaned.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from phoropter.core.errors import InputProblem, did_you_mean, join_words
from phoropter.core.spec import Spec
from phoropter.signals.clean import (
    OK,
    Causes,
    FhrRules,
    UcRules,
    clean_fhr_by_rule,
    clean_uc_by_rule,
    fhr_baseline,
    fhr_clean,
    lowpass_filter,
    seconds_to_samples,
    uc_clean,
    uc_minmax_scale,
)
from phoropter.signals.recording import Recording, SignalStage
from phoropter.signals.windows import WindowRow, WindowTable, common_sampling_rate, make_window_table

CTG_CHANNELS = ("FHR", "UC", "baseline")
_START_PATTERN = re.compile(r"start:(\d+(?:\.\d+)?)")


class CtgWindowRule(Spec):
    """Which windows of a record are used, and how much of a window may be missing.

    length_s:    length of a window in seconds
    position:    "last_valid" ends at the last sample that no rule removed, "last" at the record's end; "start:SECONDS" begins
        there; "all" follows from the beginning in steps of `step_s`
    count:       number of windows back to back, for last_valid and last
    step_s:      seconds from start to start, for all (default: one window's length)
    short:       "reject" a record shorter than a window, or "pad" it on the left with NaN, rendered blank
    max_missing: largest share of removed heart-rate samples in a window, 0 to 1; padding counts
    """

    length_s: PositiveFloat = 1800.0
    position: str = "last_valid"
    count: PositiveInt = 1
    step_s: PositiveFloat | None = None
    short: Literal["reject", "pad"] = "reject"
    max_missing: float = Field(0.5, ge=0, le=1)

    @field_validator("position")
    @classmethod
    def _check_position(cls, position: str) -> str:
        words = ["last_valid", "last", "all", "start:SECONDS"]
        if position not in words[:3] and not _START_PATTERN.fullmatch(position):
            raise ValueError(f"expected {join_words(words)}, came {position!r}{did_you_mean(position, words)}")
        return position


class CtgFilter(Spec):
    """Filters of windows before rendering; the baseline is never filtered.

    fhr_lowpass:  highest Fourier component of the heart rate that is kept (default: all)
    lowpass_unit: unit of fhr_lowpass: "bin" of the window, or "mHz"
    lowpass_edge: what lies beyond the window's ends: "mirror", the window turned round, or "wrap", its other end
    uc_factor:    scales the contractions of a window to 0..uc_factor (default: not scaled)
    """

    fhr_lowpass: NonNegativeFloat | None = None
    lowpass_unit: Literal["bin", "mHz"] = "bin"
    lowpass_edge: Literal["mirror", "wrap"] = "mirror"
    uc_factor: NonNegativeFloat | None = None


class CtgRules(Spec):
    """All rules between a raw record and the windows that are rendered.

    fhr:    artefact rules of the heart rate, and the baseline
    uc:     rules of the contractions
    window: which windows are used
    filter: filters of a window before rendering
    """

    fhr: FhrRules = FhrRules()
    uc: UcRules = UcRules()
    window: CtgWindowRule = CtgWindowRule()
    filter: CtgFilter = CtgFilter()


@dataclass(frozen=True, eq=False)
class CleanedCtg:
    """A cleaned record.

    samples: (3, n) heart rate, contractions, baseline · causes: (n,) why a heart-rate sample was removed, OK where it was not
    valid:   whether any heart rate was measured
    """

    samples: NDArray[np.float32]
    causes: Causes
    rate_hz: float
    valid: bool


def ctg_clean(recording: Recording, rules: CtgRules | None = None) -> CleanedCtg:
    """Cleans FHR and UC of a whole record and adds the baseline. Raises DataError when a channel is missing."""
    rules = rules or CtgRules()
    fhr = fhr_clean(recording.channel("FHR"), recording.rate_hz, rules.fhr)
    uc = uc_clean(recording.channel("UC"), recording.rate_hz, rules.uc)
    baseline = fhr_baseline(fhr.values, recording.rate_hz, rules.fhr)
    return CleanedCtg(np.stack([fhr.values, uc.values, baseline]).astype(np.float32), fhr.causes, recording.rate_hz, fhr.valid)


def ctg_window_starts(clean: CleanedCtg, cut: CtgWindowRule) -> tuple[list[int], dict[str, int]]:
    """(first samples of a record's windows in order, reason → number of dropped windows).

    Reasons are "invalid", "too_short" and "missing". A start below 0 means padding.
    """
    length = seconds_to_samples(cut.length_s, clean.rate_hz)
    if not clean.valid:
        return [], {"invalid": 1}
    candidates = _candidate_starts(clean, cut, length)
    inside = [start for start in candidates if start >= 0 and start + length <= len(clean.causes)]
    if not inside and cut.short == "pad":
        end = min(candidates[-1] + length, len(clean.causes))
        inside = [end - length] if end < length else []
    kept = [start for start in inside if _missing_share(clean.causes, start, length) <= cut.max_missing]
    dropped = {"too_short": int(not inside), "missing": len(inside) - len(kept)}
    return kept, {reason: count for reason, count in dropped.items() if count}


def ctg_windows(recordings: Sequence[Recording], labels: Sequence[str | None], rules: CtgRules | None = None) -> WindowTable:
    """The windows of many records as a table; records whose label is None are left out and counted as "no_label"."""
    rules = rules or CtgRules()
    rows: list[WindowRow] = []
    dropped: Counter[str] = Counter()
    problems = []
    reasons: dict[int, dict[str, int]] = {}
    for index, (recording, label) in enumerate(zip(recordings, labels, strict=True)):
        if label is None:
            dropped["no_label"] += 1
            reasons[index] = {"no_label": 0}
            continue
        starts, lost = ctg_window_starts(ctg_clean(recording, rules), rules.window)
        rows += [(index, start, label) for start in starts]
        dropped.update(lost)
        if lost:
            reasons[index] = lost
        if "too_short" in lost:
            what = f"{recording.duration_s:g} s hold no window of {rules.window.length_s:g} s at {rules.window.position}"
            problems.append(InputProblem(recording.id, what))
    length = seconds_to_samples(rules.window.length_s, common_sampling_rate(recordings))
    return make_window_table(rows, length, dict(dropped), problems, reasons)


def extract_ctg_windows(clean: CleanedCtg, starts: Sequence[int], rules: CtgRules | None = None) -> NDArray[np.float32]:
    """(windows, 3, samples) cut and filtered, ready to render; NaN before the record's start."""
    rules = rules or CtgRules()
    length = seconds_to_samples(rules.window.length_s, clean.rate_hz)
    out = np.empty((len(starts), len(clean.samples), length), dtype=np.float32)
    for number, start in enumerate(starts):
        out[number] = _cut_window(clean.samples, start, length)
    filters = rules.filter
    if filters.fhr_lowpass is not None:
        unit, edge = filters.lowpass_unit, filters.lowpass_edge
        out[:, 0] = lowpass_filter(out[:, 0], filters.fhr_lowpass, clean.rate_hz, unit, edge)
    if filters.uc_factor is not None:
        out[:, 1] = uc_minmax_scale(out[:, 1], filters.uc_factor)
    return out


def trace_ctg_stages(recording: Recording, start: int, rules: CtgRules | None = None) -> Iterator[SignalStage]:
    """A window as recorded, after each cleaning rule, and after each filter: heart rate, then contractions, then the baseline.

    start: its first sample; below 0 it begins before the record. The rules act on the whole record, as `ctg_clean` does.
    """
    rules = rules or CtgRules()
    rate_hz, length = recording.rate_hz, seconds_to_samples(rules.window.length_s, recording.rate_hz)
    drawn = extract_ctg_windows(ctg_clean(recording, rules), [start], rules)[0]
    fhr, uc = recording.channel("FHR"), recording.channel("UC")
    by_rule = {"FHR": clean_fhr_by_rule(fhr, rate_hz, rules.fhr), "UC": clean_uc_by_rule(uc, rate_hz, rules.uc)}
    filters = rules.filter
    last = {
        "FHR": None if filters.fhr_lowpass is None else f"low-pass filter, {filters.fhr_lowpass:g} {filters.lowpass_unit}",
        "UC": None if filters.uc_factor is None else f"scaled to 0 to {filters.uc_factor:g}",
    }
    for at, (channel, unit, raw) in enumerate((("FHR", "bpm", fhr), ("UC", "", uc))):
        yield SignalStage(channel, unit, "as recorded", _cut_window(raw[None], start, length)[0])
        for title, cleaned in by_rule[channel]:
            yield SignalStage(channel, unit, title, _cut_window(cleaned.values[None], start, length)[0])
        if (title_of_filter := last[channel]) is not None:
            yield SignalStage(channel, unit, title_of_filter, drawn[at])
    yield SignalStage("baseline", "bpm", f"mean heart rate over {rules.fhr.baseline_s / 60:g} min", drawn[2])


def _cut_window(samples: NDArray[np.floating], start: int, length: int) -> NDArray[np.float32]:
    """(channels, n) → (channels, length), a copy; NaN before the record's start."""
    out = np.full((len(samples), length), np.nan, np.float32)
    out[:, max(0, -start) :] = samples[:, max(0, start) : start + length]
    return out


def _candidate_starts(clean: CleanedCtg, cut: CtgWindowRule, length: int) -> list[int]:
    """The starts that `position` means, in order; some may lie outside the record."""
    if cut.position in ("last", "last_valid"):
        end = len(clean.causes) if cut.position == "last" else int(np.flatnonzero(clean.causes == OK)[-1]) + 1
        return [end - length * back for back in range(cut.count, 0, -1)]
    if cut.position == "all":
        step = seconds_to_samples(cut.step_s, clean.rate_hz) if cut.step_s is not None else length
        return list(range(0, max(1, len(clean.causes) - length + 1), step))
    return [round(float(cut.position.removeprefix("start:")) * clean.rate_hz)]


def _missing_share(causes: Causes, start: int, length: int) -> float:
    return 1.0 - float((causes[max(0, start) : start + length] == OK).sum()) / length
