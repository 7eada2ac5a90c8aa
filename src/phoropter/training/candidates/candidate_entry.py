"""The `candidates:` of a study → Candidates (no torch). Fusions are built in fusions.py.

`finetune`, `probe`, `fuse` and `distil` make one in Python.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from phoropter.core.errors import SpecError, did_you_mean
from phoropter.core.spec import Location, SourceMap, error_message, validate_as
from phoropter.models.spec import Backbone, BackboneSpec, HeadSpec
from phoropter.training.candidates.candidate import Candidate, DistillationSpec, find_conflict
from phoropter.training.candidates.entry import CandidateEntry, default_name, head_only_recipe, raise_on_unused, seed_suffix
from phoropter.training.candidates.fusions import build_fusion, list_selectable, resolve_members
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.candidates.recipe import FEATURE_FIELDS, Recipe
from phoropter.training.candidates.references import chooses_among_all, list_named_backbones, write_out_teachers
from phoropter.training.candidates.table_spec import SIGNAL_NETWORK, TableSpec, check_signal_recipe


def parse_candidates(entries: Any, recipe: Recipe, source: SourceMap | None = None) -> list[Candidate]:
    """The `candidates:` of a study → Candidates with unique names. Raises SpecError with line and nearest word."""
    where = (source or SourceMap()).describe_location(("candidates",))
    if not isinstance(entries, (list, tuple)) or not entries:
        raise SpecError(f"{where}: candidates is {entries!r}, expected a list of at least one")
    candidates: list[Candidate] = []
    written_fusions: dict[str, CandidateEntry] = {}
    teachers: dict[str, Backbone] = {}
    named = list_named_backbones(entries)
    for i, entry in sorted(enumerate(write_out_teachers(entries)), key=lambda numbered: chooses_among_all(numbered[1])):
        at: Location = ("candidates", i)
        if isinstance(entry, Candidate):
            candidates.append(entry)
            continue
        data = {"backbone": entry} if isinstance(entry, (str, Backbone)) else entry
        written = entry if isinstance(entry, CandidateEntry) else validate_as(CandidateEntry, data, source, at)
        try:
            if written.fuse == "all":  # comes last, when all others are known
                members, name = list_selectable(candidates, written_fusions), written.name or "all (select)"
                written = written.model_copy(update={"fuse": members, "name": name})
            if written.is_table:
                built = [_build_table(written, source, at)]
            else:
                built = _build_candidates(written, recipe, named, source, at)
                _raise_on_unstored(written, built)
            candidates += built
            written_fusions |= {c.name: written for c in built if c.fusion}
            teachers |= {written.teacher.name: written.teacher} if isinstance(written.teacher, Backbone) else {}
        except ValueError as error:
            place = (source or SourceMap()).describe_location(at)
            raise SpecError(f"{place}: candidates.{i}: {error_message(error)}") from None
    try:
        resolve_members(candidates, written_fusions)
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from None
    _resolve_teachers(candidates, teachers, recipe, source)
    _raise_on_cycles(candidates, source)
    _raise_on_unknown_branch_lr(candidates, source)
    for candidate in candidates:
        if conflict := find_conflict(candidate):
            raise SpecError(f"{where}: candidate '{candidate.name}': {conflict}")
    for name in {c.name for c in candidates if sum(other.name == c.name for other in candidates) > 1}:
        raise SpecError(f"{where}: two candidates are called '{name}'; give one of them a name")
    return candidates


def _raise_on_unstored(entry: CandidateEntry, built: list[Candidate]) -> None:
    """Raises ValueError for options of stored features where none are stored."""
    given = [name for name in FEATURE_FIELDS if isinstance(entry.recipe, dict) and name in entry.recipe]
    if given and not all(candidate.stores_features for candidate in built):
        words = "augmented images in every epoch; give cached_views" if entry.frozen else "a trained network; say frozen: true"
        raise ValueError(f"{given[0]} is for stored features, and there are none of {words}, or leave it out")


def find_idle_words(entries: Any, recipe: Any, words: Iterable[str]) -> list[str]:
    """The words of a study's recipe without each of which all candidates would be the same. recipe: as written"""
    shared = parse_recipe(recipe)
    built, idle = [candidate.identity() for candidate in parse_candidates(entries, shared)], []
    for word in words:
        if isinstance(recipe, dict):
            rest: Any = {name: value for name, value in recipe.items() if name != word}
        else:
            rest = shared.model_copy(update={word: Recipe.model_fields[word].default})
        try:
            without = parse_recipe(rest)
            if without != shared and [candidate.identity() for candidate in parse_candidates(entries, without)] == built:
                idle.append(word)
        except SpecError:  # another word stands with it
            continue
    return idle


