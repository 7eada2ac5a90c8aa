"""CandidateEntry: a candidate as a study writes it, and how a list of them becomes Candidates (no torch).

`finetune`, `probe`, `fuse` and `distil` make one in Python.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

from pydantic import field_validator, model_validator

from phoropter.core.errors import SpecError, did_you_mean
from phoropter.core.extensions import REFERENCE
from phoropter.core.spec import Location, SourceMap, Spec, error_message, validate_as
from phoropter.models.spec import Backbone, BackboneSpec, FusionMode, FusionSpec, HeadSpec
from phoropter.training.candidates.candidate import Candidate, DistillationSpec, find_conflict
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.candidates.recipe import Recipe


class CandidateEntry(Spec):
    """A candidate as written in a study. Exactly one of `backbone`, `fuse`, `student` says which kind it is.

    A backbone is a name, a mapping with its own options (`{name: vgg19, pooling: average}`), or a Backbone of the user's own.

    name:     what the candidate is called (default: made of its parts)
    backbone: one network, with a new head
    fuse:     several networks as one; all-pairs, all-triples: every combination of `of`, each a candidate
    of:       the networks that all-pairs and all-triples combine
    student:  a network that learns from `teacher`
    teacher:  name of a candidate or of a backbone
    weights:  of one backbone: pretrained, random, or a path, see BackboneSpec
    size:     of one backbone: side in pixels of the images it is given
    mean:     of one backbone: mean of red, green and blue in 0..1, for normalisation
    std:      of one backbone: standard deviation of red, green and blue, for normalisation
    options:  of one backbone: arguments of the architecture's constructor
    seed:     of one backbone: another seed for its random parts than the study's own
    frozen:   backbones are not trained; their features are computed once
    head:     linear, dense or pretrained, or a mapping of HeadSpec
    mode:     of a fusion: logits, concat or ensemble, see FusionSpec
    hidden:   of a fusion: units of the fusing layer
    dropout:  of a fusion: dropout rate of the fusing layer
    aux_loss_weight: of a fusion: weight of each branch's own cross-entropy, see FusionSpec
    warm_start: of a fusion: branches start from the weights of their own finished runs
    loss:     of a student: how it learns from the teacher, hard, soft, hard+soft or token, see DistillationSpec
    alpha:    of a student: weight of the teacher's loss; that of the labels is 1 − alpha
    temperature: of a student with loss soft or hard+soft: temperature of both softmax functions
    teacher_views: of a student: images of which the teacher's logits are computed, see DistillationSpec
    n_teacher_views: of a student with teacher_views cycled: number of views
    recipe:   how it is trained (default: the study's recipe, for frozen candidates `probe` unless that trains heads alone)
    """

    name: str | None = None
    backbone: str | dict[str, Any] | Backbone | None = None
    fuse: tuple[str | dict[str, Any] | Backbone, ...] | Literal["all-pairs", "all-triples"] | None = None
    of: tuple[str | dict[str, Any] | Backbone, ...] | None = None
    student: str | Backbone | None = None
    teacher: str | Backbone | None = None
    weights: str | None = None
    size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    options: dict[str, float | int | str | bool | None] = {}
    seed: int | None = None
    frozen: bool | None = None
    head: Literal["linear", "dense", "pretrained"] | HeadSpec | None = None
    mode: FusionMode | None = None
    hidden: int | None = None
    dropout: float | None = None
    aux_loss_weight: float | None = None
    warm_start: bool | None = None
    loss: Literal["hard", "soft", "hard+soft", "token"] | None = None
    alpha: float | None = None
    temperature: float | None = None
    teacher_views: Literal["same", "cycled", "unaugmented"] | None = None
    n_teacher_views: int | None = None
    recipe: str | dict[str, Any] | Recipe | None = None

    @field_validator("teacher", mode="before")
    @classmethod
    def _resolve_teacher(cls, value: Any) -> Any:
        return Backbone.from_value(value) if isinstance(value, str) and REFERENCE.fullmatch(value) else value

    @model_validator(mode="after")
    def _check_one_kind(self) -> CandidateEntry:
        given = [k for k in ("backbone", "fuse", "student") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"a candidate names exactly one of backbone, fuse or student; {' and '.join(given) or 'none'} came")
        kind = given[0]
        for other, names in _FIELDS_OF_KIND.items():
            for name in names:
                if kind != other and getattr(self, name) is not None:
                    raise ValueError(f"{name} belongs to a candidate with {other}, and contradicts {kind}; leave one of them out")
        if self.of is not None and not isinstance(self.fuse, str):
            raise ValueError("of belongs to fuse: all-pairs or all-triples; put its backbones under fuse instead")
        if isinstance(self.fuse, str) and self.of is None:
            raise ValueError(f"fuse: {self.fuse} needs of, the list of backbones to combine")
        if self.student is not None and self.teacher is None:
            raise ValueError("a student needs a teacher: the name of a candidate or of a backbone")
        if self.student is not None and self.frozen:
            raise ValueError("frozen and student contradict each other: a frozen backbone cannot be taught; leave frozen out")
        if self.fuse is not None and (self.weights or self.size or self.seed):
            raise ValueError("weights, size and seed belong to one backbone; write the members as mappings with their own")
        return self


_FIELDS_OF_KIND = {
    "fuse": ("of", "mode", "hidden", "dropout", "aux_loss_weight", "warm_start"),
    "student": ("teacher", "loss", "alpha", "temperature", "teacher_views", "n_teacher_views"),
}


def parse_candidates(entries: Any, recipe: Recipe, source: SourceMap | None = None) -> list[Candidate]:
    """The `candidates:` of a study → Candidates with unique names. Raises SpecError with line and nearest word."""
    where = (source or SourceMap()).describe_location(("candidates",))
    if not isinstance(entries, (list, tuple)) or not entries:
        raise SpecError(f"{where}: candidates is {entries!r}, expected a list of at least one")
    candidates: list[Candidate] = []
    warm_started: set[str] = set()
    teachers: dict[str, Backbone] = {}
    for i, entry in enumerate(entries):
        at: Location = ("candidates", i)
        if isinstance(entry, Candidate):
            candidates.append(entry)
            continue
        data = {"backbone": entry} if isinstance(entry, (str, Backbone)) else entry
        written = entry if isinstance(entry, CandidateEntry) else validate_as(CandidateEntry, data, source, at)
        try:
            built = _build_candidates(written, recipe, source, at)
            candidates += built
            warm_started |= {c.name for c in built} if written.warm_start else set()
            teachers |= {written.teacher.name: written.teacher} if isinstance(written.teacher, Backbone) else {}
        except ValueError as error:
            place = (source or SourceMap()).describe_location(at)
            raise SpecError(f"{place}: candidates.{i}: {error_message(error)}") from None
    _resolve_members(candidates, warm_started)
    _resolve_teachers(candidates, teachers, recipe, source)
    _raise_on_cycles(candidates, source)
    _raise_on_unknown_branch_lr(candidates, source)
    for candidate in candidates:
        if conflict := find_conflict(candidate):
            raise SpecError(f"{where}: candidate '{candidate.name}': {conflict}")
    for name in {c.name for c in candidates if sum(other.name == c.name for other in candidates) > 1}:
        raise SpecError(f"{where}: two candidates are called '{name}'; give one of them a name")
    return candidates


def _build_candidates(entry: CandidateEntry, study: Recipe, source: SourceMap | None, at: Location) -> list[Candidate]:
    recipe = parse_recipe(entry.recipe, study, source, (*at, "recipe"))
    head = entry.head if isinstance(entry.head, HeadSpec) else HeadSpec(kind=entry.head) if entry.head else None
    if head is not None:
        _raise_on_unused(head)
    if entry.fuse is not None:
        members = entry.of if isinstance(entry.fuse, str) else entry.fuse
        backbones = [_parse_backbone(m, entry.options, source, (*at, "fuse", i)) for i, m in enumerate(members or ())]
        size = {"all-pairs": 2, "all-triples": 3}[entry.fuse] if isinstance(entry.fuse, str) else len(backbones)
        if len(backbones) < size:
            raise ValueError(f"fuse: {entry.fuse} needs at least {size} backbones, and {len(backbones)} came; name more under of")
        return [_build_fusion(entry, group, head, recipe) for group in itertools.combinations(backbones, size)]
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
        recipe = _head_only_recipe(recipe, own=entry.recipe is not None)
    if not recipe.phases:
        head = head or HeadSpec(kind="pretrained")
    name = entry.name or _default_name(backbone, frozen)
    distillation = None
    if entry.teacher is not None:
        given = {
            k: getattr(entry, k)
            for k in ("loss", "alpha", "temperature", "teacher_views", "n_teacher_views")
            if getattr(entry, k) is not None
        }
        teacher = entry.teacher if isinstance(entry.teacher, str) else entry.teacher.name
        distillation = DistillationSpec(teacher=teacher, **given)
        _raise_on_unused(distillation)
        name = entry.name or f"{backbone.name} taught by {teacher}" + _distillation_suffix(distillation)
    return [
        Candidate(
            name=name, backbones=(backbone,), head=head or HeadSpec(), frozen=frozen, distillation=distillation, recipe=recipe
        )
    ]


def _raise_on_unused(spec: HeadSpec | FusionSpec | DistillationSpec) -> None:
    """Raises ValueError for a written option without effect; one that a sweep sets may be without effect on some candidates."""
    for option, owner in spec.unused_options.items():
        if option in spec.model_fields_set:
            raise ValueError(f"{option} belongs to {owner} and has no effect here; leave it out, or choose {owner}")


def _head_only_recipe(recipe: Recipe, own: bool) -> Recipe:
    """Recipe of a frozen candidate: its own with all phases set to `head`, else the study's if head-only, else `probe`."""
    if not own and not (recipe.phases and all(p.train == "head" for p in recipe.phases)):
        return PRESETS["probe"]
    return recipe.with_changes(phases=[p.with_changes(train="head").model_dump() for p in recipe.phases])


def _build_fusion(entry: CandidateEntry, backbones: tuple[BackboneSpec, ...], head: HeadSpec | None, recipe: Recipe) -> Candidate:
    if len(backbones) < 2:
        raise ValueError(f"a fusion needs at least two backbones, and {len(backbones)} came; name another one")
    if len({b.model_dump_json() for b in backbones}) < len(backbones):
        raise ValueError(
            f"'{backbones[0].name}' is fused with itself under one seed; give the members different seeds, weights or sizes"
        )
    given = {k: getattr(entry, k) for k in ("mode", "hidden", "dropout", "aux_loss_weight") if getattr(entry, k) is not None}
    frozen = bool(entry.frozen)
    fusion = FusionSpec(**given)
    _raise_on_unused(fusion)
    name = " + ".join(b.name + _seed_suffix(b) for b in backbones) + ("" if fusion.mode == "logits" else f" ({fusion.mode})")
    name += " warm" if entry.warm_start else ""
    if frozen:
        own = entry.recipe is not None
        recipe = PRESETS["probe"] if recipe.l2_penalties and not own else _head_only_recipe(recipe, own)
        name += " frozen"
    usual = HeadSpec(kind="dense", dropout=0.5) if fusion.mode == "logits" else HeadSpec()
    head = head or (HeadSpec(kind="dense") if fusion.mode == "concat" else usual)
    if fusion.mode == "ensemble" and entry.warm_start:
        raise ValueError("warm_start and mode: ensemble contradict each other: an ensemble trains nothing; leave warm_start out")
    return Candidate(name=entry.name or name, backbones=backbones, head=head, fusion=fusion, frozen=frozen, recipe=recipe)


def _parse_backbone(
    member: str | dict[str, Any] | Backbone, options: dict[str, Any], source: SourceMap | None, at: Location
) -> BackboneSpec:
    data = (
        {"name": member}
        if isinstance(member, (str, Backbone))
        else {("name" if k == "backbone" else k): v for k, v in member.items()}
    )
    return validate_as(BackboneSpec, {"options": options, **data}, source, at)


def _resolve_members(candidates: list[Candidate], warm_started: set[str]) -> None:
    """Gives ensembles and warm-started fusions their members: the candidate of that name, an equal candidate, or a new one."""
    for i, fused in enumerate(list(candidates)):
        if fused.members or not (fused.is_ensemble or fused.name in warm_started):
            continue
        members = [_find_or_add_member(candidates, fused, backbone) for backbone in fused.backbones]
        changes: dict[str, Any] = {"members": tuple(m.name for m in members), "backbones": tuple(m.backbones[0] for m in members)}
        if fused.is_ensemble:
            changes |= {"recipe": fused.recipe.with_changes(phases=()), "head": members[0].head}
        candidates[i] = fused.model_copy(update=changes)


def _find_or_add_member(candidates: list[Candidate], fused: Candidate, backbone: BackboneSpec) -> Candidate:
    member = Candidate(
        name=_default_name(backbone, fused.frozen),
        backbones=(backbone,),
        head=fused.head,
        frozen=fused.frozen,
        recipe=fused.recipe,
    )
    bare = backbone == BackboneSpec(name=backbone.reference)  # only a name is given: it may be the name of a candidate
    for candidate in candidates:
        if candidate.name == backbone.name and candidate.fusion is None and (bare or candidate.backbones == (backbone,)):
            return candidate
    for candidate in candidates:
        if candidate.identity() == member.identity() and candidate.backbones == member.backbones:
            return candidate
    taken = {c.name for c in candidates}
    names = [member.name, f"{member.name} at {backbone.size} px", f"{member.name} for {fused.name}"]
    names += [f"{names[-1]}, {n}" for n in range(2, 2 + len(fused.backbones))]
    free = next(n for n in names if n not in taken and (backbone.size or " at " not in n))
    candidates.append(member.model_copy(update={"name": free}))
    return candidates[-1]


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


def _default_name(backbone: BackboneSpec, frozen: bool) -> str:
    source = {"pretrained": "", "random": " (random)"}.get(backbone.weights, "")
    return backbone.name + source + _seed_suffix(backbone) + (" frozen" if frozen else "")


def _seed_suffix(backbone: BackboneSpec) -> str:
    return f" seed {backbone.seed}" if backbone.seed else ""


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


def fuse(*backbones: str | dict[str, Any] | Backbone, **fields: Any) -> CandidateEntry:
    """A candidate in which several backbones become one: `ph.fuse("resnet50", "efficientnet_b0", mode="logits")`."""
    return validate_as(CandidateEntry, {"fuse": backbones, **fields})


def distil(student: str | Backbone, teacher: str | Backbone, **fields: Any) -> CandidateEntry:
    """A candidate that learns from labels and a teacher: `ph.distil("resnet50", "deit_base_patch16_224", alpha=0.5)`."""
    return validate_as(CandidateEntry, {"student": student, "teacher": teacher, **fields})
