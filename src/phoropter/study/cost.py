"""Estimates what the missing runs of a plan will take on this machine: seconds and bytes. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from phoropter.core.files import cache_dir, digest
from phoropter.data.images.cache_entry import PixelCacheEntry
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.results.store import Store
from phoropter.study.display.time_left import RunForecast, TimeLeft
from phoropter.study.forecasts.head_products import count_head_products
from phoropter.study.forecasts.measured_speeds import (
    MeasuredSpeeds,
    NetworkUse,
    RunKind,
    describe_hardware,
    estimate_work,
    find_machine_share,
    find_network_use,
    load_measured_speeds,
    settle_device,
    update_corrections,
    update_measured_speed,
)
from phoropter.study.plan import Plan, PlannedRun
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.training.array_cache import read_entry_info
from phoropter.training.augmentation.spec import batch_dependent
from phoropter.training.candidates.table_spec import SIGNAL_MACS
from phoropter.training.costs.pass_cost import PassCost
from phoropter.training.selection.greedy_selection import INNER_FOLDS


@dataclass(frozen=True)
class ResourceEstimate:
    """Estimated cost of the missing runs of a plan, in seconds and bytes.

    pixel_bytes, feature_bytes: to be written to disk · measured: whether the speed was measured on this machine, or is a guess
    teacher_logit_bytes, teacher_seconds: of the teachers' logits (the seconds are part of `seconds`)
    teacher_cost_by_views: teacher_views → bytes and seconds of the teachers' logits if all students used it
    feature_images: images shown to frozen backbones for the feature cache, each view of an image counted
    feature_seconds: what these passes take, part of `seconds`: each once, however many runs share it
    worth_compiling: candidates whose runs would each be faster with `compile: true`
    forecasts: key of each missing run → what it will take · hardware: that the seconds are of, in words
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
    forecasts: dict[str, RunForecast] = field(default_factory=dict)
    hardware: str = "this machine"


COMPILE_SECONDS = 75.0  # CPU time to compile one network, in every run (docs/performance.md)
COMPILE_SAVED_SHARE = 0.1  # share of the training time that compiling saves, as measured there
# Seconds of a run beside what its networks take (weights, features, scores, files), on two laptop cores
RUN_SECONDS: dict[RunKind, float] = {"trained": 1.5, "heads": 0.5, "solved": 1.0, "table": 0.5, "average": 0.2}
WRITING_SECONDS = 5.0  # of a network as ONNX, and the comparison with torch, before a pass by ONNX Runtime (docs/performance.md)
SOLVER_PASSES = 600  # passes over the training rows that a solved head takes, inner folds and penalties included


def estimate_resources(planned: Plan, store: Store, cache: Path | None = None, device: str = "cpu") -> ResourceEstimate:
    """Estimates what the missing runs of a plan will take on this machine."""
    cache, kind = cache or cache_dir(), settle_device(device)
    speeds = load_measured_speeds(cache)
    missing = planned.missing_runs(store)
    counter = _CostCounter(planned, speeds, kind, cache)
    forecasts = {run.key: counter.count_run(run) for run in missing}
    logit_bytes, logit_seconds = _estimate_teacher_logits(planned, missing, None, counter.image_seconds)
    by_views = {
        views: _estimate_teacher_logits(planned, missing, views, counter.image_seconds) for views in _TEACHER_VIEWS if logit_bytes
    }
    by_candidate: defaultdict[str, float] = defaultdict(float)
    for run in missing:
        by_candidate[run.candidate.name] += forecasts[run.key].seconds
    return ResourceEstimate(
        seconds=sum(by_candidate.values()) + logit_seconds,
        pixel_bytes=sum(len(i.dataset) * 3 * i.image_size**2 for i in planned.image_sets if not i.decoded),
        feature_bytes=counter.feature_bytes,
        measured=kind in speeds.devices,
        teacher_logit_bytes=logit_bytes,
        teacher_seconds=logit_seconds,
        teacher_cost_by_views=by_views,
        feature_images=counter.feature_images,
        feature_seconds=sum(f.pass_seconds for f in forecasts.values()),
        worth_compiling=tuple(counter.worth_compiling),
        by_candidate=dict(by_candidate),
        forecasts=forecasts,
        hardware=describe_hardware(kind),
    )


