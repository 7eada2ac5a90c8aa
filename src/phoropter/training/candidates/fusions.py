"""Fusions as a study writes them → Candidates, and the members of ensembles and of warm-started fusions (no torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phoropter.models.spec import BackboneSpec, FusionSpec, HeadSpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.entry import CandidateEntry, default_name, head_only_recipe, raise_on_unused
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.candidates.recipe import Recipe


def build_fusion(
    entry: CandidateEntry, called: Sequence[tuple[str, BackboneSpec]], head: HeadSpec | None, recipe: Recipe
) -> Candidate:
    """The fusion of an entry, with every default settled; its members are found by `resolve_members`.

    called: what each backbone is called in the fusion's own name, and the backbone · head: as written, or None
    recipe: of the entry, or else of the study. Raises ValueError for options that contradict.
    """
    backbones = tuple(backbone for _, backbone in called)
    if len(backbones) < 2:
        raise ValueError(f"a fusion needs at least two backbones, and {len(backbones)} came; name another one")
    if len({b.model_dump_json() for b in backbones}) < len(backbones):
        raise ValueError(
            f"'{backbones[0].name}' is fused with itself under one seed; give the members different seeds, weights or sizes"
        )
    fusion, frozen = _settle_fusion(entry), bool(entry.frozen)
    idle = next((b for b in backbones if b.seed and not b.depends_on_seed), None)
    if idle is not None and not fusion.averages_runs and not entry.warm_start:
        raise ValueError(
            f"seed {idle.seed} of '{idle.name}' has no effect: its weights are given, and the heads of a fusion are drawn by the "
            "study's seed; leave it out, say weights: random, or choose mode: ensemble or warm_start"
        )
    if head is not None and fusion.mode == "concat" and not fusion.has_branch_heads:
        raise ValueError(
            "head is that of each branch, and branches that are fused by concat have one only for an auxiliary loss; leave head "
            "out, or give aux_loss_weight"
        )
    name = " + ".join(words for words, _ in called) + ("" if fusion.mode == "logits" else f" ({fusion.mode})")
    name += (" warm" if entry.warm_start else "") + (" frozen" if frozen else "")
    head = head or HeadSpec()
    if frozen:
        recipe = _settle_frozen_recipe(recipe, fusion, head, own=entry.recipe is not None, warm=bool(entry.warm_start))
    return Candidate(name=entry.name or name, backbones=backbones, head=head, fusion=fusion, frozen=frozen, recipe=recipe)


def _settle_fusion(entry: CandidateEntry) -> FusionSpec:
    names = ("mode", "start", "hidden", "dropout", "aux_loss_weight")
    fusion = FusionSpec(**{k: getattr(entry, k) for k in names if getattr(entry, k) is not None})
    raise_on_unused(fusion)
    if fusion.averages_runs and entry.warm_start:
        raise ValueError(
            f"warm_start and mode: {fusion.mode} contradict each other: an average of finished runs trains nothing; leave "
            "warm_start out"
        )
    return fusion


def _settle_frozen_recipe(recipe: Recipe, fusion: FusionSpec, head: HeadSpec, *, own: bool, warm: bool) -> Recipe:
    """Its own, or the study's if that trains heads alone; else `logistic` where the fusion can be solved, and `probe`."""
    can_be_solved = fusion.is_convex and head.kind == "linear" and not head.dropout and not warm
    if fusion.averages_runs or own:
        return head_only_recipe(recipe, own)
    if recipe.trains_head_alone and (can_be_solved or not recipe.l2_penalties):
        return head_only_recipe(recipe, own)
    return PRESETS["logistic" if can_be_solved else "probe"].with_features_of(recipe)


