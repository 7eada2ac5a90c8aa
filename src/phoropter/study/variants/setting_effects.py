"""Which settings of a sweep or of `tune` change a candidate."""

from __future__ import annotations

from phoropter.core.spec import validate_as
from phoropter.training.candidates.candidate import Candidate, DistillationSpec
from phoropter.training.candidates.recipe import FEATURE_FIELDS

_COMMON_PARTS = ("recipe", "data")  # a sweep over these affects every candidate; over other parts, only candidates that have them
# Of data: they change pictures, and no rows. Not so `page`, `channels` and `intensity`, by which a picture may be left out.
_PICTURE_KEYS = ("size", "resize", "interpolation", "grey_scale")


def setting_affects(path: str, candidate: Candidate) -> bool:
    """Whether a key changes what the candidate is: without a teacher it is the same for every α, metadata for every size."""
    part, _, name = path.partition(".")
    if part == "data" and candidate.table is not None and not candidate.table.reads_pictures:
        return name not in _PICTURE_KEYS
    if part in _COMMON_PARTS:
        if name in FEATURE_FIELDS and not candidate.stores_features:
            return False
        return not (part == "recipe" and (candidate.is_ensemble or candidate.table))
    if part != "distillation" or candidate.distillation is None:
        spec = getattr(candidate, part)
        return spec is not None and name not in spec.unused_options
    if name == "teacher":
        return True
    effective = candidate.distillation.canonical_form
    return name == "alpha" or any(
        validate_as(DistillationSpec, {**effective.model_dump(), name: value}).canonical_form != effective
        for value in ({"hard", "soft"} if name == "loss" else {"unaugmented", "same"} if name == "teacher_views" else {97})
    )