class _CostCounter:
    """Adds up what runs take, in the order of the plan: what several share (a pass of a frozen network) counts for the first."""

    def __init__(self, planned: Plan, speeds: MeasuredSpeeds, device: str, cache: Path) -> None:
        self.planned, self.speeds, self.cache = planned, speeds, cache
        self.counted: set[str] = set()
        self.feature_bytes = self.feature_images = 0
        self.worth_compiling: dict[str, None] = {}
        self.device = device
        # Of a backbone, by its id: a plan shares the specs of its candidates
        self._image_seconds: dict[tuple[int, NetworkUse], float] = {}

    def image_seconds(self, backbone: BackboneSpec, use: NetworkUse = "shown") -> float:
        """Seconds of a forward pass of one image."""
        name = id(backbone), use
        if name not in self._image_seconds:
            side = catalog.resolve_side(backbone, self.planned.study.base)
            self._image_seconds[name] = self.speeds.image_seconds(backbone, side, self.device, use)
        return self._image_seconds[name]

    def count_run(self, run: PlannedRun) -> RunForecast:
        """What one run will take: its networks, and the rest as far off as earlier runs of its kind were."""
        candidate, kind = run.candidate, _find_kind(run)
        passes = trained = 0.0
        if candidate.is_ensemble:
            trained = self._count_inner_fits(run)
        elif candidate.stores_features:
            passes = sum(self._count_pass(run, backbone) for backbone in candidate.backbones)
            trained = self._estimate_head(run)
        else:
            each = sum(self.image_seconds(b, "trained") for b in candidate.backbones)
            if candidate.table is not None and candidate.table.is_signal_network:
                each = SIGNAL_MACS / self.speeds.device_speed(self.device)
            trained = each * _count_trained_images(run)
            if _is_worth_compiling(run, trained):
                self.worth_compiling[candidate.name] = None
        factor = self.speeds.find_correction(self.device, kind)
        return RunForecast(candidate.name, kind, passes + factor * (trained + RUN_SECONDS[kind]), passes)

    def _count_pass(self, run: PlannedRun, backbone: BackboneSpec) -> float:
        """Seconds of those passes over all images that no run before this one needed and that are not in the cache."""
        clean, *views = _list_pass_keys(run, backbone)
        passes = {clean, *views} - self.counted
        self.counted |= passes
        if clean in passes and self._has_features(run, backbone):
            passes.discard(clean)
        recipe, width = run.candidate.recipe, _count_features(backbone)
        images = len(passes) * len(run.image_set.dataset)
        self.feature_images += images
        self.feature_bytes += images * width * (4 if recipe.feature_dtype == "float32" else 2)
        written = WRITING_SECONDS if passes and run.candidate.uses_onnxruntime else 0.0
        return written + images * self.image_seconds(backbone, find_network_use(run.candidate))

    def _has_features(self, run: PlannedRun, backbone: BackboneSpec) -> bool:
        """Whether the features of the images without augmentation are in the cache; of random weights it is not looked for."""
        image_set = run.image_set
        if not image_set.decoded or backbone.weights == "random" or not self._cached_passes:
            return False
        square = image_set.data.square_resize(image_set.image_size)
        pixels = PixelCacheEntry.for_dataset(image_set.dataset, square, self.cache).identity
        return (pixels, backbone.name, str(backbone.weights), *run.candidate.recipe.feature_format) in self._cached_passes

    @cached_property
    def _cached_passes(self) -> set[tuple[str, ...]]:
        """Pixels, network, weights, dtype and engine of the passes without augmentation that are in the cache."""
        infos = (read_entry_info(file.parent) for file in (self.cache / "features").glob("*/about.json"))
        return {(i.pixels, i.backbone, i.weights, i.dtype, i.engine) for i in infos if i is not None}

    def _estimate_head(self, run: PlannedRun) -> float:
        """Seconds of the products of features and weights that a head on stored features takes."""
        recipe, classes = run.candidate.recipe, len(run.image_set.dataset.classes)
        products = count_head_products(run.candidate, list(map(_count_features, run.candidate.backbones)), classes)
        passes = SOLVER_PASSES if recipe.l2_penalties else 3 * recipe.total_epochs * recipe.imbalance.n_bags
        return passes * len(run.split.train) * products / self.speeds.device_speed(self.device)

    def _count_inner_fits(self, run: PlannedRun) -> float:
        """Seconds of the fits of members on inner folds, by which an average selects; each once."""
        fresh = [key for key in run.needs if run.candidate.selects and key not in self.counted]
        self.counted.update(fresh)
        return sum(self._estimate_inner_seconds(self.planned.by_key[key]) for key in fresh)

    def _estimate_inner_seconds(self, member: PlannedRun) -> float:
        """Of a member's fits on inner folds, each on the rows of all others; the features of frozen ones are there by then."""
        rest = RUN_SECONDS[_find_kind(member)]
        if member.candidate.stores_features:  # heads of all inner folds are fitted together
            return rest + self._estimate_head(member) * (INNER_FOLDS - 1)
        images = _count_trained_images(member) * (INNER_FOLDS - 1)
        return INNER_FOLDS * rest + sum(self.image_seconds(b, "trained") for b in member.candidate.backbones) * images


@contextmanager
def follow_pace(
    planned: Plan, expected: ResourceEstimate, cache: Path, device: str, threads: int, on_progress: ProgressCallback
) -> Iterator[ProgressCallback]:
    """Tells what the plan settled and what the missing runs will take, yields a callback that follows them, and keeps how far off
    that was.

    expected: of the missing runs · device: its kind · threads: of this process, which may have a share of the machine alone
    """
    share = find_machine_share(device, threads)
    pace = TimeLeft()

    def notify(event: ProgressEvent) -> None:
        pace.follow_event(event)
        on_progress(event)

    for words in planned.study.context.settled_defaults:
        notify(ProgressEvent("settled", title=words))
    notify(ProgressEvent("forecast", note=dict(expected.forecasts)))
    try:
        yield notify
    finally:
        sums = pace.sum_by_kind()
        update_corrections(cache, device, {kind: taken / share / said for kind, (said, taken) in sums.items()})


