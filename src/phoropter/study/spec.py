"""Study: dataset × candidates × protocol (× sweeps). The question, as a value; read from a YAML file or made in Python.

A file may hold several documents (`---` between them): the parts of one paper, run one after another. Variants of a study are
other studies: `variants` unfolds a sweep into them, so that planning and running know nothing of sweeps.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from phoropter.core.errors import SpecError, did_you_mean, join_words
from phoropter.core.spec import SourceMap, Spec, load_yaml, validate_as
from phoropter.data.spec import DataSpec
from phoropter.data.splits.spec import ProtocolSpec
from phoropter.results.metrics.registry import get_metric
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.candidates.recipe import Recipe


class About(Spec):
    """What a shipped study says of itself: where it comes from, what to expect, how long it takes, which data it needs.

    published: candidate → metric → figure, as the source prints it; shown beside ours, never a target
    """

    source: str
    time: str = ""
    expect: str = ""
    data: str = ""
    published: dict[str, dict[str, float]] = {}


class ScreeningSpec(Spec):
    """Every candidate by a probe, then the best `keep` by the recipe `then`, on the same splits (study/ladder).

    budget_h: hours the second rung may take, by the plan's estimate: as many of the best `keep` as fit, and at least one
    """

    keep: int = Field(default=3, ge=1)
    final_recipe: Any = "head-then-all"
    budget_h: float | None = Field(default=None, gt=0)


class StudySpec(Spec):
    """The question.

    keep: whose bundles are kept: of the first fold of the first seed (`first`), of every run (`all`), or none
    margin: the difference of the first metric that does not matter (0.01 of accuracy is a point), named before looking
    leakage: what happens when the audit finds that what is tested was learned from: nothing is run, it is said, or it is recorded
    strategy: none: every candidate in full; ladder: all by a probe, and the best few in full
    lax_too: also run with groups on both sides, to see what a laxer protocol would claim; `protocol: compare` says the same
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")
    about: About | None = None
    data: DataSpec
    protocol: ProtocolSpec = ProtocolSpec()
    recipe: Any = "finetune"
    candidates: list[Any]
    sweep: dict[str, list[Any]] = {}
    metrics: tuple[str, ...] = ("accuracy", "macro_f1")
    equivalence_margin: float | None = Field(None, gt=0)
    save_models: Literal["none", "first", "all"] = "first"
    leakage: Literal["stop", "warn", "allow"] = "stop"
    compare: bool = False
    screening: ScreeningSpec | None = None

    @field_validator("strategy", mode="before")
    @classmethod
    def _expand_screening(cls, value: Any) -> Any:
        """`ladder`, `{ladder: {keep: 3}}`, or the ladder's own words."""
        if isinstance(value, dict) and set(value) == {"ladder"}:
            return value["ladder"] or {}
        if isinstance(value, str):
            if value != "ladder":
                raise ValueError(f"unknown strategy '{value}'{did_you_mean(value, ['ladder']) or '; known is ladder'}")
            return {}
        return value

    @model_validator(mode="before")
    @classmethod
    def _expand_comparison(cls, given: Any) -> Any:
        """`protocol: compare` and `protocol: {compare: true, …}` are `lax_too: true` and the rest of the protocol."""
        protocol = given.get("protocol") if isinstance(given, dict) else None
        if protocol == "compare":
            return {**given, "protocol": {}, "lax_too": True}
        if isinstance(protocol, dict) and isinstance(protocol.get("compare"), bool):
            rest = {key: value for key, value in protocol.items() if key != "compare"}
            return {**given, "protocol": rest, "lax_too": protocol["compare"]}
        return given

    @field_validator("protocol", mode="before")
    @classmethod
    def _expand_split_name(cls, value: Any) -> Any:
        return {"split": value} if isinstance(value, str) else value

    @field_validator("metrics", mode="before")
    @classmethod
    def _check_metrics(cls, value: Any) -> Any:
        names = (value,) if isinstance(value, str) else tuple(value or ())
        for name in names:
            try:
                get_metric(str(name))
            except SpecError as error:
                raise ValueError(str(error)) from None
        return names

    @field_validator("candidates", mode="before")
    @classmethod
    def _candidates_list(cls, value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class StudyInput:
    """A study as it was given: the value, the file it came from, and what `--scale small` changed.

    base: the folder relative paths start from · text: the file's own words · compared: the study that this is a half of, where
    two protocols are compared · rungs: of its ladder, as far as they are settled
    """

    study: StudySpec
    source: SourceMap = field(default_factory=SourceMap)
    base: Path | None = None
    text: str | None = None
    smoke_changes: tuple[str, ...] = ()
    compared_study: str = ""
    screening_rungs: tuple[dict[str, Any], ...] = ()

    @property
    def recipe(self) -> Recipe:
        return parse_recipe(self.study.recipe, None, self.source, ("recipe",))

    @property
    def candidates(self) -> list[Candidate]:
        """The candidates with nothing left open."""
        return parse_candidates(self.study.candidates, self.recipe, self.source)


def read_study(path: Path | str) -> list[StudyInput]:
    """A study file, or the name of a shipped study → its parts. Raises SpecError naming file, line and nearest word."""
    file = _find_study_file(path)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    documents = load_yaml(file)
    if not documents:
        raise SpecError(f"{file}: the file is empty; expected a study with name, data and candidates")
    base = default_data_folder() if file.parent == SHIPPED_FOLDER else file.parent.resolve()
    parts = [
        part
        for data, source in documents
        for part in expand_protocols(StudyInput(_validate_study(data, source), source, base, text))
    ]
    for part in parts:
        part.candidates  # noqa: B018  checked here, where the file and its lines are known
    names = [p.study.name for p in parts]
    if len(set(names)) < len(names):
        raise SpecError(f"{file.name}: two parts have the same name ({join_words(names)}); give each its own")
    return parts


def expand_protocols(question: StudyInput) -> list[StudyInput]:
    """The question itself; or, with `lax_too`, NAME-lax (groups on both sides) and NAME-strict (groups kept together).

    Raises SpecError for a protocol that has no lax form.
    """
    study = question.study
    if not study.compare:
        return [question]
    protocol = study.protocol.model_dump(exclude_unset=True) | {"split": study.protocol.split}
    lax = {**protocol, "split": _UNGROUPED_SPLIT.get(protocol["split"], protocol["split"]), "allow_group_overlap": True}
    strict = {**protocol, "allow_group_overlap": False}
    made = []
    for name, plain in (("lax", lax), ("strict", strict)):
        changed = {"name": f"{study.name}-{name}", "lax_too": False}
        spec = validate_as(ProtocolSpec, plain, question.source, ("protocol",))
        made.append(replace(question, study=study.model_copy(update={**changed, "protocol": spec}), compared_study=study.name))
    return made


# The split that mixes groups for each that keeps them by its nature; the others mix them when they are allowed to.
_UNGROUPED_SPLIT = {
    "group-k-fold": "k-fold",
    "stratified-group-k-fold": "stratified-k-fold",
    "leave-one-group-out": "stratified-k-fold",
}


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


@dataclass(frozen=True)
class SweepVariant:
    """One setting of a study's sweeps: the data it asks for and its candidates; `settings` is empty without sweeps."""

    settings: dict[str, Any]
    data: DataSpec
    candidates: tuple[Candidate, ...]


def expand_sweep(question: StudyInput) -> Iterator[SweepVariant]:
    """Every combination of the sweep's values, in order. Raises SpecError for a sweep over something that is not there."""
    sweep = question.study.sweep
    for path, values in sweep.items():
        part, _, name = path.partition(".")
        if part not in _SWEEPABLE_PARTS or not name:
            where = question.source.describe_location(("sweep", path))
            raise SpecError(
                f"{where}: a sweep is over {join_words([p + '.…' for p in _SWEEPABLE_PARTS])}; '{path}' came{did_you_mean(part, _SWEEPABLE_PARTS)}"
            )
        if not values:
            raise SpecError(
                f"{question.source.describe_location(('sweep', path))}: the sweep over {path} has no values; list at least one"
            )
    for combination in itertools.product(*sweep.values()):
        settings = dict(zip(sweep, combination, strict=True))
        data = question.study.data
        candidates = question.candidates
        for path, value in settings.items():
            part, _, name = path.partition(".")
            if part == "data":
                changed = _set_dotted_key(data.model_dump(exclude_unset=True), name, value)
                data = validate_as(DataSpec, changed, question.source, ("sweep", path))
            else:
                candidates = [_apply_setting(c, part, name, value, question.source, path) for c in candidates]
        yield SweepVariant(settings, data, tuple(add_settings_to_name(c, settings) for c in candidates))


_SWEEPABLE_PARTS = ("recipe", "data", "head", "fusion", "teaching")


def _apply_setting(candidate: Candidate, part: str, name: str, value: Any, source: SourceMap, path: str) -> Candidate:
    at = ("sweep", path)
    if part == "recipe":
        recipe = parse_recipe(_set_dotted_key({}, name, value), candidate.recipe, source, at)
        return candidate.model_copy(update={"recipe": recipe})
    if getattr(candidate, part) is None:
        return candidate
    plain = candidate.model_dump()
    return validate_as(Candidate, {**plain, part: _set_dotted_key(plain[part], name, value)}, source, at)


def _set_dotted_key(mapping: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    first, _, rest = dotted.partition(".")
    return {**mapping, first: _set_dotted_key(dict(mapping.get(first) or {}), rest, value) if rest else value}


def add_settings_to_name(candidate: Candidate, settings: dict[str, Any]) -> Candidate:
    words = [f"{path.rpartition('.')[2]} {_format_setting(value)}" for path, value in settings.items()]
    return candidate.model_copy(update={"name": f"{candidate.name} · {', '.join(words)}"}) if words else candidate


def _format_setting(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k} {_format_setting(v)}" for k, v in value.items())
    return "+".join(_format_setting(v) for v in value) if isinstance(value, list) else str(value)
