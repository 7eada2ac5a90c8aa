"""Estimates what the missing runs of a plan will take on this machine: seconds and bytes. No torch here."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from phoropter.core.files import cache_dir, digest
from phoropter.core.storage.sealed_json import CacheShape, read_cache_json, write_cache_json
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.results.store import Store
from phoropter.study.plan import Plan, PlannedRun
from phoropter.training.augmentation.spec import batch_dependent


@dataclass(frozen=True)
class ResourceEstimate:
    """Estimated cost of the missing runs of a plan, in seconds and bytes.

    pixel_bytes, feature_bytes: to be written to disk · measured: whether the speed was measured on this machine, or is a guess
    teacher_logit_bytes, teacher_seconds: of the teachers' logits (the seconds are part of `seconds`)
    teacher_cost_by_views: teacher_views → bytes and seconds of the teachers' logits if all students used it
    feature_images: images shown to frozen backbones for the feature cache, each view of an image counted
    feature_seconds: what these passes take, part of `seconds`: each once, however many runs share it
    worth_compiling: candidates whose runs would each be faster with `compile: true`
    by_candidate: candidate → seconds of its missing runs, without teachers' logits; a feature pass counts for the first of them
    """

    seconds: float
    pixel_bytes: int
    feature_bytes: int
    measured: bool
    teacher_logit_bytes: int = 0
    teacher_seconds: float = 0.0
    teacher_cost_by_views: dict[str, tuple[int, float]] = field(default_factory=dict)
    feature_images: int = 0
    feature_seconds: float = 0.0
    worth_compiling: tuple[str, ...] = ()
    by_candidate: dict[str, float] = field(default_factory=dict)


COMPILE_SECONDS = 75.0  # CPU time to compile one network, in every run (docs/performance.md)
COMPILE_SAVED_SHARE = 0.1  # share of the training time that compiling saves, as measured there
_DEFAULT_MACS_PER_S = 3e10  # multiply-adds per second of two laptop cores, for the first plan on a machine


def estimate_resources(planned: Plan, store: Store, cache: Path | None = None, device: str = "cpu") -> ResourceEstimate:
    """Estimates what the missing runs of a plan will take on this machine."""
    cache = cache or cache_dir()
    measured = load_measured_speeds(cache).get("cpu" if device == "auto" else device)
    macs_per_s = measured or _DEFAULT_MACS_PER_S
    macs = feature_macs = 0.0
    feature_bytes = feature_images = 0
    counted: set[str] = set()
    worth_compiling: dict[str, None] = {}
    macs_of: defaultdict[str, float] = defaultdict(float)
    missing = planned.missing_runs(store)
    for run in missing:
        if run.candidate.is_ensemble:
            continue
        before = macs
        for backbone in run.candidate.backbones:
            if run.candidate.stores_features:
                passes = _feature_pass_keys(run, backbone) - counted
                counted |= passes
                images = len(passes) * len(run.image_set.dataset)
                feature_images += images
                width = catalog.describe_backbone(backbone).num_features or 1024
                feature_bytes += images * width * (4 if run.candidate.recipe.feature_dtype == "float32" else 2)
            else:
                images = _count_trained_images(run)
            needed = estimate_macs(backbone, catalog.resolve_side(backbone, planned.study.base)) * images
            macs, feature_macs = macs + needed, feature_macs + needed * run.candidate.stores_features
        macs_of[run.candidate.name] += macs - before
        if _is_worth_compiling(run, (macs - before) / macs_per_s):
            worth_compiling[run.candidate.name] = None
    logit_bytes, logit_macs = _estimate_teacher_logits(planned, missing, None)
    by_views = {views: _estimate_teacher_logits(planned, missing, views) for views in _TEACHER_VIEWS if logit_bytes}
    return ResourceEstimate(
        seconds=macs / macs_per_s + logit_macs / macs_per_s,
        pixel_bytes=sum(len(i.dataset) * 3 * i.image_size**2 for i in planned.image_sets if not i.decoded),
        feature_bytes=feature_bytes,
        measured=measured is not None,
        teacher_logit_bytes=logit_bytes,
        teacher_seconds=logit_macs / macs_per_s,
        teacher_cost_by_views={views: (size, each / macs_per_s) for views, (size, each) in by_views.items()},
        feature_images=feature_images,
        feature_seconds=feature_macs / macs_per_s,
        worth_compiling=tuple(worth_compiling),
        by_candidate={name: count / macs_per_s for name, count in macs_of.items()},
    )


def _count_trained_images(run: PlannedRun) -> int:
    """Forward passes of a run that is trained and tested; a backward pass costs about two."""
    forward_passes = {"head": 1, "all": 3}
    trained = sum(len(run.split.train) * p.epochs * forward_passes[p.train] for p in run.candidate.recipe.phases)
    return (len(run.split.test) + trained) * run.candidate.recipe.imbalance.n_bags


_TEACHER_VIEWS = ("same", "cycled", "unaugmented")


def _is_worth_compiling(run: PlannedRun, seconds: float) -> bool:
    recipe = run.candidate.recipe
    if recipe.compile or not any(p.train == "all" for p in recipe.phases):
        return False
    networks = len(run.candidate.backbones) * recipe.imbalance.n_bags
    return seconds * COMPILE_SAVED_SHARE > COMPILE_SECONDS * networks


def _feature_pass_keys(run: PlannedRun, backbone: BackboneSpec) -> set[str]:
    """Keys of the passes over all images that a run needs of a backbone: one without augmentation, one for each cached view."""
    recipe = run.candidate.recipe
    seed = run.split.seed if backbone.depends_on_seed else 0
    name = [run.image_set.identity, backbone.plain(), seed, recipe.feature_dtype, recipe.center_crop]
    augmentation = [recipe.plain()["augment"], run.split.seed]
    return {digest(name), *(digest([*name, *augmentation, view]) for view in range(recipe.n_cached_views))}


def _estimate_teacher_logits(planned: Plan, missing: list[PlannedRun], views: str | None) -> tuple[int, float]:
    """Bytes and multiply-adds of the teachers' logits that the missing runs need, each counted once.

    views: a value of `teacher_views` to assume instead of the students' own. Logits cached by earlier studies are not looked for,
    so it may be less.
    """
    largest: dict[str, tuple[int, float]] = {}
    for run in missing:
        distillation, recipe = run.candidate.distillation, run.candidate.recipe
        if distillation is None or distillation.alpha == 0:
            continue
        teacher_views = views or distillation.teacher_views
        if teacher_views == "unaugmented" or not recipe.augment:
            passes = 1
        else:
            passes = min(distillation.n_teacher_views, recipe.total_epochs) if teacher_views == "cycled" else recipe.total_epochs
        teacher = planned.by_key[run.needs[-1]].candidate
        rows = passes * len(run.split.train)
        compact = not planned.needs_full_logits(run.needs[-1])
        size = rows * 2 * (1 if compact else len(run.image_set.dataset.classes))
        macs = rows * sum(estimate_macs(b, catalog.resolve_side(b, planned.study.base)) for b in teacher.backbones)
        steps = recipe.plain()["augment"] if teacher_views != "unaugmented" else []
        batch = recipe.batch_size if batch_dependent(recipe.augment) else 0
        name = digest([run.needs[-1], run.split.seed, steps, batch, compact, run.split.content_key(run.image_set.dataset)])
        largest[name] = max(largest.get(name, (0, 0.0)), (size, macs))
    return sum(b for b, _ in largest.values()), sum(m for _, m in largest.values())


def estimate_macs(backbone: BackboneSpec, side: int) -> float:
    """Multiply-adds for one image, from the catalogue and scaled by area to `side` pixels; 1e9 where the catalogue has none."""
    known = catalog.describe_backbone(backbone)
    return known.macs * (side / known.side) ** 2 if known.macs else 1e9


class MeasuredSpeeds(CacheShape):
    """speed.json: device → multiply-adds per second."""

    macs_per_s: dict[str, Annotated[float, Field(gt=0)]]


def load_measured_speeds(cache: Path) -> dict[str, float]:
    """Device → multiply-adds per second, as measured by earlier runs."""
    known = read_cache_json(cache / "speed.json", MeasuredSpeeds)
    return {} if known is None else dict(known.macs_per_s)


def update_measured_speed(cache: Path, device: str, macs_per_s: float) -> None:
    """Updates the running mean of the speed of this machine, for the next plan's estimate."""
    known = load_measured_speeds(cache)
    known[device] = 0.8 * known[device] + 0.2 * macs_per_s if device in known else macs_per_s
    write_cache_json(cache / "speed.json", MeasuredSpeeds(macs_per_s=known))
