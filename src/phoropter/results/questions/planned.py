"""The questions a study asks beforehand, `compare:`, and which candidates answer each of them.

    compare:
      primary: {metric: roc_auc, contrast: {factor: recipe.augment, level: slit-cutmix, against: none}}
      secondary:
        - {contrast: {family: attention, against: cnn}}
        - {contrast: {candidate: vit_tiny, against: resnet18}}

A contrast is settled when the study is planned: it becomes lists of candidates by name, which study.json keeps, so that the page
answers the question that was asked and not one that the results suggest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from pydantic import field_validator, model_validator

from phoropter.core.errors import SpecError, did_you_mean, join_words
from phoropter.core.spec import SourceMap, Spec

Family = Literal["cnn", "attention", "hybrid", "fused", "distilled"]
Role = Literal["primary", "secondary", "exploratory"]


class ContrastSpec(Spec):
    """One side against another; exactly one of `candidate`, `family` and `factor` says of what.

    candidate: name of a candidate; with sweeps the mean over all its variants, or the full name of one variant
    family:    the mean over all candidates of one family: `cnn`, `attention`, `hybrid` by how the backbone mixes places; `fused`
               for fusions, `distilled` for students
    factor:    a key of `sweep`; its `level` is compared with another, averaged over all else
    level:     of `factor`: one of the values that are swept
    against:   the other side: another candidate, family or value of the factor
    within:    of `factor`: what is paired and counted. `candidate`: each candidate with the two levels; `backbone`: the mean of
               all candidates with the same backbones
    """

    candidate: str | None = None
    family: Family | None = None
    factor: str | None = None
    level: Any = None
    against: Any
    within: Literal["candidate", "backbone"] = "candidate"

    @field_validator("level", "against", mode="before")
    @classmethod
    def _write_value(cls, value: Any) -> Any:
        """A step of several options, or an object of the user's own, as the names of candidates write it."""
        return value if isinstance(value, (str, int, float, bool, type(None))) else _as_text(value)

    @model_validator(mode="after")
    def _check_sides(self) -> ContrastSpec:
        named = [key for key in ("candidate", "family", "factor") if getattr(self, key) is not None]
        if len(named) != 1:
            raise ValueError(f"a contrast has one of candidate, family and factor, but {' and '.join(named) or 'none'} came")
        given = self.model_fields_set
        if self.factor is None and (extra := [key for key in ("level", "within") if key in given]):
            raise ValueError(f"'{extra[0]}' belongs to a contrast with 'factor' and does nothing for '{named[0]}'; leave it out")
        if self.factor is not None and "level" not in given:
            raise ValueError("a contrast with 'factor' needs 'level', the value that is compared with 'against'")
        if self.side == self.against:
            raise ValueError(f"'{self.against}' is compared with itself; name two sides")
        return self

    @property
    def side(self) -> Any:
        """What is compared with `against`."""
        return self.level if self.factor is not None else self.candidate or self.family


class PlannedQuestion(Spec):
    """A contrast by one metric.

    metric:   one of the study's `metrics` (default: the first)
    contrast: what is compared with what
    """

    metric: str | None = None
    contrast: ContrastSpec


