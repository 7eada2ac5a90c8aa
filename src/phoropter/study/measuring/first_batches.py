"""A few real batches of each network of a plan: how fast it is here, before hours depend on it.

A network that is trained takes a few epochs of one batch in each phase of its recipe; a frozen one is shown a batch. What comes
first pays for what a process loads once and is not counted. Nothing is kept but the speeds, in CACHE/speed.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.files import file_lock, temporary_folder
from phoropter.data.images.pixels import Pixels
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.results.store import Store
from phoropter.study.cost import ResourceEstimate, estimate_resources
from phoropter.study.forecasts.measured_speeds import (
    NetworkUse,
    estimate_work,
    find_machine_share,
    find_network_use,
    load_measured_speeds,
    update_measured_speed,
)
from phoropter.study.load import ImageSet
from phoropter.study.plan import Plan, PlannedRun
from phoropter.training.batches.gpu_pixels import load_pictures_on_device
from phoropter.training.costs.inference_batch import choose_inference_batch
from phoropter.training.costs.peak_memory import PeakMemory
from phoropter.training.feature_cache import make_branch_network
from phoropter.training.fit import TrainingTask, build_model, fit

WORTH_S = 60.0  # a study that is expected to be shorter is not measured when it begins
LEAST_IMAGES, SHARE = 8, 0.01  # of a batch that is measured when a study begins: no more than this share of all images shown


@dataclass(frozen=True)
class BatchTimes:
    """How fast networks were together.

    backbones: one that was shown images, or all that were trained together · image_seconds: of a forward pass of one image by all
    of them, in each counted batch; of a training step, the share of one of its passes · peak_bytes: of the process, or on the GPU
    """

    candidate: str
    backbones: tuple[BackboneSpec, ...]
    use: NetworkUse
    image_seconds: tuple[float, ...]
    peak_bytes: int


def learn_unknown_speeds(
    planned: Plan, store: Store, cache: Path, device: torch.device, open_images: Callable[[ImageSet], Pixels]
) -> ResourceEstimate:
    """Measures the networks of the missing runs whose speed is not known here, by a hundredth of what they will be shown.

    So the time left is right from the beginning, and not once each network has had its turn. Several processes of one study wait
    for the first. A network that cannot be measured is left to its run, which says what is wrong. So is one that killed the
    process that measured it, which leaves a mark in CACHE/measuring.

    Returns what the missing runs will take by the speeds that are known then.
    """
    before, expected = load_measured_speeds(cache), estimate_resources(planned, store, cache, device.type)
    if expected.seconds < WORTH_S:
        return expected
    missing = [run for run in planned.runs if run.key in expected.forecasts]
    with file_lock(cache / "locks" / "speed.lock"), temporary_folder("speeds") as aside:
        for run in list_measurable(planned, missing):
            known, use = load_measured_speeds(cache), find_network_use(run.candidate)
            if all(known.knows_network(b, device.type, use) for b in run.candidate.backbones):
                continue
            alike = [r for r in missing if r.candidate is run.candidate]
            count = min(int(SHARE / 2 * count_shown_images(alike)), find_batch_size(run, device.type, planned.study.base))
            if count < LEAST_IMAGES:
                continue
            rows = spread_rows(run.split.train, count)
            with suppress(Exception), _marked_once(cache / "measuring" / run.key):
                task = make_measured_task(planned, run, rows, open_images(run.image_set), device, aside)
                for times in time_batches(task, 1):
                    keep_speeds(times, planned.study.base, cache, device.type)
    if load_measured_speeds(cache) == before:  # nothing was new, neither to this process nor to one it waited for
        return expected
    return estimate_resources(planned, store, cache, device.type)


@contextmanager
def _marked_once(mark: Path) -> Iterator[None]:
    """A file that stands while the block runs, and longer if the process is killed. Raises FileExistsError where it stands."""
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch(exist_ok=False)
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def list_measurable(planned: Plan, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """One of these runs for each network, or set of networks, that is trained or shown images."""
    found: dict[tuple[object, ...], PlannedRun] = {}
    for run in runs:
        candidate = run.candidate
        if candidate.backbones and not candidate.is_ensemble and (candidate.stores_features or candidate.recipe.phases):
            sides = tuple((b.name, catalog.resolve_side(b, planned.study.base)) for b in candidate.backbones)
            found.setdefault((sides, find_network_use(candidate)), run)
    return list(found.values())


def count_shown_images(runs: Sequence[PlannedRun]) -> int:
    """Images that runs of one candidate show their networks: of the pass over all rows, or of all epochs."""
    recipe = runs[0].candidate.recipe
    if runs[0].candidate.stores_features:
        return len(runs[0].image_set.dataset) * (1 + recipe.n_cached_views)
    return sum(len(run.split.train) for run in runs) * recipe.total_epochs


def find_batch_size(run: PlannedRun, device_type: str, base: Path | None) -> int:
    """Images in a batch of a run's feature pass, or of its training."""
    if not run.candidate.stores_features:
        return run.candidate.recipe.batch_size
    return min(choose_inference_batch(catalog.resolve_side(b, base), device_type) for b in run.candidate.backbones)