def _build_table(entry: CandidateEntry, source: SourceMap | None, at: Location) -> Candidate:
    """A candidate without a network of pictures. The study's recipe is not read: signal-1d has one of its own."""
    names = ("baseline", "features", "predictions", "metadata", "classifier", "columns")
    table = TableSpec(**{name: value for name in names if (value := getattr(entry, name)) is not None})
    recipe = Recipe()
    if table.is_signal_network:
        recipe = check_signal_recipe(parse_recipe(entry.recipe, PRESETS[SIGNAL_NETWORK], source, (*at, "recipe")))
    return Candidate(name=entry.name or table.default_name, table=table, recipe=recipe)


def _build_candidates(
    entry: CandidateEntry, study: Recipe, named: Mapping[str, dict[str, Any]], source: SourceMap | None, at: Location
) -> list[Candidate]:
    recipe = parse_recipe(entry.recipe, study, source, (*at, "recipe"))
    head = entry.head if isinstance(entry.head, HeadSpec) else HeadSpec(kind=entry.head) if entry.head else None
    if head is not None:
        raise_on_unused(head)
    if entry.fuse is not None:
        return _build_fusions(entry, head, recipe, named, source, at)
    given = {name: getattr(entry, name) for name in ("weights", "size", "mean", "std", "seed")}
    fields = {k: v for k, v in given.items() if v is not None}
    if isinstance(entry.backbone, dict):
        if fields:
            raise ValueError(f"{next(iter(fields))} stands beside a backbone written as a mapping; write it inside")
        backbone = _parse_backbone(entry.backbone, entry.options, source, (*at, "backbone"))
    else:
        backbone = BackboneSpec(name=entry.backbone or entry.student or "", options=entry.options, **fields)
    frozen = bool(entry.frozen)
    if frozen:
        recipe = head_only_recipe(recipe, own=entry.recipe is not None)
    if not recipe.phases:
        head = head or HeadSpec(kind="pretrained")
    name = entry.name or default_name(backbone, frozen)
    distillation = None
    if entry.teacher is not None:
        given = {
            k: getattr(entry, k)
            for k in ("loss", "alpha", "temperature", "teacher_views", "n_teacher_views")
            if getattr(entry, k) is not None
        }
        assert not isinstance(entry.teacher, dict), "a teacher that is a mapping was written out as a candidate (references.py)"
        teacher = entry.teacher if isinstance(entry.teacher, str) else entry.teacher.name
        distillation = DistillationSpec(teacher=teacher, **given)
        raise_on_unused(distillation)
        name = entry.name or f"{backbone.name} taught by {teacher}" + _distillation_suffix(distillation)
    return [
        Candidate(
            name=name, backbones=(backbone,), head=head or HeadSpec(), frozen=frozen, distillation=distillation, recipe=recipe
        )
    ]


def _build_fusions(
    entry: CandidateEntry,
    head: HeadSpec | None,
    recipe: Recipe,
    named: Mapping[str, dict[str, Any]],
    source: SourceMap | None,
    at: Location,
) -> list[Candidate]:
    """One fusion, or one for each combination of `of`. named: name of a candidate → its backbone"""
    members = (entry.of if isinstance(entry.fuse, str) else entry.fuse) or ()
    size = {"all-pairs": 2, "all-triples": 3}[entry.fuse] if isinstance(entry.fuse, str) else len(members)
    if len(members) < size:
        raise ValueError(f"fuse: {entry.fuse} needs at least {size} backbones, and {len(members)} came; name more under of")
    takes_finished = entry.mode in ("ensemble", "select") or entry.warm_start  # whose members are found by resolve_members
    called: list[tuple[str, BackboneSpec]] = []
    for i, member in enumerate(members):
        written_out = named.get(member) if isinstance(member, str) and not takes_finished else None
        backbone = _parse_backbone(written_out or member, entry.options, source, (*at, "fuse", i))
        called.append((str(member) if written_out else backbone.name + seed_suffix(backbone), backbone))
    return [build_fusion(entry, group, head, recipe) for group in itertools.combinations(called, size)]