class PlannedQuestions(Spec):
    """The questions of a study. Their p values are corrected for the number of them together (Holm 1979).

    primary:   the question that the conclusion answers first
    secondary: further questions planned beforehand
    """

    primary: PlannedQuestion
    secondary: tuple[PlannedQuestion, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _refuse_protocols(cls, value: Any) -> Any:
        if isinstance(value, bool) or (isinstance(value, Mapping) and "split" in value and "primary" not in value):
            raise ValueError(
                "'compare' names planned contrasts, as primary: …; a study under two protocols says 'second_protocol'"
            )
        return value

    @field_validator("secondary", mode="before")
    @classmethod
    def _accept_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _check_different(self) -> PlannedQuestions:
        asked = [self.primary, *self.secondary]
        if any(one in asked[:number] for number, one in enumerate(asked)):
            raise ValueError("a question is asked twice; keep one, because p is corrected for the number of questions")
        return self


@dataclass(frozen=True)
class PlannedCandidate:
    """A candidate as a contrast sees it.

    base_name: without the settings of sweeps · settings: of the sweeps that affect it
    """

    name: str
    base_name: str
    backbones: tuple[str, ...]
    family: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class ContrastUnit:
    """Candidates whose means are compared: `side` with `against`, by name. title: what they have in common."""

    title: str
    side: tuple[str, ...]
    against: tuple[str, ...]


@dataclass(frozen=True)
class Contrast:
    """A settled contrast: the mean over its units of the mean of `side` minus the mean of `against`.

    role:  primary, secondary, or exploratory where it was not planned · metric: its name
    factor: the swept key, or `candidate` or `family` · side, against: in words
    """

    role: Role
    metric: str
    factor: str
    side: str
    against: str
    units: tuple[ContrastUnit, ...]

    @property
    def candidates(self) -> tuple[str, ...]:
        """Every candidate it needs, once."""
        return tuple(dict.fromkeys(name for unit in self.units for name in (*unit.side, *unit.against)))

    @property
    def title(self) -> str:
        """`augment: slit-cutmix against none`; of candidates and families only the two sides."""
        words = f"{self.side} against {self.against}"
        return words if self.factor in ("candidate", "family") else f"{self.factor.rpartition('.')[2]}: {words}"

    def to_plain(self) -> dict[str, Any]:
        """As study.json keeps it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Contrast:
        """What `to_plain` wrote, from JSON."""
        units = tuple(ContrastUnit(unit["title"], tuple(unit["side"]), tuple(unit["against"])) for unit in plain["units"])
        return cls(**{**plain, "units": units})


def settle_contrasts(
    questions: PlannedQuestions | None,
    candidates: Sequence[PlannedCandidate],
    metrics: Sequence[str],
    source: SourceMap | None = None,
    *,
    skip_missing: bool = False,
) -> list[Contrast]:
    """The planned contrasts, the primary one first. metrics: of the study, the ranking metric first.

    skip_missing: leave out what cannot be settled (a smoke version has fewer candidates and levels).
    Raises SpecError for a metric, candidate, family, factor or level that the study does not have.
    """
    found: list[Contrast] = []
    for number, question in enumerate([] if questions is None else [questions.primary, *questions.secondary]):
        role: Role = "secondary" if number else "primary"
        at = ("compare", "secondary", number - 1) if number else ("compare", "primary")
        try:
            found.append(replace(_settle_contrast(question, candidates, metrics), role=role))
        except SpecError as error:
            if not skip_missing:
                place = (source or SourceMap()).describe_location(at)
                raise SpecError(f"{place}: compare.{'.'.join(map(str, at[1:]))}: {error}") from None
    return found


def main_effects(candidates: Sequence[PlannedCandidate], metric: str) -> list[Contrast]:
    """Every level of every swept factor against the factor's first level, averaged over all else: exploratory contrasts."""
    found = []
    for factor in dict.fromkeys(key for c in candidates for key in c.settings):
        levels = list({_as_text(c.settings[factor]): c.settings[factor] for c in candidates if factor in c.settings}.values())
        for level in levels[1:]:
            contrast = ContrastSpec(factor=factor, level=level, against=levels[0])
            if units := _pair_variants(contrast, candidates):  # none where other keys do nothing with one of the levels
                found.append(Contrast("exploratory", metric, factor, _as_text(level), _as_text(levels[0]), units))
    return found


def family_effects(candidates: Sequence[PlannedCandidate], metric: str) -> list[Contrast]:
    """Every family against the first one, each the mean over its candidates: exploratory contrasts.

    None where every family has one candidate, so that the pairs already say it, and for candidates of no family (`other`).
    """
    members: dict[str, list[str]] = {}
    for c in candidates:
        if c.family in get_args(Family):
            members.setdefault(c.family, []).append(c.name)
    if all(len(names) == 1 for names in members.values()):
        return []
    (against, reference), *others = members.items() or [("", [])]
    units = ((family, ContrastUnit(f"{family} against {against}", tuple(n), tuple(reference))) for family, n in others)
    return [Contrast("exploratory", metric, "family", family, against, (unit,)) for family, unit in units]


def _settle_contrast(question: PlannedQuestion, candidates: Sequence[PlannedCandidate], metrics: Sequence[str]) -> Contrast:
    contrast, metric = question.contrast, question.metric or metrics[0]
    if metric not in metrics:
        raise SpecError(f"'{metric}' is none of the study's metrics; add it to metrics{did_you_mean(metric, metrics)}")
    if contrast.factor is not None:
        settled = _settle_factor(contrast, candidates)
    else:
        kind = "candidate" if contrast.candidate is not None else "family"
        sides = [_find_members(kind, str(side), candidates) for side in (contrast.side, contrast.against)]
        unit = ContrastUnit(f"{contrast.side} against {contrast.against}", *sides)
        settled = (kind, str(contrast.side), str(contrast.against), (unit,))
    return Contrast("primary", metric, *settled)


def _find_members(kind: str, word: str, candidates: Sequence[PlannedCandidate]) -> tuple[str, ...]:
    """The candidates of a family, or the variants of a candidate."""
    if kind == "family":
        known = list(dict.fromkeys(c.family for c in candidates))
        found = [c.name for c in candidates if c.family == word]
        what = "no candidate of this study is of the family"
    else:
        known = list(dict.fromkeys(name for c in candidates for name in (c.base_name, c.name)))
        found = [c.name for c in candidates if c.name == word] or [c.name for c in candidates if c.base_name == word]
        what = "this study has no candidate"
    if not found:
        raise SpecError(f"{what} '{word}'{did_you_mean(word, known) or f'; it has {join_words(known, 12)}'}")
    return tuple(found)


def _settle_factor(
    contrast: ContrastSpec, candidates: Sequence[PlannedCandidate]
) -> tuple[str, str, str, tuple[ContrastUnit, ...]]:
    """Pairs of variants that differ in this factor alone, collected by candidate or by backbones."""
    factor = str(contrast.factor)
    factors = list(dict.fromkeys(key for c in candidates for key in c.settings))
    if factor not in factors:
        hint = did_you_mean(factor, factors) or (f"; swept are {join_words(factors)}" if factors else "; nothing is swept")
        raise SpecError(f"the factor '{factor}' is not swept{hint}")
    levels = list(dict.fromkeys(_as_text(c.settings[factor]) for c in candidates if factor in c.settings))
    side, against = _as_text(contrast.level), _as_text(contrast.against)
    for word in (side, against):
        if word not in levels:
            raise SpecError(
                f"'{word}' is no value of the sweep over {factor}; it has {join_words(levels)}{did_you_mean(word, levels)}"
            )
    units = _pair_variants(contrast, candidates)
    if not units:
        raise SpecError(f"no candidate has both {side} and {against} of {factor}, with all else equal")
    return factor, side, against, units


def _pair_variants(contrast: ContrastSpec, candidates: Sequence[PlannedCandidate]) -> tuple[ContrastUnit, ...]:
    """The variants with one level of the factor beside those with the other, with all else equal; empty where there are none."""
    factor, side, against = str(contrast.factor), _as_text(contrast.level), _as_text(contrast.against)
    variants: dict[tuple[str, str], dict[str, PlannedCandidate]] = {}
    for c in candidates:
        if factor in c.settings:
            others = _as_text({key: value for key, value in c.settings.items() if key != factor})
            variants.setdefault((c.base_name, others), {})[_as_text(c.settings[factor])] = c
    units: dict[str, list[tuple[str, str]]] = {}
    for (base_name, _), by_level in variants.items():
        if side in by_level and against in by_level:
            title = base_name if contrast.within == "candidate" else " + ".join(by_level[side].backbones)
            units.setdefault(title, []).append((by_level[side].name, by_level[against].name))
    return tuple(ContrastUnit(title, *(tuple(names) for names in zip(*pairs, strict=True))) for title, pairs in units.items())


def _as_text(value: Any) -> str:
    """A setting in words, as the names of candidates write it."""
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_as_text(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return "+".join(map(_as_text, value))
    return str(getattr(value, "name", value))
