"""What a user writes under `data:` when the source is recordings: where they are, how windows are cut, what is drawn.

    data: {wesad: WESAD, task: 2-class, window: {length_s: 5, step_s: 2}, picture: {style: dense}}
    data: {ctu: ctu-uhb-ctgdb, outcome: "pH<=7.15", clean: {filter: {fhr_lowpass: 10}}}

The fields are part of DataSpec (spec.py), which says what belongs to which source. Here they become a View (drawn.py): one
channel cut into windows, or a cardiotocogram; rendered.py makes the Dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, ValidationInfo, field_validator, model_validator

from phoropter.core.errors import DataError, SpecError, did_you_mean, join_words
from phoropter.core.spec import Spec
from phoropter.data.recordings.views import BEAT_WINDOW_S, ChannelView, CtgView, RecordingView
from phoropter.signals.ctg import CtgRules
from phoropter.signals.outcomes import OUTCOME_CLASSES, outcome_class
from phoropter.signals.readers import wesad
from phoropter.signals.recording import Recording
from phoropter.signals.render import REPRESENTATIONS, CtgPlot, Scalogram, Spectrogram, Trace
from phoropter.signals.simulate import CtgCohort, EcgCohort
from phoropter.signals.windows import WindowRule


def _reject_empty_path(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("the path is empty")
    return value


NonEmptyPath = Annotated[Path, BeforeValidator(_reject_empty_path)]
AnyRepresentation = Annotated[Spectrogram | Scalogram | Trace | CtgPlot, Field(discriminator="kind")]


class WindowSpec(Spec):
    """How windows of one channel follow each other, in seconds: `step_s` from start to start or `gap_s` from end to start.

    Default: 5 s every 2 s (SONIC's, read as a step; `gap_s: 2` is the other reading). About heartbeats only `length_s`, 0.8.
    """

    length_s: PositiveFloat | None = None
    step_s: PositiveFloat | None = None
    gap_s: NonNegativeFloat | None = None

    @model_validator(mode="after")
    def _check_step_or_gap(self) -> WindowSpec:
        if self.step_s is not None and self.gap_s is not None:
            raise ValueError("'step_s' (start to start) and 'gap_s' (end to start) contradict each other: keep one")
        return self

    def to_rule(self) -> WindowRule:
        """With the defaults filled in."""
        step = 2.0 if self.step_s is None and self.gap_s is None else self.step_s
        return WindowRule(length_s=self.length_s or 5.0, step_s=step, gap_s=self.gap_s)


class EcgCohortSpec(EcgCohort):
    """The people of `simulate: ecg`."""

    kind: Literal["ecg"] = "ecg"


class CtgCohortSpec(CtgCohort):
    """The births of `simulate: ctg`."""

    kind: Literal["ctg"] = "ctg"


class RecordingFields(Spec):
    """The part of DataSpec that is about recordings.

    wesad, ctu, eegmat, mitdb: the folder of that database · recordings: a manifest (docs/recordings.md) · simulate: ecg or ctg
    cohort:      who is simulated
    task:        which classes: 2-class or 3-class (wesad, simulate: ecg), aami or symbols (mitdb)
    outcome:     a rule that makes two classes of births, such as apgar<=6 or pH<=7.15
    window:      how one channel is cut · channel: which one
    picture:     what is drawn: {kind: spectrogram | scalogram | trace | ctg, …}; its size is `size` unless it has its own
    clean:       how cardiotocograms are cleaned, cut and filtered
    per_subject: the grey scale spans all windows of a subject instead of each window's own
    heartbeat:   an ECG in which no heartbeat is found is bad input (default: for eegmat)
    """

    wesad: NonEmptyPath | None = None
    ctu: NonEmptyPath | None = None
    eegmat: NonEmptyPath | None = None
    mitdb: NonEmptyPath | None = None
    recordings: NonEmptyPath | None = None
    simulate: Literal["ecg", "ctg"] | None = None
    cohort: Annotated[EcgCohortSpec | CtgCohortSpec, Field(discriminator="kind")] | None = None
    task: str | None = None
    outcome: str | None = None
    window: WindowSpec | None = None
    channel: str | None = None
    representation: AnyRepresentation | None = None
    clean: CtgRules | None = None
    per_subject: bool = False
    require_r_peaks: bool | None = None

    @field_validator("cohort", mode="before")
    @classmethod
    def _infer_cohort_kind(cls, value: Any, info: ValidationInfo) -> Any:
        simulated = info.data.get("simulate")
        return {"kind": simulated, **value} if isinstance(value, dict) and simulated else value

    @field_validator("representation", mode="before")
    @classmethod
    def _infer_representation_kind(cls, value: Any, info: ValidationInfo) -> Any:
        births = info.data.get("ctu") is not None or info.data.get("simulate") == "ctg"
        short = {"kind": value} if isinstance(value, str) else value
        if not isinstance(short, dict):
            return short
        kind = short.get("kind", "ctg" if births else "spectrogram")
        if kind not in REPRESENTATIONS:
            raise ValueError(
                f"kind is {kind!r}, expected {join_words(REPRESENTATIONS)}{did_you_mean(str(kind), REPRESENTATIONS)}"
            )
        return {"kind": kind, **short}

    @field_validator("outcome")
    @classmethod
    def _check_outcome_rule(cls, rule: str | None) -> str | None:
        try:
            outcome_class({}, rule or "pH<7")
        except SpecError as error:
            raise ValueError(str(error)) from None
        except DataError:
            pass  # the rule is one; there was no outcome to judge
        return rule


def check_recording_options(spec: RecordingFields, source: str) -> None:
    """Raises ValueError for options that the source of recordings cannot follow, naming both."""
    name = f"simulate: {spec.simulate}" if source == "simulate" else source
    births, strips = source == "ctu" or spec.simulate == "ctg", source in ("wesad", "eegmat", "mitdb") or spec.simulate == "ecg"
    for option, belongs in _CTG_OPTIONS.items() if strips else _CHANNEL_OPTIONS.items() if births else ():
        if getattr(spec, option) not in (None, False):
            raise ValueError(f"'{option}' belongs to {belongs} and does nothing for '{name}': remove it")
    if spec.representation is not None and (births or strips) and births != isinstance(spec.representation, CtgPlot):
        wanted = "ctg" if births else "spectrogram, scalogram or trace"
        raise ValueError(f"'picture: {spec.representation.kind}' cannot be drawn of '{name}': expected {wanted}")
    if source == "recordings":
        _check_single_kind(spec)
    if spec.cohort is not None and spec.cohort.kind != spec.simulate:
        raise ValueError(f"'cohort' is of kind '{spec.cohort.kind}' and 'simulate' says '{spec.simulate}': make them one")
    if source == "mitdb" and spec.window and (spec.window.step_s is not None or spec.window.gap_s is not None):
        raise ValueError("'window' has a step or gap, and 'mitdb' has one window about each beat: keep 'length_s' alone")
    tasks = _TASKS.get(name)
    if spec.task is not None and tasks and spec.task not in tasks:
        raise ValueError(f"task is '{spec.task}', expected {join_words(tasks)} for '{name}'{did_you_mean(spec.task, tasks)}")


def _check_single_kind(spec: RecordingFields) -> None:
    births = (
        [f"picture: {spec.representation.kind}"] if isinstance(spec.representation, CtgPlot) else ["clean"] if spec.clean else []
    )
    others = [name for name in ("window", "channel", "per_subject", "heartbeat") if getattr(spec, name) not in (None, False)]
    others += (
        [f"picture: {spec.representation.kind}"] if spec.representation and not isinstance(spec.representation, CtgPlot) else []
    )
    if births and others:
        raise ValueError(f"'{births[0]}' is about cardiotocograms and '{others[0]}' about one channel: keep one")


# --- from words to a View -------------------------------------------------------------------------------------------------


def resolve_recording_view(
    spec: RecordingFields, source: str, size: int | None, recordings: Sequence[Recording]
) -> RecordingView:
    """What a spec asks for, with every default filled in. `size`: of the stored pictures; a picture's own size comes first."""
    if source == "ctu" or spec.simulate == "ctg" or (source == "recordings" and _is_ctg_source(spec, recordings)):
        picture = spec.representation if isinstance(spec.representation, CtgPlot) else CtgPlot()
        rule = spec.outcome or ("apgar<=6" if source == "ctu" else None)
        own = source == "recordings" and rule is None
        clean = spec.clean or CtgRules()
        return CtgView(picture=_apply_size(picture, size), clean=clean, outcome=rule, classes=None if own else OUTCOME_CLASSES)
    window = spec.window or WindowSpec()
    beats = source == "mitdb"
    labels, classes = _resolve_task(spec, source)
    return ChannelView(
        channel=spec.channel or _resolve_channel(source, recordings),
        picture=_apply_size(
            spec.representation
            if spec.representation and not isinstance(spec.representation, CtgPlot)
            else _default_representation(source),
            size,
        ),
        rule=None if beats else window.to_rule(),
        event_s=(window.length_s or BEAT_WINDOW_S) if beats else None,
        labels=labels,
        outcome=spec.outcome,
        classes=OUTCOME_CLASSES if spec.outcome else classes,
        per_subject=spec.per_subject,
        heartbeat=spec.require_r_peaks if spec.require_r_peaks is not None else source == "eegmat",
    )


def _apply_size(picture: Any, size: int | None) -> Any:
    return picture.with_changes(size=size) if size is not None and "size" not in picture.model_fields_set else picture


def _default_representation(source: str) -> Spectrogram | Trace:
    """A beat is too short for a spectrogram of SciPy's segments; its shape is what cardiologists read."""
    return Trace() if source == "mitdb" else Spectrogram()


def _is_ctg_source(spec: RecordingFields, recordings: Sequence[Recording]) -> bool:
    if isinstance(spec.representation, CtgPlot) or spec.clean is not None:
        return True
    plain = spec.representation is None and spec.window is None and spec.channel is None
    return plain and all({"FHR", "UC"} <= set(r.channels) for r in recordings)


def _resolve_channel(source: str, recordings: Sequence[Recording]) -> str:
    if source != "recordings":
        return "MLII" if source == "mitdb" else "ECG"
    there = sorted({name for recording in recordings for name in recording.channels})
    if len(there) != 1:
        raise DataError(f"the recordings have the channels {join_words(there)}: say which one is drawn with channel: {there[0]}")
    return there[0]


def _resolve_task(spec: RecordingFields, source: str) -> tuple[dict[str, str] | None, tuple[str, ...] | None]:
    """(label → class, classes in order) of a source."""
    name = f"simulate: {spec.simulate}" if source == "simulate" else source
    if name not in _TASKS:
        return None, _CLASS_ORDERS.get(source)
    task = spec.task or next(iter(_TASKS[name]))
    labels = _TASKS[name][task]
    return (dict(labels) if labels else None), _class_order(labels)


def _class_order(labels: Mapping[str, str] | None) -> tuple[str, ...] | None:
    return None if labels is None else tuple(dict.fromkeys(labels.values()))


# ANSI/AAMI EC57 classes of beats; fusion beats and paced ones, which have too few patients to be held out, are left out.
_AAMI_CLASSES = {
    "normal": "NLRej",
    "supraventricular": "AaJS",
    "ventricular": "VE",
}
_STRESS_TASKS: dict[str, Mapping[str, str] | None] = {"3-class": wesad.TASKS["3-class"], "2-class": wesad.TASKS["2-class"]}
_TASKS: dict[str, dict[str, Mapping[str, str] | None]] = {
    "wesad": _STRESS_TASKS,
    "simulate: ecg": _STRESS_TASKS,
    "mitdb": {"aami": {symbol: name for name, symbols in _AAMI_CLASSES.items() for symbol in symbols}, "symbols": None},
}
_CLASS_ORDERS: dict[str, tuple[str, ...]] = {"eegmat": ("rest", "task")}
_CTG_OPTIONS = {"outcome": "cardiotocograms", "clean": "cardiotocograms"}
_CHANNEL_OPTIONS = {
    "task": "wesad, mitdb or simulate: ecg",
    "window": "windows of one channel (a cardiotocogram's are under clean.cut)",
    "channel": "windows of one channel",
    "per_subject": "windows of one channel",
    "heartbeat": "electrocardiograms",
}