def _parse_backbone(
    member: str | dict[str, Any] | Backbone, options: dict[str, Any], source: SourceMap | None, at: Location
) -> BackboneSpec:
    data = (
        {"name": member}
        if isinstance(member, (str, Backbone))
        else {("name" if k == "backbone" else k): v for k, v in member.items()}
    )
    return validate_as(BackboneSpec, {"options": options, **data}, source, at)


def _resolve_teachers(candidates: list[Candidate], custom: dict[str, Backbone], recipe: Recipe, source: SourceMap | None) -> None:
    """Adds each teacher that is not yet a candidate, with the study's recipe; it trains on the same rows as its students."""
    where = (source or SourceMap()).describe_location(("candidates",))
    for candidate in list(candidates):
        distillation = candidate.distillation
        if distillation is None or any(c.name == distillation.teacher for c in candidates):
            continue
        if " " in distillation.teacher:
            known = [c.name for c in candidates]
            raise SpecError(
                f"{where}: the teacher '{distillation.teacher}' is no candidate of this study"
                f"{did_you_mean(distillation.teacher, known)}"
            )
        backbone = BackboneSpec(name=custom.get(distillation.teacher, distillation.teacher))
        candidates.append(Candidate(name=distillation.teacher, backbones=(backbone,), recipe=recipe))


def _raise_on_cycles(candidates: list[Candidate], source: SourceMap | None) -> None:
    """Raises SpecError where a candidate would need itself, through teachers and members."""
    by_name = {c.name: c for c in candidates}

    def follow_chain(chain: tuple[str, ...]) -> None:
        candidate = by_name[chain[-1]]
        for name in (*candidate.members, *([candidate.distillation.teacher] if candidate.distillation else [])):
            if name in chain:
                where = (source or SourceMap()).describe_location(("candidates",))
                raise SpecError(
                    f"{where}: '{name}' would need itself ({' needs '.join([*chain, name])}); name another teacher or member"
                )
            follow_chain((*chain, name))

    for name in by_name:
        follow_chain((name,))


def _raise_on_unknown_branch_lr(candidates: list[Candidate], source: SourceMap | None) -> None:
    """Raises SpecError where branch_lr names a backbone of no candidate; several candidates may share a recipe."""
    known = {b.name for c in candidates for b in c.backbones}
    for name in (n for c in candidates for p in c.recipe.phases for n in p.branch_lr if n not in known):
        where = (source or SourceMap()).describe_location(("candidates",))
        raise SpecError(f"{where}: branch_lr names '{name}', a backbone of no candidate{did_you_mean(name, known)}")


def _distillation_suffix(distillation: DistillationSpec) -> str:
    default = DistillationSpec(teacher=distillation.teacher)
    words = [f"{k} {v}" for k, v in distillation.plain().items() if k != "teacher" and v != getattr(default, k)]
    return f" ({', '.join(words)})" if words else ""


def finetune(backbone: str | Backbone, **fields: Any) -> CandidateEntry:
    """A candidate whose backbone is trained with its head: `ph.finetune("resnet50", recipe={"epochs": 5})`."""
    return validate_as(CandidateEntry, {"backbone": backbone, **fields})


def probe(backbone: str | Backbone, **fields: Any) -> CandidateEntry:
    """A candidate with a frozen backbone and a trained head."""
    return validate_as(CandidateEntry, {"backbone": backbone, "frozen": True, **fields})


def baseline(name: str, **fields: Any) -> CandidateEntry:
    """A candidate of simple features under a classifier: `ph.baseline("colour-texture", classifier="gradient-boosting")`."""
    return validate_as(CandidateEntry, {"baseline": name, **fields})


def fuse(*backbones: str | dict[str, Any] | Backbone, **fields: Any) -> CandidateEntry:
    """A candidate in which several backbones become one: `ph.fuse("resnet50", "efficientnet_b0", mode="logits")`."""
    return validate_as(CandidateEntry, {"fuse": backbones, **fields})


def distil(student: str | Backbone, teacher: str | Backbone, **fields: Any) -> CandidateEntry:
    """A candidate that learns from labels and a teacher: `ph.distil("resnet50", "deit_base_patch16_224", alpha=0.5)`."""
    return validate_as(CandidateEntry, {"student": student, "teacher": teacher, **fields})
