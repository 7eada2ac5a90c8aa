"""Entries of `candidates:` that name or hold other entries, written out before they are parsed (no torch).

A fusion may name candidates (`{fuse: [V2, V1], mode: logits}`): each stands for its backbone with its own weights and options,
and the fusion is called by their names. An ensemble, a selection and a warm-started fusion take the finished candidates
themselves. A teacher may be a mapping of its own, as any candidate is; it becomes a candidate, which its students name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phoropter.models.spec import BackboneSpec
from phoropter.training.candidates.entry import CandidateEntry, default_name

_BACKBONE_FIELDS = ("weights", "size", "mean", "std", "options", "seed")


def list_named_backbones(entries: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Name of a candidate → its backbone as a mapping, for each entry with one backbone and a name of its own."""
    return {name: fields for entry in entries if (fields := _named_backbone(entry)) and (name := _get(entry, "name"))}


def write_out_teachers(entries: Sequence[Any]) -> list[Any]:
    """The entries with teachers that are mappings named; these follow the entries of the study."""
    written, teachers = [], {}
    for entry in entries:
        teacher = _get(entry, "teacher")
        if isinstance(teacher, Mapping):
            same = (e for e in entries if isinstance(e, Mapping) and e.get("name") and _without_name(e) == _without_name(teacher))
            if "name" not in teacher and (twin := next(same, None)) is not None:  # it is a candidate already
                entry = _change(entry, teacher=twin["name"])
            else:
                teacher = {"name": _name_teacher(teacher), **teacher}
                teachers[str(teacher["name"])] = teacher
                entry = _change(entry, teacher=teacher["name"])
        written.append(entry)
    known = {_get(entry, "name") for entry in written}
    return [*written, *(teacher for name, teacher in teachers.items() if name not in known)]


def chooses_among_all(entry: Any) -> bool:
    """Whether an entry names no members of its own, but all other candidates (`fuse: all`)."""
    return bool(_get(entry, "fuse") == "all")


def _without_name(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "name"}


def _get(entry: Any, key: str) -> Any:
    return (
        entry.get(key) if isinstance(entry, Mapping) else getattr(entry, key, None) if isinstance(entry, CandidateEntry) else None
    )


def _change(entry: Any, **changes: Any) -> Any:
    return {**entry, **changes} if isinstance(entry, Mapping) else entry.model_copy(update=changes)


def _named_backbone(entry: Any) -> dict[str, Any] | None:
    """The backbone of an entry as a mapping; None for an entry of another kind."""
    backbone = _get(entry, "backbone")
    if backbone is None:
        return None
    if isinstance(backbone, Mapping):
        return {("name" if key == "backbone" else key): value for key, value in backbone.items()}
    return {"name": backbone, **{key: value for key in _BACKBONE_FIELDS if (value := _get(entry, key))}}


def _name_teacher(teacher: Mapping[str, Any]) -> str:
    """As a candidate of its own would be called. A mapping that is none is named anyhow, and refused when it is parsed."""
    backbone = teacher.get("backbone")
    weights = teacher.get("weights")
    spec = BackboneSpec(name=str(backbone), weights=weights if isinstance(weights, str) else "pretrained")
    return default_name(spec, bool(teacher.get("frozen"))) + " (teacher)"
