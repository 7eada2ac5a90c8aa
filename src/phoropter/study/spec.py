"""The specification of a study: dataset × candidates × protocol (× sweeps), read from a YAML file or made in Python.

A file may hold several documents (`---` between them): the parts of one paper, run one after another. The
sweeps of a study are expanded by variants/sweep.py, its planned contrasts are those of results/questions/planned.py.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from phoropter.core.errors import SpecError, did_you_mean, join_words
from phoropter.core.extensions import REFERENCE
from phoropter.core.spec import SourceMap, Spec, load_yaml, validate_as
from phoropter.data.recordings.databases import DATABASES
from phoropter.data.spec import DataSpec
from phoropter.data.splits.spec import Protocol, ProtocolSpec
from phoropter.results.clinical.aggregation import check_rule
from phoropter.results.clinical.spec import ClinicalSpec
from phoropter.results.metrics.custom import Metric
from phoropter.results.metrics.registry import get_metric, metric_names
from phoropter.results.questions.planned import PlannedQuestions
from phoropter.results.shift.spec import ShiftSpec
from phoropter.study.settings.about import About
from phoropter.study.settings.assignments import apply_assignments, parse_assignment
from phoropter.study.settings.controls_spec import ControlsSpec
from phoropter.study.settings.side_specs import LearningCurveSpec, TuneSpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import find_idle_words, parse_candidates
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.candidates.recipe import FEATURE_FIELDS, Recipe

_DECIDE_STORING = ("recipe.augment", "recipe.tta", "recipe.cached_views")  # swept, they decide who stores features


class ScreeningSpec(Spec):
    """Screening: every candidate is tried by a probe, then the best `keep` by `final_recipe`, on the same splits.

    keep: how many candidates go on · final_recipe: recipe of the final rung
    budget_h: hours the final rung may take, by the plan's estimate: as many of the best `keep` as fit, and at least one
    """

    keep: int = Field(default=3, ge=1)
    final_recipe: Any = "head-then-all"
    budget_h: float | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class StudyContext:
    """What a study carries beside its keys; none of it decides a number.

    source:          file name and lines, for error messages
    base:            the folder relative paths start from
    text:            the text of the file
    smoke_changes:   what `--smoke` changed, in sentences
    compared_study:  name of the study that this is one half of, where two protocols are compared
    screening_rungs: the rungs of the screening that are settled, as study.json records them
    settled_defaults: what the study left open and was settled when it was loaded, and what of it changes nothing, in sentences
    """

    source: SourceMap = field(default_factory=SourceMap)
    base: Path | None = None
    text: str | None = None
    smoke_changes: tuple[str, ...] = ()
    compared_study: str = ""
    screening_rungs: tuple[dict[str, Any], ...] = ()
    settled_defaults: tuple[str, ...] = ()


class StudySpec(Spec):
    """A study: its fields are the keys of a study file.

    name:               of the study and of its results folder: letters, digits and . _ -
    about:              documentation of a shipped study
    data:               the images, their labels and groups
    protocol:           how the images are split into training and test parts
    recipe:             how candidates are trained that have no recipe of their own: a preset, or a mapping that changes one
    candidates:         names of backbones, or mappings; what is compared
    sweep:              key → values, such as `{recipe.augment: [none, cutmix]}`; every combination becomes candidates
    tune:               key → values, such as `{recipe.lr: [1e-4, 3e-4]}`; one combination is chosen inside each training part
    learning_curve:     shares of the training part on which every candidate is trained too, such as `[0.1, 0.2, 0.5, 1.0]`
    metrics:            what the report shows; the first decides the order
    shift:              corrupted versions of the test rows on which finished classifiers are evaluated too, without training
                        anew: `true` for those that fit the data, or a mapping
    controls:           negative controls: `[labels-permuted, predict-site, predict-group, blank-pictures, time-shuffled]` or some
                        of them, each of one candidate
    save_models:        which trained models are kept as bundles: that of each candidate's first run (`first`), `all`, or `none`
    aggregate:          how the windows of a recording, or the rows of a person, become one answer: `mean` of their probabilities,
                        `vote`, `max`, or `top-K`, the mean over the K rows with the highest probability of the positive class
    clinical:           how common the positive class is where the classifier will be used, and which false alarms are bearable
    equivalence_margin: the largest difference of the first metric that does not matter (0.01 of accuracy is one point)
    leakage:            what a leakage finding does: `stop` runs nothing, `warn` reports it, `allow` records it
    compare:            questions asked beforehand: a primary contrast, and secondary ones; the page answers them first
    second_protocol:    run the study under two protocols, one with groups on both sides and one with groups held out. `true`
                        derives the second protocol from `protocol`; a mapping of protocol keys states it
    screening:          try every candidate by a probe, and only the best few in full; `true` for the defaults
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")
    about: About | None = None
    data: DataSpec
    protocol: ProtocolSpec = ProtocolSpec()
    recipe: Any = "finetune"
    candidates: list[Any]
    sweep: dict[str, list[Any]] = {}
    tune: TuneSpec | None = None
    learning_curve: LearningCurveSpec | None = None
    metrics: tuple[str | Metric, ...] = ("accuracy", "macro_f1")
    aggregate: str = "mean"
    clinical: ClinicalSpec = ClinicalSpec()
    shift: ShiftSpec | None = None
    controls: ControlsSpec | None = None
    equivalence_margin: float | None = Field(None, gt=0)
    save_models: Literal["none", "first", "all"] = "first"
    leakage: Literal["stop", "warn", "allow"] = "stop"
    compare: PlannedQuestions | None = None
    second_protocol: bool | dict[str, Any] = False
    screening: ScreeningSpec | None = None

    _context: StudyContext = PrivateAttr(default_factory=StudyContext)

    @property
    def context(self) -> StudyContext:
        return self._context

    def with_context(self, **changes: Any) -> Self:
        """A copy with fields of its context changed."""
        copy = self.model_copy()
        copy._context = replace(self._context, **changes)
        return copy

    def with_changes(self, **changes: Any) -> Self:
        """A copy with some keys changed, checked again; its context stays."""
        copy = super().with_changes(**changes)
        copy._context = self._context
        return copy

    @property
    def source(self) -> SourceMap:
        return self._context.source

    @property
    def base(self) -> Path | None:
        return self._context.base

    @property
    def metric_names(self) -> list[str]:
        return metric_names(self.metrics)

    @property
    def parsed_recipe(self) -> Recipe:
        """The study's recipe, complete. Raises SpecError."""
        return parse_recipe(self.recipe, None, self.source, ("recipe",))

    @property
    def parsed_candidates(self) -> list[Candidate]:
        """The candidates, each with its complete recipe. Raises SpecError."""
        return parse_candidates(self.candidates, self.parsed_recipe, self.source)

    def check_candidates(self, unasked: Collection[str] = ()) -> None:
        """Raises SpecError for candidates that cannot be parsed, and where the recipe says how features are stored and none are.

        unasked: words that none needs to read
        """
        candidates, stored_as = self.parsed_candidates, [name for name in FEATURE_FIELDS if name not in unasked]
        if isinstance(self.recipe, dict):
            stored_as = [name for name in stored_as if name in self.recipe]
        final = self.screening.final_recipe if self.screening else None
        if unread := next((name for name in FEATURE_FIELDS if isinstance(final, dict) and name in final), None):
            where = self.source.describe_location(("screening", "final_recipe", unread))
            raise SpecError(f"{where}: {unread} is for stored features, and the final recipe trains networks; leave it out")
        varied = {*self.sweep, *(self.tune.grid if self.tune else ())}
        if not stored_as or self.screening is not None or not varied.isdisjoint(_DECIDE_STORING):
            return
        if idle := find_idle_words(self.candidates, self.recipe, stored_as):
            stores = any(candidate.stores_features for candidate in candidates)
            why = "all that store features have recipes of their own" if stores else "none stores features; say frozen: true"
            where = self.source.describe_location(("recipe", idle[0]))
            raise SpecError(f"{where}: {idle[0]} in the study's recipe changes no candidate: {why}, or leave it out")

    @field_validator("screening", "shift", mode="before")
    @classmethod
    def _expand_true(cls, value: Any) -> Any:
        return ({} if value else None) if isinstance(value, bool) else value

    @field_validator("protocol", mode="before")
    @classmethod
    def _expand_split_name(cls, value: Any) -> Any:
        return {"split": value} if isinstance(value, str) else value

    @field_validator("aggregate")
    @classmethod
    def _check_aggregate(cls, rule: str) -> str:
        return check_rule(rule)

    @field_validator("metrics", mode="before")
    @classmethod
    def _check_metrics(cls, value: Any) -> Any:
        given = tuple(value or ()) if isinstance(value, (list, tuple, type(None))) else (value,)
        metrics = [m if isinstance(m, str) and not REFERENCE.fullmatch(m) else Metric.parse_value(m) for m in given]
        try:
            for metric in metrics:
                get_metric(metric)
        except SpecError as error:
            raise ValueError(str(error)) from None
        names = metric_names(metrics)
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the metric '{twice}' is named twice; name it once")
        return tuple(metrics)

    @model_validator(mode="after")
    def _check_questions(self) -> StudySpec:
        if self.compare is not None and self.screening is not None:
            raise ValueError("'compare' and 'screening' contradict each other: a screening chooses candidates by their results")
        for name in ("tune", "learning_curve"):
            if getattr(self, name) is not None and self.screening is not None:
                raise ValueError(
                    f"'{name}' and 'screening' contradict each other; screen first, then write a study of the finalists"
                )
            if getattr(self, name) is not None and self.protocol.split == "test-only":
                raise ValueError(f"'{name}' needs a training part, and split: test-only has none; leave it out")
        if both := self.tune and next((key for key in self.tune.grid if key in self.sweep), None):
            raise ValueError(f"{both} is swept and tuned; leave it out of 'sweep' or of 'tune'")
        return self

    @field_validator("candidates", mode="before")
    @classmethod
    def _candidates_list(cls, value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value


def read_study(path: Path | str, settings: Sequence[str] = (), only: Sequence[str] = ()) -> list[StudySpec]:
    """A study file, or the name of a shipped study → its parts.

    settings: KEY=VALUE each, written into the parts before they are checked (settings/assignments.py)
    only: names of the parts that settings are written into; (): all
    Raises SpecError with file, line and the nearest valid word.
    """
    file = _find_study_file(path)
    assigned = [parse_assignment(setting) for setting in settings]
    documents = [apply_assignments(data, source, assigned if _is_named(data, only) else ()) for data, source in load_yaml(file)]
    text = file.read_text(encoding="utf-8") + "".join(f"# changed on the command line: --set {each}\n" for each in settings)
    if not documents:
        raise SpecError(f"{file}: the file is empty; expected a study with name, data and candidates")
    base = default_data_folder() if file.parent == SHIPPED_FOLDER else file.parent.resolve()
    parts = [
        part
        for data, source in documents
        for part in expand_protocols(_validate_study(data, source).with_context(source=source, base=base, text=text))
    ]
    for part in parts:
        several = len(documents) > 1  # a word of the command line is for some of the parts
        elsewhere = [at[1] for at in part.source.elsewhere if len(at) > 1 and at[0] == "recipe"]
        part.check_candidates([str(name) for name in elsewhere] if several else ())  # where the file and its lines are known
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise SpecError(f"{file.name}: two parts have the same name ({join_words(names)}); give each its own")
    return parts


def _is_named(data: Any, only: Sequence[str]) -> bool:
    """Whether the plain data of a part, or a half of it under one of two protocols, have one of some names; (): any."""
    name = data.get("name") if isinstance(data, dict) else None
    halves = (f"{name}-{half}" for half in (*_SUBJECT_NAMES, *_PATIENT_NAMES))
    return not only or not {str(name), *halves}.isdisjoint(only)


def expand_protocols(study: StudySpec) -> list[StudySpec]:
    """The study itself; with `second_protocol` two: groups on both sides of the splits, and groups held out.

    Where a unit is a patient they are NAME-intra-patient and NAME-inter-patient, the ECG literature's terms (de Chazal 2004),
    else NAME-within-subject and NAME-subject-held-out. Published values stay with the half whose protocol the file states.
    Raises SpecError for a protocol that cannot put groups on both sides.
    """
    if not study.second_protocol:
        return [study]
    stated = study.protocol.model_dump(exclude_unset=True) | {"split": study.protocol.split}
    stated_overlaps = study.protocol.allow_group_overlap
    given = study.second_protocol
    other = given if isinstance(given, dict) else _derive_other_protocol(stated, stated_overlaps)
    within, held_out = (stated, other) if stated_overlaps else (other, stated)
    within_name, held_out_name = _PATIENT_NAMES if _has_patients(study.data) else _SUBJECT_NAMES
    halves = []
    for name, keys, overlap in ((within_name, within, True), (held_out_name, held_out, False)):
        at = ("second_protocol",) if keys is other and isinstance(given, dict) else ("protocol",)
        protocol = validate_as(ProtocolSpec, {**keys, "allow_group_overlap": overlap}, study.source, at)
        about = study.about if keys is stated or study.about is None else study.about.model_copy(update={"published": {}})
        changes = {"name": f"{study.name}-{name}", "about": about, "second_protocol": False, "protocol": protocol}
        halves.append(study.model_copy(update=changes).with_context(compared_study=study.name))
    return halves


_SUBJECT_NAMES = ("within-subject", "subject-held-out")
_PATIENT_NAMES = ("intra-patient", "inter-patient")

# The split that mixes groups, for each that keeps them together by construction; the others mix them when allowed to.
_UNGROUPED_SPLIT = {
    "group-k-fold": "k-fold",
    "stratified-group-k-fold": "stratified-k-fold",
    "leave-one-group-out": "stratified-k-fold",
}


def _derive_other_protocol(stated: dict[str, Any], overlaps: bool) -> dict[str, Any]:
    if stated["split"] == "file" or isinstance(stated["split"], Protocol):
        raise SpecError(
            "second_protocol: true cannot be derived from splits of your own; state it, as second_protocol: {split: …}"
        )
    return stated if overlaps else {**stated, "split": _UNGROUPED_SPLIT.get(stated["split"], stated["split"])}


def _has_patients(data: DataSpec) -> bool:
    used = [database for key, database in DATABASES.items() if getattr(data, key, None) is not None]
    return any(database.subjects == "patients" for database in [*used, data.database] if database)


def _validate_study(data: Any, source: SourceMap) -> StudySpec:
    if not isinstance(data, dict):
        raise SpecError(f"{source.name}: expected a mapping with name, data and candidates, but {type(data).__name__} came")
    return validate_as(StudySpec, data, source)


SHIPPED_FOLDER = Path(__file__).parent.parent / "studies"


def list_shipped_studies() -> dict[str, Path]:
    """Name → file of the studies that come with phoropter."""
    return {p.stem: p for p in sorted(SHIPPED_FOLDER.glob("*.yaml"))}


def default_data_folder() -> Path:
    """Where shipped studies look for their data: `PHOROPTER_DATA`, default `./data`."""
    return Path(os.environ.get("PHOROPTER_DATA", "data")).expanduser().resolve()


def _find_study_file(path: Path | str) -> Path:
    known = list_shipped_studies()
    if str(path) in known:
        return known[str(path)]
    file = Path(path).expanduser()
    if not file.exists() and file.suffix not in (".yaml", ".yml"):
        hint = did_you_mean(str(path), known) or f"; shipped studies are {', '.join(known)}"
        raise SpecError(f"{path} is neither a file nor a shipped study{hint}")
    return file