def spread_rows(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the rows, from all over them, so that no class is left out where they are sorted."""
    chosen: NDArray[np.int64] = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]
    return chosen


def make_measured_task(
    planned: Plan, run: PlannedRun, rows: NDArray[np.int64], pixels: Pixels, device: torch.device, cache: Path
) -> TrainingTask:
    """A run on a few of its training rows. It learns from no teacher, because that may not be trained yet."""
    split = replace(run.split, train=rows, test=run.split.test[:0], val=None, external=None)
    alone = run.candidate.model_copy(update={"distillation": None})
    return TrainingTask(alone, split, run.image_set.dataset, pixels, device, cache, planned.study.base)


def time_batches(task: TrainingTask, batches: int) -> Iterator[BatchTimes]:
    """Times `batches` batches of all rows of `task.split.train`, behind one that is not counted.

    Yields once for each backbone of a candidate whose features are stored, else once. Raises what building and training raise.
    """
    candidate = task.candidate
    if not candidate.stores_features:
        with PeakMemory(task.device) as peak:
            times = _time_training(task, batches)
        yield BatchTimes(candidate.name, candidate.backbones, "trained", times, peak.bytes)
        return
    with torch.random.fork_rng(devices=[task.device] if task.device.type == "cuda" else []):
        model = build_model(task).eval()
    images = load_pictures_on_device(task.pixels, task.split.train, task.device)
    for number, backbone in enumerate(candidate.backbones):
        seconds, run_network = [], make_branch_network(model, number, candidate.recipe.feature_engine)
        with PeakMemory(task.device) as peak, torch.inference_mode():
            for _ in range(batches + 1):
                began = time.perf_counter()
                run_network(images).cpu()  # which waits for a GPU
                seconds.append(time.perf_counter() - began)
        yield BatchTimes(
            candidate.name, (backbone,), find_network_use(candidate), tuple(s / len(images) for s in seconds[1:]), peak.bytes
        )


def _time_training(task: TrainingTask, batches: int) -> tuple[float, ...]:
    """Seconds of a pass of one image in each counted epoch of one batch: of all phases together, by their share of the epochs."""
    recipe = task.candidate.recipe
    phases = tuple(phase.model_copy(update={"epochs": batches + 1}) for phase in recipe.phases)
    # Copied without the checks of a study: a schedule may be longer than these few epochs
    brief = task.candidate.model_copy(update={"recipe": recipe.model_copy(update={"phases": phases})})
    rows = [step for step in fit(replace(task, candidate=brief)) if isinstance(step, dict)]
    work = sum(phase.epochs * phase.forward_passes for phase in recipe.phases)
    by_phase = [rows[start + 1 : start + 1 + batches] for start in range(0, len(rows), batches + 1)]
    return tuple(
        sum(phase.epochs / each[number]["images_per_s"] for phase, each in zip(recipe.phases, by_phase, strict=True)) / work
        for number in range(batches)
    )


def keep_speeds(times: BatchTimes, base: Path | None, cache: Path, device_type: str) -> None:
    """Enters what was measured into CACHE/speed.json, in place of what was known of these networks."""
    work = sum(estimate_work(b, catalog.resolve_side(b, base)) for b in times.backbones)
    speed = work / median(times.image_seconds) * find_machine_share(device_type, torch.get_num_threads())
    for backbone in times.backbones:
        update_measured_speed(cache, device_type, speed, backbone, use=times.use, kept=0.0)