def note_speed(run: PlannedRun, record: Mapping[str, Any], base: Path | None, cache: Path, device: str, threads: int) -> None:
    """Updates what is known of the speed of this machine by the record of a finished run, for the next estimate.

    A run that trained a network tells its speed, the first run of a frozen candidate that of its passes, network by network.
    threads: of this process, which may have a share of the machine alone
    """
    if "processes" in record:  # the speed of several, whose number another study need not have
        return
    share, use = find_machine_share(device, threads), find_network_use(run.candidate)
    works = [(b, estimate_work(b, catalog.resolve_side(b, base))) for b in run.candidate.backbones]
    if run.candidate.stores_features:
        passes = _find_passes(run, record, cache, device) if run.is_first else {}
        for backbone, work in works:
            here = [cost.seconds_per_further_image for cost in passes.get(backbone.name, ())]
            if sum(here) > 0:
                update_measured_speed(cache, device, work * len(here) / sum(here) * share, backbone, use=use)
        return
    seconds = record["cost"]["train_seconds"]
    images = sum(p.epochs * p.forward_passes for p in run.candidate.recipe.phases) * len(run.split.train)
    if seconds > 1:
        network = works[0][0] if len(works) == 1 else None
        update_measured_speed(cache, device, sum(work for _, work in works) * images / seconds * share, network, use=use)


def _find_passes(run: PlannedRun, record: Mapping[str, Any], cache: Path, device: str) -> dict[str, list[PassCost]]:
    """Backbone → what each of its passes on this device took. Of a fusion the entries of the cache say whose a pass is."""
    found: dict[str, list[PassCost]] = {}
    backbones = run.candidate.backbones
    for entry, plain in record.get("feature_passes", {}).items():
        cost = PassCost.model_validate(plain)
        if cost.device != device:
            continue
        if len(backbones) == 1:
            found.setdefault(backbones[0].name, []).append(cost)
        elif info := read_entry_info(cache / "features" / entry):
            found.setdefault(info.backbone, []).append(cost)
    return found


def _count_features(backbone: BackboneSpec) -> int:
    """Of a picture; a guess where the catalogue does not know."""
    return catalog.describe_backbone(backbone).num_features or 1024


def _find_kind(run: PlannedRun) -> RunKind:
    candidate = run.candidate
    if candidate.table is not None:
        return "trained" if candidate.table.is_signal_network else "table"
    if candidate.is_ensemble:
        return "average"
    if not candidate.stores_features:
        return "trained"
    return "solved" if candidate.recipe.l2_penalties else "heads"


def _count_trained_images(run: PlannedRun) -> int:
    """Forward passes of a run that is trained and tested; a backward pass costs about two."""
    trained = sum(len(run.split.train) * p.epochs * p.forward_passes for p in run.candidate.recipe.phases)
    return (len(run.split.test) + trained) * run.candidate.recipe.imbalance.n_bags


_TEACHER_VIEWS = ("same", "cycled", "unaugmented")


def _is_worth_compiling(run: PlannedRun, seconds: float) -> bool:
    recipe = run.candidate.recipe
    if recipe.compile or not run.candidate.backbones or not any(p.train == "all" for p in recipe.phases):
        return False
    networks = len(run.candidate.backbones) * recipe.imbalance.n_bags
    return seconds * COMPILE_SAVED_SHARE > COMPILE_SECONDS * networks


def _list_pass_keys(run: PlannedRun, backbone: BackboneSpec) -> list[str]:
    """Keys of the passes over all images that a run needs of a backbone: the one without augmentation, then the cached views."""
    recipe = run.candidate.recipe
    seed = run.split.seed if backbone.depends_on_seed else 0
    name = [run.image_set.identity, backbone.plain(), seed, recipe.feature_format, recipe.center_crop]
    augmentation = [recipe.plain()["augment"], run.split.seed]
    return [digest(name), *(digest([*name, *augmentation, view]) for view in range(recipe.n_cached_views))]


def _estimate_teacher_logits(
    planned: Plan, missing: list[PlannedRun], views: str | None, image_seconds: Callable[[BackboneSpec], float]
) -> tuple[int, float]:
    """Bytes and seconds of the teachers' logits that the missing runs need, each counted once.

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
        seconds = rows * sum(map(image_seconds, teacher.backbones))
        steps = recipe.plain()["augment"] if teacher_views != "unaugmented" else []
        batch = recipe.batch_size if batch_dependent(recipe.augment) else 0
        name = digest([run.needs[-1], run.split.seed, steps, batch, compact, run.split.content_key(run.image_set.dataset)])
        largest[name] = max(largest.get(name, (0, 0.0)), (size, seconds))
    return sum(b for b, _ in largest.values()), sum(s for _, s in largest.values())
