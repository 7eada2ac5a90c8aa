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

from phoropter.core.errors import DataError, SpecError, listing, nearest
from phoropter.core.spec import Spec
from phoropter.data.drawn import BEATS_S, Cardiotocogram, Strip, View
from phoropter.signals import wesad
from phoropter.signals.ctg import CtgRules
from phoropter.signals.outcomes import CLASSES, outcome_class
from phoropter.signals.recording import Recording
from phoropter.signals.render import PICTURES, Ctg, Scalogram, Spectrogram, Trace
from phoropter.signals.simulate import CtgCohort, EcgCohort
from phoropter.signals.windows import WindowRule


def _not_empty(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("the path is empty")
    return value


Place = Annotated[Path, BeforeValidator(_not_empty)]
Picture = Annotated[Spectrogram | Scalogram | Trace | Ctg, Field(discriminator="kind")]


class Window(Spec):
    """How windows of one channel follow each other, in seconds: `step_s` from start to start or `gap_s` from end to start.

    Default: 5 s every 2 s (SONIC's, read as a step; `gap_s: 2` is the other reading). About heartbeats only `length_s`, 0.8.
    """

    length_s: PositiveFloat | None = None
    step_s: PositiveFloat | None = None
    gap_s: NonNegativeFloat | None = None

    @model_validator(mode="after")
    def _not_both(self) -> Window:
        if self.step_s is not None and self.gap_s is not None:
            raise ValueError("'step_s' (start to start) and 'gap_s' (end to start) contradict each other: keep one")
        return self

    def rule(self) -> WindowRule:
        """With the defaults filled in."""
        step = 2.0 if self.step_s is None and self.gap_s is None else self.step_s
        return WindowRule(length_s=self.length_s or 5.0, step_s=step, gap_s=self.gap_s)


class People(EcgCohort):
    """The people of `simulate: ecg`."""

    kind: Literal["ecg"] = "ecg"


class Births(CtgCohort):
    """The births of `simulate: ctg`."""

    kind: Literal["ctg"] = "ctg"


class Recorded(Spec):
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

    wesad: Place | None = None
    ctu: Place | None = None
    eegmat: Place | None = None
    mitdb: Place | None = None
    recordings: Place | None = None
    simulate: Literal["ecg", "ctg"] | None = None
    cohort: Annotated[People | Births, Field(discriminator="kind")] | None = None
    task: str | None = None
    outcome: str | None = None
    window: Window | None = None
    channel: str | None = None
    picture: Picture | None = None
    clean: CtgRules | None = None
    per_subject: bool = False
    heartbeat: bool | None = None

    @field_validator("cohort", mode="before")
    @classmethod
    def _kind_of_cohort(cls, value: Any, info: ValidationInfo) -> Any:
        simulated = info.data.get("simulate")
        return {"kind": simulated, **value} if isinstance(value, dict) and simulated else value

    @field_validator("picture", mode="before")
    @classmethod
    def _kind_of_picture(cls, value: Any, info: ValidationInfo) -> Any:
        births = info.data.get("ctu") is not None or info.data.get("simulate") == "ctg"
        short = {"kind": value} if isinstance(value, str) else value
        if not isinstance(short, dict):
            return short
        kind = short.get("kind", "ctg" if births else "spectrogram")
        if kind not in PICTURES:
            raise ValueError(f"kind is {kind!r}, expected {listing(PICTURES)}{nearest(str(kind), PICTURES)}")
        return {"kind": kind, **short}

    @field_validator("outcome")
    @classmethod
    def _known_rule(cls, rule: str | None) -> str | None:
        try:
            outcome_class({}, rule or "pH<7")
        except SpecError as error:
            raise ValueError(str(error)) from None
        except DataError:
            pass  # the rule is one; there was no outcome to judge
        return rule


def refuse_contradictions(spec: Recorded, source: str) -> None:
    """Raises ValueError for options that the source of recordings cannot follow, naming both."""
    name = f"simulate: {spec.simulate}" if source == "simulate" else source
    births, strips = source == "ctu" or spec.simulate == "ctg", source in ("wesad", "eegmat", "mitdb") or spec.simulate == "ecg"
    for option, belongs in _OF_BIRTHS.items() if strips else _OF_STRIPS.items() if births else ():
        if getattr(spec, option) not in (None, False):
            raise ValueError(f"'{option}' belongs to {belongs} and does nothing for '{name}': remove it")
    if spec.picture is not None and (births or strips) and births != isinstance(spec.picture, Ctg):
        wanted = "ctg" if births else "spectrogram, scalogram or trace"
        raise ValueError(f"'picture: {spec.picture.kind}' cannot be drawn of '{name}': expected {wanted}")
    if source == "recordings":
        _one_kind(spec)
    if spec.cohort is not None and spec.cohort.kind != spec.simulate:
        raise ValueError(f"'cohort' is of kind '{spec.cohort.kind}' and 'simulate' says '{spec.simulate}': make them one")
    if source == "mitdb" and spec.window and (spec.window.step_s is not None or spec.window.gap_s is not None):
        raise ValueError("'window' has a step or gap, and 'mitdb' has one window about each beat: keep 'length_s' alone")
    tasks = _TASKS.get(name)
    if spec.task is not None and tasks and spec.task not in tasks:
        raise ValueError(f"task is '{spec.task}', expected {listing(tasks)} for '{name}'{nearest(spec.task, tasks)}")


def _one_kind(spec: Recorded) -> None:
    births = [f"picture: {spec.picture.kind}"] if isinstance(spec.picture, Ctg) else ["clean"] if spec.clean else []
    others = [name for name in ("window", "channel", "per_subject", "heartbeat") if getattr(spec, name) not in (None, False)]
    others += [f"picture: {spec.picture.kind}"] if spec.picture and not isinstance(spec.picture, Ctg) else []
    if births and others:
        raise ValueError(f"'{births[0]}' is about cardiotocograms and '{others[0]}' about one channel: keep one")


# --- from words to a View -------------------------------------------------------------------------------------------------


def view_of(spec: Recorded, source: str, size: int | None, recordings: Sequence[Recording]) -> View:
    """What a spec asks for, with every default filled in. `size`: of the stored pictures; a picture's own size comes first."""
    if source == "ctu" or spec.simulate == "ctg" or (source == "recordings" and _are_births(spec, recordings)):
        picture = spec.picture if isinstance(spec.picture, Ctg) else Ctg()
        rule = spec.outcome or ("apgar<=6" if source == "ctu" else None)
        own = source == "recordings" and rule is None
        clean = spec.clean or CtgRules()
        return Cardiotocogram(picture=_sized(picture, size), clean=clean, outcome=rule, classes=None if own else CLASSES)
    window = spec.window or Window()
    beats = source == "mitdb"
    labels, classes = _task(spec, source)
    return Strip(
        channel=spec.channel or _channel(source, recordings),
        picture=_sized(spec.picture if spec.picture and not isinstance(spec.picture, Ctg) else _usual_picture(source), size),
        rule=None if beats else window.rule(),
        event_s=(window.length_s or BEATS_S) if beats else None,
        labels=labels,
        outcome=spec.outcome,
        classes=CLASSES if spec.outcome else classes,
        per_subject=spec.per_subject,
        heartbeat=spec.heartbeat if spec.heartbeat is not None else source == "eegmat",
    )


def _sized(picture: Any, size: int | None) -> Any:
    return picture.with_(size=size) if size is not None and "size" not in picture.model_fields_set else picture


def _usual_picture(source: str) -> Spectrogram | Trace:
    """A beat is too short for a spectrogram of SciPy's segments; its shape is what cardiologists read."""
    return Trace() if source == "mitdb" else Spectrogram()


def _are_births(spec: Recorded, recordings: Sequence[Recording]) -> bool:
    if isinstance(spec.picture, Ctg) or spec.clean is not None:
        return True
    plain = spec.picture is None and spec.window is None and spec.channel is None
    return plain and all({"FHR", "UC"} <= set(r.channels) for r in recordings)


def _channel(source: str, recordings: Sequence[Recording]) -> str:
    if source != "recordings":
        return "MLII" if source == "mitdb" else "ECG"
    there = sorted({name for recording in recordings for name in recording.channels})
    if len(there) != 1:
        raise DataError(f"the recordings have the channels {listing(there)}: say which one is drawn with channel: {there[0]}")
    return there[0]


def _task(spec: Recorded, source: str) -> tuple[dict[str, str] | None, tuple[str, ...] | None]:
    """(label → class, classes in order) of a source."""
    name = f"simulate: {spec.simulate}" if source == "simulate" else source
    if name not in _TASKS:
        return None, _ORDERS.get(source)
    task = spec.task or next(iter(_TASKS[name]))
    labels = _TASKS[name][task]
    return (dict(labels) if labels else None), _order(labels)


def _order(labels: Mapping[str, str] | None) -> tuple[str, ...] | None:
    return None if labels is None else tuple(dict.fromkeys(labels.values()))


# ANSI/AAMI EC57 classes of beats; fusion beats and paced ones, which have too few patients to be held out, are left out.
_AAMI = {
    "normal": "NLRej",
    "supraventricular": "AaJS",
    "ventricular": "VE",
}
_STRESS: dict[str, Mapping[str, str] | None] = {"3-class": wesad.TASKS["3-class"], "2-class": wesad.TASKS["2-class"]}
_TASKS: dict[str, dict[str, Mapping[str, str] | None]] = {
    "wesad": _STRESS,
    "simulate: ecg": _STRESS,
    "mitdb": {"aami": {symbol: name for name, symbols in _AAMI.items() for symbol in symbols}, "symbols": None},
}
_ORDERS: dict[str, tuple[str, ...]] = {"eegmat": ("rest", "task")}
_OF_BIRTHS = {"outcome": "cardiotocograms", "clean": "cardiotocograms"}
_OF_STRIPS = {
    "task": "wesad, mitdb or simulate: ecg",
    "window": "windows of one channel (a cardiotocogram's are under clean.cut)",
    "channel": "windows of one channel",
    "per_subject": "windows of one channel",
    "heartbeat": "electrocardiograms",
}