def resolve_members(candidates: list[Candidate], written: Mapping[str, CandidateEntry]) -> None:
    """Gives ensembles and warm-started fusions their members: the candidate of that name, an equal candidate, or a new one.

    written: name → entry of the fusions among them. Raises ValueError where an entry asks of a member what that is not.
    """
    for i, fused in enumerate(list(candidates)):
        entry = written.get(fused.name)
        if fused.members or not (fused.is_ensemble or (entry and entry.warm_start)):
            continue
        members = [_find_or_add_member(candidates, fused, backbone) for backbone in fused.backbones]
        changes: dict[str, Any] = {"members": tuple(m.name for m in members)}
        changes["backbones"] = tuple(backbone for m in members for backbone in m.backbones)
        if fused.is_ensemble:
            if not changes["backbones"]:
                raise ValueError(
                    f"candidate '{fused.name}': none of its members has a network, and an average needs one; name a network, or "
                    "join metadata with a baseline by metadata: beside baseline:"
                )
            if entry:
                _raise_on_ignored_options(entry, fused, members)
            if fused.selects:
                _raise_on_unselectable(fused, members)
            changes |= {"recipe": fused.recipe.with_changes(phases=()), "head": members[0].head}
        elif fused.fusion and fused.fusion.has_branch_heads:
            changes["head"] = _common_head(fused, members, given=bool(entry and entry.head is not None))
        candidates[i] = fused.model_copy(update=changes)


def _raise_on_ignored_options(entry: CandidateEntry, fused: Candidate, members: list[Candidate]) -> None:
    """Raises ValueError for an option of an ensemble that one of its members has otherwise: the members are what they are."""
    for member in members:
        for option in ("head", "recipe", "frozen"):
            if getattr(entry, option) is not None and getattr(member, option) != getattr(fused, option):
                raise ValueError(
                    f"candidate '{fused.name}': its member '{member.name}' has another {option}, which an ensemble does not "
                    f"change; leave {option} out, or write it at '{member.name}'"
                )


def list_selectable(candidates: Sequence[Candidate], written: Mapping[str, CandidateEntry]) -> tuple[str, ...]:
    """The names of the candidates that `fuse: all` chooses among. Raises ValueError for fewer than two.

    written: name → entry of the fusions among them, whose members are not found yet
    """
    warm = {name for name, entry in written.items() if entry.warm_start}
    names = tuple(c.name for c in candidates if c.name not in warm and find_selection_obstacle(c) is None)
    if len(names) < 2:
        raise ValueError(
            f"fuse: all needs at least two candidates that are networks or fusions of their own, and {len(names)} came; add one"
        )
    return names


def find_selection_obstacle(candidate: Candidate) -> str | None:
    """Why a candidate cannot be a member of a selection, which is trained on inner folds by itself; None where it can."""
    if candidate.table is not None:
        return "has no network, and a bundle holds networks alone"
    if candidate.is_ensemble:
        return "is an average itself; name its members"
    if candidate.needs:
        return f"begins with or learns from '{candidate.needs[0]}', which would have to be trained on inner folds too"
    return None


def _raise_on_unselectable(fused: Candidate, members: list[Candidate]) -> None:
    for member in members:
        if obstacle := find_selection_obstacle(member):
            raise ValueError(f"candidate '{fused.name}': its member '{member.name}' {obstacle}; leave it out of mode: select")


def _common_head(fused: Candidate, members: list[Candidate], given: bool) -> HeadSpec:
    """The head that a warm-started fusion takes over from all members. Raises ValueError where there is none."""
    head = fused.head if given else members[0].head
    for member in members:
        if (member.head.kind, member.head.hidden) != (head.kind, head.hidden) or head.kind == "pretrained":
            raise ValueError(
                f"candidate '{fused.name}': warm_start takes over the heads of its members, and that of '{member.name}' is "
                f"{_describe_head(member.head)} where {'a new one' if head.kind == 'pretrained' else _describe_head(head)} is "
                "expected; give all of them one head"
            )
    return head


def _describe_head(head: HeadSpec) -> str:
    return f"{head.kind} of {head.hidden} units" if head.kind == "dense" else head.kind


def _find_or_add_member(candidates: list[Candidate], fused: Candidate, backbone: BackboneSpec) -> Candidate:
    member = Candidate(
        name=default_name(backbone, fused.frozen),
        backbones=(backbone,),
        head=fused.head,
        frozen=fused.frozen,
        recipe=fused.recipe,
    )
    bare = backbone == BackboneSpec(name=backbone.reference)  # only a name is given: it may be the name of a candidate
    for candidate in candidates:
        joins = candidate.fusion is None or fused.selects
        if candidate.name == backbone.name and joins and (bare or candidate.backbones == (backbone,)):
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
