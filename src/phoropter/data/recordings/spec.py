"""What a user writes under `data:` about recordings: how windows are cut, labelled and represented as images.

    data: {wesad: WESAD, task: 2-class, window: {length_s: 5, step_s: 2}, representation: {style: dense}}
    data: {ctu: ctu-uhb-ctgdb, outcome: "pH<=7.15", clean: {filter: {fhr_lowpass: 10}}}

These fields are part of DataSpec. Here they become a View (views.py), with every default of the database filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from phoropter.core.errors import DataError, SpecError, did_you_mean, join_words
from phoropter.core.extensions import REFERENCE, is_code_trusted, resolve_reference
from phoropter.core.spec import Spec
from phoropter.data.labels.label_sets import MultiLabel, check_plain_multi_label
from phoropter.data.recordings.database import Database
from phoropter.data.recordings.databases import DATABASES, MANIFEST, SIMULATIONS
from phoropter.data.recordings.views import BEAT_WINDOW_S, ChannelView, CtgView, GreyScale, RecordingView
from phoropter.signals.ctg import CtgRules
from phoropter.signals.outcomes import OUTCOME_CLASSES, outcome_class
from phoropter.signals.recording import Recording
from phoropter.signals.render import REPRESENTATIONS, CtgPlot, Representation, Spectrogram
from phoropter.signals.simulate import CtgCohort, EcgCohort
from phoropter.signals.windows import WindowRule


class WindowSpec(Spec):
    """How windows of one channel follow each other; around events only `length_s` applies.

    length_s: length in seconds (default: 5, around events 0.8, ptbxl 10)
    step_s:   seconds from start to start (default: 2, SONIC's "window gap" read as a step)
    gap_s:    seconds from end to start, in place of step_s
    """

    length_s: PositiveFloat | None = None
    step_s: PositiveFloat | None = None
    gap_s: NonNegativeFloat | None = None

    @model_validator(mode="after")
    def _check_step_or_gap(self) -> WindowSpec:
        if self.step_s is not None and self.gap_s is not None:
            raise ValueError("'step_s' (start to start) and 'gap_s' (end to start) contradict each other: keep one")
        return self

    def to_rule(self, default_length_s: float) -> WindowRule:
        """The rule with the defaults filled in."""
        step = 2.0 if self.step_s is None and self.gap_s is None else self.step_s
        return WindowRule(length_s=self.length_s or default_length_s, step_s=step, gap_s=self.gap_s)


class EcgCohortSpec(EcgCohort):
    """The people of `simulate: ecg`."""

    kind: Literal["ecg"] = "ecg"


class CtgCohortSpec(CtgCohort):
    """The births of `simulate: ctg`."""

    kind: Literal["ctg"] = "ctg"


class RecordingFields(Spec):
    """The part of DataSpec that is about recordings.

    database:        of `recordings:`, the Database of the user's own that reads the folder
    cohort:          of `simulate:`, who is simulated
    task:            which classes: 2-class or 3-class (wesad, simulate: ecg), aami or symbols (mitdb), superclass (ptbxl)
    multi_label:     whether a row may have several labels: `true` reads `edema|mass` in the column label, and `none` where it has
                     none of them; arrays of 0 and 1, lists, and all superclasses of ptbxl, as they are.
                     `{columns: [edema, mass]}`: a column of 0 and 1 for each label
    outcome:         a rule that makes two classes of outcomes, such as apgar<=6 or pH<=7.15
    window:          how one channel is cut into windows
    channel:         the channel to represent
    representation:  the image of a window: {kind: spectrogram | scalogram | trace | ctg, …}; `size` pixels wide by default
    clean:           how cardiotocograms are cleaned, cut and filtered
    grey_scale:      per-image, or per-subject: one grey scale for all windows of a subject
    resample_hz:     bring recordings of other rates to this one, in Hz (default: another rate is bad input)
    gaps:            what a jump in time is: missing samples, which no window may hold, or bad input: missing (default), refuse
    missing:         values that stand for a missing sample, such as [-9999, 32767], in the units of the file
    require_r_peaks: whether an ECG in which no heartbeat is found is bad input (default: for eegmat)
    """

    database: Database | None = None
    cohort: Annotated[EcgCohortSpec | CtgCohortSpec, Field(discriminator="kind")] | None = None
    task: str | None = None
    multi_label: MultiLabel = None
    outcome: str | None = None
    window: WindowSpec | None = None
    channel: str | None = None
    representation: Representation | None = None
    clean: CtgRules | None = None
    grey_scale: GreyScale | None = None
    resample_hz: PositiveFloat | None = None
    gaps: Literal["missing", "refuse"] | None = None
    missing: tuple[FiniteFloat, ...] = ()
    require_r_peaks: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _infer_kinds(cls, data: Any) -> Any:
        """Adds the `kind` of the cohort and of the representation where the source implies it."""
        if not isinstance(data, dict):
            return data
        filled, simulated = dict(data), data.get("simulate")
        if isinstance(cohort := data.get("cohort"), dict) and simulated in ("ecg", "ctg"):
            filled["cohort"] = {"kind": simulated, **cohort}
        representation = data.get("representation")
        if isinstance(representation, str):
            filled["representation"] = {"kind": representation}
        elif isinstance(representation, dict):
            filled["representation"] = {"kind": "ctg" if _names_ctg_source(data) else "spectrogram", **representation}
        return filled

    @field_validator("representation", mode="before")
    @classmethod
    def _check_representation_kind(cls, value: Any) -> Any:
        kind = value.get("kind") if isinstance(value, dict) else None
        if kind is not None and kind not in REPRESENTATIONS:
            raise ValueError(
                f"kind is {kind!r}, expected {join_words(REPRESENTATIONS)}{did_you_mean(str(kind), REPRESENTATIONS)}"
            )
        return value

    @field_validator("missing", mode="before")
    @classmethod
    def _accept_one_number(cls, value: Any) -> Any:
        """`missing: -9999` stands for `missing: [-9999]`."""
        return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    @field_validator("outcome")
    @classmethod
    def _check_outcome_rule(cls, rule: str | None) -> str | None:
        try:
            outcome_class({}, rule or "pH<7")
        except SpecError as error:
            raise ValueError(str(error)) from None
        except DataError:
            pass  # the rule is well formed; there was no outcome to apply it to
        return rule


def resolve_database(spec: RecordingFields, source: str) -> Database:
    """The Database that a source of recordings reads: a key of DATABASES, "recordings" or "simulate"."""
    if source == "simulate":
        return SIMULATIONS[getattr(spec, "simulate", None) or "ecg"]
    database = spec.database or DATABASES.get(source, MANIFEST)
    return database if spec.multi_label is None else database.with_label_sets


def check_recording_options(spec: RecordingFields, source: str) -> None:
    """Raises ValueError for options that the source of recordings cannot obey, naming both."""
    database, name = resolve_database(spec, source), _describe_source(spec, source)
    if not database.has_reader:
        return  # a record of a user's database, which names it and does not hold its options
    for option in ("window", "channel", "grey_scale", "require_r_peaks") if database.windows == "ctg" else ():
        if getattr(spec, option) is not None:
            hint = " (a cardiotocogram's windows are under clean.window)" if option == "window" else ""
            raise ValueError(f"'{option}' belongs to windows of one channel{hint} and does nothing for '{name}': remove it")
    _check_multi_label(spec, database)
    for option in ("outcome", "clean") if database.windows in ("sliding", "events") else ():
        if getattr(spec, option) is not None and (option == "clean" or database.tasks or database.classes):
            raise ValueError(f"'{option}' belongs to cardiotocograms and does nothing for '{name}': remove it")
    ctg = isinstance(spec.representation, CtgPlot)
    if spec.representation is not None and database.windows is not None and ctg != (database.windows == "ctg"):
        wanted = "spectrogram, scalogram or trace" if ctg else "ctg"
        raise ValueError(f"'representation: {spec.representation.kind}' does not fit '{name}': expected {wanted}")
    if database.windows is None:
        _check_single_kind(spec)
    if spec.cohort is not None and spec.cohort.kind != getattr(spec, "simulate", None):
        raise ValueError(
            f"'cohort' is of kind '{spec.cohort.kind}' and 'simulate' is '{getattr(spec, 'simulate', None)}': make them the same"
        )
    if database.windows == "events" and spec.window and (spec.window.step_s is not None or spec.window.gap_s is not None):
        raise ValueError(f"'window' has a step or gap, and '{name}' has one window around each event: keep 'length_s' alone")
    _check_task(spec, database, name)


def _check_task(spec: RecordingFields, database: Database, name: str) -> None:
    if spec.task is None or spec.task in database.tasks:
        return
    if not database.tasks:
        known = [*(key for key, other in DATABASES.items() if other.tasks), "simulate: ecg"]
        raise ValueError(f"'task' belongs to {join_words(known)} and does nothing for '{name}': remove it")
    expected = f"expected {join_words(database.tasks)} for '{name}'"
    raise ValueError(f"task is '{spec.task}', {expected}{did_you_mean(spec.task, database.tasks)}")


def _check_multi_label(spec: RecordingFields, database: Database) -> None:
    """Raises ValueError where labels of recordings cannot be several, naming what stands against it."""
    if spec.multi_label is None:
        return
    if database.read_label_sets is not None:
        check_plain_multi_label(spec)
    elif spec.multi_label.columns:
        raise ValueError("'columns' of 'multi_label' belong to a manifest of pictures: write `a|b` in the label of a recording")
    other = next((name for name in ("task", "outcome") if getattr(spec, name) is not None), None)
    if other or database.tasks or database.outcome:
        word = f"'{other}'" if other else f"the database '{database.name}'"
        raise ValueError(f"'multi_label' takes the labels as they are, and {word} makes one class of each: remove one")


def _check_single_kind(spec: RecordingFields) -> None:
    """Raises ValueError where some options are about cardiotocograms and others about one channel."""
    representation = [f"representation: {spec.representation.kind}"] if spec.representation else []
    is_ctg = isinstance(spec.representation, CtgPlot)
    ctg = [*(representation if is_ctg else []), *(["clean"] if spec.clean else [])]
    channel = [name for name in ("window", "channel", "grey_scale", "require_r_peaks") if getattr(spec, name) is not None]
    channel += [] if is_ctg else representation
    if ctg and channel:
        raise ValueError(f"'{ctg[0]}' is about cardiotocograms and '{channel[0]}' about one channel: keep one")


def _describe_source(spec: RecordingFields, source: str) -> str:
    if spec.database is not None:
        return spec.database.name
    return f"simulate: {getattr(spec, 'simulate', None)}" if source == "simulate" else source


def _names_ctg_source(data: Mapping[str, Any]) -> bool:
    """Whether the plain data of a DataSpec name a source of cardiotocograms."""
    database = data.get("database")
    if isinstance(database, str) and REFERENCE.fullmatch(database) and is_code_trusted():
        try:
            database = resolve_reference(database, Database)
        except ValueError:
            return False  # refused at its own key
    if isinstance(database, Database):
        return database.windows == "ctg"
    named = any(data.get(key) is not None for key, known in DATABASES.items() if known.windows == "ctg")
    return named or data.get("simulate") == "ctg"


# --- from fields to a View ------------------------------------------------------------------------------------------------


def resolve_recording_view(
    spec: RecordingFields, source: str, size: int | None, recordings: Sequence[Recording]
) -> RecordingView:
    """The View a spec describes, every default filled in. `size` is of the stored images; a representation's own size wins."""
    database = resolve_database(spec, source)
    if database.windows == "ctg" or (database.windows is None and _are_cardiotocograms(spec, recordings)):
        plot = next((p for p in (spec.representation, database.representation) if isinstance(p, CtgPlot)), CtgPlot())
        rule = spec.outcome or database.outcome
        return CtgView(
            representation=_apply_size(plot, size),
            clean=spec.clean or CtgRules(),
            outcome=rule,
            classes=OUTCOME_CLASSES if rule else database.classes,
        )
    window, around_events = spec.window or WindowSpec(), database.windows == "events"
    length_s = window.length_s or database.window_s
    labels, classes = _resolve_task(spec, database)
    return ChannelView(
        channel=spec.channel or database.channel or _only_channel(recordings),
        representation=_apply_size(spec.representation or database.representation or Spectrogram(), size),
        rule=None if around_events else window.to_rule(length_s or 5.0),
        event_s=(length_s or BEAT_WINDOW_S) if around_events else None,
        labels=labels,
        outcome=spec.outcome,
        classes=OUTCOME_CLASSES if spec.outcome else classes,
        grey_scale=spec.grey_scale or database.grey_scale,
        require_r_peaks=database.require_r_peaks if spec.require_r_peaks is None else spec.require_r_peaks,
    )


def _apply_size(representation: Any, size: int | None) -> Any:
    fixed = size is None or "size" in representation.model_fields_set
    return representation if fixed else representation.with_changes(size=size)


def _are_cardiotocograms(spec: RecordingFields, recordings: Sequence[Recording]) -> bool:
    if isinstance(spec.representation, CtgPlot) or spec.clean is not None:
        return True
    undecided = spec.representation is None and spec.window is None and spec.channel is None
    return undecided and all({"FHR", "UC"} <= set(r.channels) for r in recordings)


def _only_channel(recordings: Sequence[Recording]) -> str:
    names = sorted({name for recording in recordings for name in recording.channels})
    if len(names) != 1:
        raise DataError(
            f"the recordings have the channels {join_words(names)}: choose one with channel: {names[0]}, or write "
            f"{names[0]}{';' if ' ' in names[0] else ''} into a column channels of their manifest"
        )
    return names[0]


def _resolve_task(spec: RecordingFields, database: Database) -> tuple[dict[str, str] | None, tuple[str, ...] | None]:
    """(label → class, classes in order) of a database's task; None: the labels themselves, in the order of Dataset."""
    if not database.tasks:
        return None, database.classes
    labels = database.tasks[spec.task or next(iter(database.tasks))]
    return (dict(labels), tuple(dict.fromkeys(labels.values()))) if labels else (None, None)
