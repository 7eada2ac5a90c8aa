"""What the missing runs of a plan will take, by a few real batches of each network: in one process, in several, and on GPUs."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from phoropter.core.errors import PhoropterError, cut_message
from phoropter.core.files import temporary_folder
from phoropter.models import catalog
from phoropter.results.store import Store
from phoropter.study.compute import is_batched, make_batch_key, prepare_image_set
from phoropter.study.cost import ResourceEstimate, estimate_resources
from phoropter.study.measuring.first_batches import (
    BatchTimes,
    find_batch_size,
    keep_speeds,
    list_measurable,
    make_measured_task,
    spread_rows,
    time_batches,
)
from phoropter.study.plan import Plan, PlannedRun
from phoropter.training.fit import TrainingTask
from phoropter.training.loop.devices import resolve_device, use_threads

BATCHES = 3  # of each network that are timed, behind one that is not
LEAST_SPREAD = 0.15  # of an estimate, by which it may be off in any case: three batches do not tell more


@dataclass(frozen=True)
class PlaceForecast:
    """How long the missing runs take in one place.

    words: the options of `run` · seconds, low, high: until the last run is done, by the median, the fastest and the slowest of
    the timed batches · processes: how many compute · memory_bytes: most that each of them holds, of the GPU where there is one
    """

    words: str
    processes: int
    seconds: float
    low: float
    high: float
    memory_bytes: int


@dataclass(frozen=True)
class MeasuredPlan:
    """cost: of the missing runs by the measured speeds · places: this process first · result_bytes: of their folders
    decode_seconds: of the images that are not decoded yet · took_s: what measuring took · problems: what could not be measured"""

    cost: ResourceEstimate
    places: tuple[PlaceForecast, ...]
    result_bytes: int
    decode_seconds: float
    took_s: float
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Pace:
    """How the runs of a candidate differ from their forecast: slowed: times, on one thread in place of all · low, high: shares"""

    slowed: float = 1.0
    low: float = 1 - LEAST_SPREAD
    high: float = 1 + LEAST_SPREAD


def measure_missing_runs(planned: Plan, store: Store, cache: Path, asked: str = "auto", gpus: int | None = None) -> MeasuredPlan:
    """Times a few batches of each network on real pictures, keeps their speeds for later plans, and forecasts the missing runs.

    asked: the device, as `--device` spells it · gpus: how many there are; None: as many as torch sees, where it computes on one
    Raises SpecError for a device that is not there. What cannot be measured is said.
    """
    device = resolve_device(asked)
    if gpus is None:
        gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    began, missing = time.monotonic(), planned.missing_runs(store)
    threads, paces, problems = torch.get_num_threads(), dict[str, _Pace](), list[str]()
    peak = 0
    decode_seconds = 0.0
    with temporary_folder("measure") as aside:
        for run in list_measurable(planned, missing):
            try:
                task, each_decoded = _make_sample_task(planned, run, device, aside)
                decode_seconds = max(decode_seconds, each_decoded * len(run.image_set.dataset))
                measured = list(time_batches(task, BATCHES))
                slowed = _measure_slowdown(task, measured) if device.type == "cpu" and threads > 1 else 1.0
            except (PhoropterError, RuntimeError, ValueError) as error:
                problems.append(f"{run.candidate.name}: {cut_message(error)}")
                continue
            for times in measured:
                keep_speeds(times, planned.study.base, cache, device.type)
                peak = max(peak, times.peak_bytes)
            paces[run.candidate.name] = _find_pace(measured, slowed)
    cost = estimate_resources(planned, store, cache, device.type)
    places = _forecast_places(planned, missing, cost, paces, peak, threads if device.type == "cpu" else 1, gpus)
    waiting = decode_seconds + cost.teacher_seconds
    shifted = [replace(p, seconds=p.seconds + waiting, low=p.low + waiting, high=p.high + waiting) for p in places]
    return MeasuredPlan(
        cost, tuple(shifted), _estimate_result_bytes(planned, missing), decode_seconds, time.monotonic() - began, tuple(problems)
    )


def _make_sample_task(planned: Plan, run: PlannedRun, device: torch.device, aside: Path) -> tuple[TrainingTask, float]:
    """A batch of a run's training rows, decoded into a temporary folder; and seconds of decoding an image, 0 where all are."""
    images, base = run.image_set, planned.study.base
    rows = spread_rows(run.split.train, find_batch_size(run, device.type, base))
    began = time.monotonic()
    some = replace(images, dataset=images.dataset.select_rows(rows))
    dataset, pixels = prepare_image_set(some, aside, lambda event: None)
    each = 0.0 if images.decoded else (time.monotonic() - began) / len(rows)
    sample = replace(run, image_set=replace(some, dataset=dataset))
    return make_measured_task(planned, sample, np.arange(len(dataset)), pixels, device, aside), each


