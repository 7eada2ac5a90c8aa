"""About what a plan will take on this machine: seconds and bytes, of what is missing. No torch here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from phoropter.core.files import cache_dir, digest, write_json
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.results.store import Store
from phoropter.study.plan import Plan, PlannedRun
from phoropter.training.augmentation.spec import batch_dependent


@dataclass(frozen=True)
class ResourceEstimate:
    """What a plan would take: seconds and bytes, for what is missing.

    measured: whether the speed is this machine's own, from earlier runs, or a guess
    answer_bytes, answer_seconds: of the teachers' answers (the seconds are among `seconds`) · choices: the same for every
    setting of `views`, were all students to have it
    feature_pictures: how many pictures, each view counted, are shown to frozen backbones for the features that are kept
    compiled: the candidates whose recipe could say `compile: true` and each of whose runs would then be done sooner
    """

    seconds: float
    pixel_bytes: int
    feature_bytes: int
    measured: bool
    teacher_logit_bytes: int = 0
    teacher_seconds: float = 0.0
    teacher_cost_by_views: dict[str, tuple[int, float]] = field(default_factory=dict)
    feature_images: int = 0
    worth_compiling: tuple[str, ...] = ()


COMPILE_SECONDS = 75.0  # of processor time a network, in every run (docs/performance.md)
COMPILE_SAVED_SHARE = 0.1  # of a run's training that compiling saves, as measured there
_DEFAULT_MACS_PER_S = 3e10  # multiply-adds a second of two laptop cores, for the first plan on a machine


def estimate_resources(planned: Plan, store: Store, cache: Path | None = None, device: str = "cpu") -> ResourceEstimate:
    """About what the missing runs of a plan will take on this machine."""
    cache = cache or cache_dir()
    speed = load_measured_speeds(cache).get("cpu" if device == "auto" else device)
    macs = 0.0
    pixel_bytes = feature_bytes = stored = 0
    asked: set[str] = set()
    compiled: dict[str, None] = {}
    for material in planned.image_sets:
        if not material.decoded:
            pixel_bytes += len(material.dataset) * 3 * material.image_size**2
    missing = planned.missing_runs(store)
    choices = {views: _estimate_teacher_logits(planned, missing, views) for views in (None, "same", "cycled", "unaugmented")}
    for run in missing:
        if run.candidate.is_ensemble:
            continue
        before = macs
        for backbone in run.candidate.backbones:
            each = estimate_macs(backbone.name, catalog.resolve_side(backbone, planned.question.base))
            pictures = len(run.split.test)
            if run.candidate.stores_features:
                passes = _feature_pass_keys(run, backbone) - asked
                asked |= passes
                pictures = len(passes) * len(run.image_set.dataset)
                stored += pictures
                width = catalog.find_architecture(backbone.name).num_features or 1024
                feature_bytes += pictures * width * (4 if run.candidate.recipe.feature_dtype == "float32" else 2)
            else:
                backward = {"head": 1, "all": 3}
                pictures += sum(len(run.split.train) * p.epochs * backward[p.train] for p in run.candidate.recipe.phases)
                pictures *= run.candidate.recipe.imbalance.n_bags
            macs += each * pictures
        recipe = run.candidate.recipe
        if any(p.train == "all" for p in recipe.phases) and not recipe.compile:
            networks = len(run.candidate.backbones) * recipe.imbalance.n_bags
            if (macs - before) / (speed or _DEFAULT_MACS_PER_S) * COMPILE_SAVED_SHARE > COMPILE_SECONDS * networks:
                compiled[run.candidate.name] = None
    by_choice = {views: (b, m / (speed or _DEFAULT_MACS_PER_S)) for views, (b, m) in choices.items()}
    asked_bytes, asked_seconds = by_choice.pop(None)
    named_choices = {views: both for views, both in by_choice.items() if views and asked_bytes}
    seconds = macs / (speed or _DEFAULT_MACS_PER_S) + asked_seconds
    known, sooner = speed is not None, tuple(compiled)
    return ResourceEstimate(seconds, pixel_bytes, feature_bytes, known, asked_bytes, asked_seconds, named_choices, stored, sooner)


def _feature_pass_keys(run: PlannedRun, backbone: BackboneSpec) -> set[str]:
    """The names of the passes over all pictures that a run needs of a backbone: the clean one, and one for each fixed view."""
    recipe = run.candidate.recipe
    seed = run.split.seed if backbone.weights == "random" else 0
    name = [run.image_set.identity, backbone.plain(), seed, recipe.feature_dtype, recipe.crop]
    drawn = [[s.plain() for s in recipe.augment], run.split.seed]
    return {digest(name), *(digest([*name, *drawn, view]) for view in range(recipe.n_cached_views))}


def _estimate_teacher_logits(planned: Plan, missing: list[PlannedRun], views: str | None) -> tuple[int, float]:
    """Bytes and multiply-adds of the teachers' answers the missing runs ask for, each once; `views` instead of the students' own.

    What earlier studies left in the cache is not looked for, so it may be less.
    """
    most: dict[str, tuple[int, float]] = {}
    for run in missing:
        teaching, recipe = run.candidate.teaching, run.candidate.recipe
        if teaching is None or teaching.alpha == 0:
            continue
        how = views or teaching.teacher_views
        count = (
            1
            if how == "unaugmented" or not recipe.augment
            else min(teaching.pool, recipe.total_epochs)
            if how == "cycled"
            else recipe.total_epochs
        )
        teacher = planned.by_key[run.needs[-1]].candidate
        answers = count * len(run.split.train)
        compact = not planned.needs_full_logits(run.needs[-1])
        size = answers * 2 * (1 if compact else len(run.image_set.dataset.classes))
        macs = answers * sum(estimate_macs(b.name, catalog.resolve_side(b, planned.question.base)) for b in teacher.backbones)
        steps = [s.plain() for s in recipe.augment] if how != "unaugmented" else []
        company = recipe.batch_size if batch_dependent(recipe.augment) else 0
        name = digest([run.needs[-1], run.split.seed, steps, company, compact, run.split.content_key(run.image_set.dataset)])
        most[name] = max(most.get(name, (0, 0.0)), (size, macs))
    return sum(b for b, _ in most.values()), sum(m for _, m in most.values())


def estimate_macs(name: str, side: int) -> float:
    """Multiply-adds of one picture, from the catalogue, scaled by area to `side`; a guess of 1e9 where it does not know."""
    known = catalog.find_architecture(name)
    return known.macs * (side / known.side) ** 2 if known.macs else 1e9


def load_measured_speeds(cache: Path) -> dict[str, float]:
    """Device → multiply-adds a second, as earlier runs measured them."""
    try:
        return dict(json.loads((cache / "speed.json").read_text()))
    except (OSError, ValueError):
        return {}


def update_measured_speed(cache: Path, device: str, macs_per_s: float) -> None:
    """Keeps a running mean of what this machine does, for the next plan."""
    known = load_measured_speeds(cache)
    known[device] = 0.8 * known[device] + 0.2 * macs_per_s if device in known else macs_per_s
    write_json(cache / "speed.json", known)