def _measure_slowdown(task: TrainingTask, measured: Sequence[BatchTimes]) -> float:
    """How many times as long the networks of a task take on one thread."""
    with use_threads(1):
        alone = list(time_batches(task, 1))
    return sum(t.image_seconds[0] for t in alone) / sum(float(np.median(t.image_seconds)) for t in measured)


def _find_pace(measured: Sequence[BatchTimes], slowed: float) -> _Pace:
    middle, least, most = (sum(float(f(t.image_seconds)) for t in measured) for f in (np.median, np.min, np.max))
    return _Pace(max(slowed, 1.0), min(least / middle, 1 - LEAST_SPREAD), max(most / middle, 1 + LEAST_SPREAD))


def _forecast_places(
    planned: Plan,
    missing: Sequence[PlannedRun],
    cost: ResourceEstimate,
    paces: Mapping[str, _Pace],
    peak: int,
    threads: int,
    gpus: int,
) -> Iterator[PlaceForecast]:
    """threads: of a process that has the machine to itself; 1 on a GPU"""
    places = [("", 1, threads)]
    jobs = 2
    while jobs <= threads:
        places.append((f"-j {jobs}", jobs, threads // jobs))
        jobs *= 2
    if gpus > 1:
        places.append(("--devices all", gpus, 1))
    for words, processes, each_threads in places:

        def find_seconds(share: str, run: PlannedRun, each_threads: int = each_threads) -> float:
            pace = paces.get(run.candidate.name, _Pace())
            factor = {"low": pace.low, "high": pace.high}.get(share, 1.0)
            return cost.forecasts[run.key].seconds * factor * slow_down(pace.slowed, threads, each_threads)

        seconds, low, high = (
            schedule_runs(missing, processes, partial(find_seconds, share)) for share in ("middle", "low", "high")
        )
        yield PlaceForecast(words, processes, seconds, low, high, peak)


def slow_down(slowed: float, threads: int, each: int) -> float:
    """How many times as long a run takes on `each` threads as on all `threads`, where it takes `slowed` times as long on one.

    By a part that no thread shortens and one that all share (Amdahl 1967).
    """
    if threads == 1:
        return 1.0
    shared = (slowed - 1) / (1 - 1 / threads)
    return 1 + shared * (1 / each - 1 / threads)


def schedule_runs(runs: Sequence[PlannedRun], workers: int, find_seconds: Callable[[PlannedRun], float]) -> float:
    """Seconds until all runs are done by workers that take the first run, or batch of heads, that is ready and not taken."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(make_batch_key(run) if is_batched(run) else run.key, []).append(run)
    waiting, done_at = list(groups.values()), dict[str, float]()
    left = {run.key for run in runs}
    free = [0.0] * workers
    while waiting:
        now = heapq.heappop(free)
        ready = (g for g in waiting if all(key not in left or done_at.get(key, np.inf) <= now for r in g for key in r.waits_for))
        group = next(ready, None)
        if group is None:  # until the next run of another worker is done
            heapq.heappush(free, min(end for end in done_at.values() if end > now))
            continue
        waiting.remove(group)
        end = now + sum(map(find_seconds, group))
        done_at.update((run.key, end) for run in group)
        heapq.heappush(free, end)
    return max(done_at.values(), default=0.0)


def _estimate_result_bytes(planned: Plan, missing: Sequence[PlannedRun]) -> int:
    """Of predictions and kept bundles: float32 logits and an id of each tested row, and the weights."""
    total = 0
    for run in missing:
        total += len(run.split.test) * (4 * len(run.image_set.dataset.classes) + 100)
        if run.keep_bundle and not run.candidate.is_ensemble:
            total += 4 * sum(catalog.describe_backbone(b).parameters or 0 for b in run.candidate.backbones)
    return total
