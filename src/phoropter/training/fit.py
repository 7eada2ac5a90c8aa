"""Trains one candidate on one split: builds the model, chooses what it reads (pixels, cached features, a teacher), runs the loop.

A frozen candidate whose images are not augmented, or augmented into a few cached views, reads no image here: its head is trained
on cached features.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.errors import LeakageError
from phoropter.core.seeds import seed_of
from phoropter.data.dataset import Dataset
from phoropter.data.images.pixels import Pixels
from phoropter.data.splits.protocol import Split
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.models.spec import ClassifierSpec
from phoropter.training.array_cache import ProgressFunction
from phoropter.training.augmentation.device_arrays import send_array
from phoropter.training.augmentation.pipeline import Augmentation
from phoropter.training.batches.loading import Batch, BatchSampler, BatchSource, FeatureLoader, PixelLoader
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.distillation import (
    DistillationLoader,
    Teacher,
    TeacherLogits,
    make_teacher_inputs,
)
from phoropter.training.feature_cache import CachedFeatures, extract_cached_views, extract_features
from phoropter.training.fine_tuning.adapted_network import AdaptedNetwork
from phoropter.training.fine_tuning.kept_prefix import keep_prefix
from phoropter.training.loop.checkpoint import Checkpoints, TrainingState
from phoropter.training.loop.history import HistoryRow, make_history_row, validation_metrics
from phoropter.training.loop.losses import Criterion, DistillationLoss, compute_class_weights
from phoropter.training.loop.parallel.batch_gradients import Objective
from phoropter.training.loop.parallel.training_group import TrainingGroup
from phoropter.training.loop.precision import resolve_autocast_dtype
from phoropter.training.loop.training_loop import StepProgress, TrainingSetup, ValidationFunction, train
from phoropter.training.predict import predict_from_features, predict_from_pixels
from phoropter.training.solved_heads.fused_heads import solve_heads
from phoropter.training.solved_heads.problem import LogisticProblem
from phoropter.training.teacher_check import check_teacher_accuracy

LogitsAndFeatures = tuple[NDArray[np.float32], NDArray[np.float16]]  # logits (n, C), features (n, D)


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """One candidate on one split with one seed, and where its data are.

    cache:          folder of cached features and teacher logits
    weights_base:   folder that relative paths of weights start from
    checkpoints:    where a killed run resumes, and when to save
    progress:       called with (images done, images in all) during a feature pass, or a teacher's
    teacher:        of a student, unless its weight α is 0
    member_bundles: bundles that a fusion with warm_start begins with, in the order of its branches
    bag_index:      which of the recipe's bags is trained; None: all of them, where there are several (bagging.py)
    last_epoch:     the epoch after which training ends, under the schedule of the complete recipe; None: the recipe's last
    row_weights:    (N,) float32 factor of each row's loss, 1 on average, for one who is trained without a teacher; None: all 1
    group:          processes that train it together, each with this task; the first one computes what only one needs to
    """

    candidate: Candidate
    split: Split
    dataset: Dataset
    pixels: Pixels
    device: torch.device
    cache: Path
    weights_base: Path | None = None
    checkpoints: Checkpoints = field(default_factory=lambda: Checkpoints(None))
    progress: ProgressFunction | None = None
    teacher: Teacher | None = None
    member_bundles: tuple[Path, ...] = ()
    bag_index: int | None = None
    last_epoch: int | None = None
    row_weights: NDArray[np.float32] | None = None
    group: TrainingGroup | None = None


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A trained classifier and how it was trained.

    best_epoch:             the epoch selected on validation rows, counted from 1; 0: the last one
    initial_weight_digests: of the backbones, before training
    features:               cached features of a frozen candidate, else None
    learnt_features:        those its head was trained on, of each view in turn, or what was kept of a frozen part; empty where it
                            was trained on pixels
    adapter_parameters:     numbers of adapters that were trained, and are now part of the weights
    peak_memory_bytes:      while it was trained, where that was measured
    distillation_info, bagging_info, logistic_info: what the record says of a teacher, of bags, of a solved head
    precision:              the type the network computed in, which `auto` leaves to the device
    micro_batch:            rows that the memory sufficed for, where it did not for a batch; 0: batches were computed at once
    """

    task: TrainingTask
    model: Classifier
    history: list[HistoryRow]
    best_epoch: int
    train_seconds: float
    initial_weight_digests: tuple[str, ...]
    features: CachedFeatures | None
    distillation_info: dict[str, Any] | None = None
    bagging_info: dict[str, Any] | None = None
    logistic_info: dict[str, Any] | None = None
    precision: str = "float32"
    learnt_features: tuple[CachedFeatures, ...] = ()
    peak_memory_bytes: int = 0
    micro_batch: int = 0
    adapter_parameters: int = 0

    def predict_held_out(self, rows: NDArray[np.int64]) -> LogitsAndFeatures:
        """(n,) rows → (n, C) float32 logits, (n, D) float16 last-layer features. Raises LeakageError for a training row."""
        trained = np.intersect1d(rows, self.task.split.train)
        if len(trained):
            raise LeakageError(f"{self.task.split.name}: {len(trained)} rows to be tested were trained on; mend the split")
        return predict_rows(self, rows)


def predict_rows(run: TrainedRun, rows: NDArray[np.int64]) -> LogitsAndFeatures:
    """The logits and last-layer features of any rows, trained on or not."""
    task, recipe = run.task, run.task.candidate.recipe
    if run.features is not None and recipe.tta == "none":
        return predict_from_features(run.model, run.features, rows, task.device)
    dtype = resolve_autocast_dtype(recipe, task.device)
    return predict_from_pixels(run.model, task.pixels, rows, task.device, recipe.tta, dtype)


def fit(task: TrainingTask) -> Generator[StepProgress | HistoryRow, None, TrainedRun]:
    """Trains the task's candidate, or one bag of it. Yields progress and a history row an epoch; returns the TrainedRun.

    Bit-identical for equal tasks on a CPU with the same number of threads, whether or not it was interrupted; on a GPU as far
    as its kernels are deterministic. Raises DivergedError, WeightsError, DiskError; LeakageError for a teacher that was trained
    on rows to be tested, and RunError for one near chance.
    """
    with torch.random.fork_rng(devices=[task.device] if task.device.type == "cuda" else []):
        model = build_model(task)
        weights_before = tuple(b.identity for b in model.branches)
        features = _stored_features(task, model, weights_before)
        if task.candidate.recipe.l2_penalties:
            assert features is not None
            return fit_logistic_heads([task], [model], features, weights_before)[0]
        views = training_features(task, model, features, weights_before)
        distillation_loader, info = _make_distillation_loader(task)
        adapted = AdaptedNetwork(model, task.candidate.recipe, task.split.seed)
        if features is None and distillation_loader is None:
            loader, recipe = _make_pixel_loader(task), task.candidate.recipe
            adapted.prefix = keep_prefix(model, recipe, loader, task.cache, task.progress, weights_before)
            views = adapted.prefix.views if adapted.prefix else ()
        began = time.monotonic()
        state = TrainingState()
        if task.candidate.recipe.phases:
            setup = _make_training_setup(task, adapted, features, views, distillation_loader)
            state = yield from train(model, task.candidate.recipe, setup, task.checkpoints, task.device)
        adapted.end()
        return TrainedRun(
            task,
            model,
            history=state.history,
            best_epoch=state.best_epoch,
            train_seconds=time.monotonic() - began,
            initial_weight_digests=weights_before,
            features=features,
            distillation_info=info,
            precision=str(resolve_autocast_dtype(task.candidate.recipe, task.device)).removeprefix("torch."),
            learnt_features=() if distillation_loader else views,
            micro_batch=state.micro_batch,
            adapter_parameters=adapted.adapter_parameters,
        )


def fit_logistic_heads(
    tasks: Sequence[TrainingTask], models: Sequence[Classifier], features: CachedFeatures, identities: tuple[str, ...]
) -> list[TrainedRun]:
    """Solves the heads of tasks of one frozen candidate, each with its model (solved_heads); a run for each."""
    began = time.monotonic()
    recipe, fusion, dataset = tasks[0].candidate.recipe, tasks[0].candidate.fusion, tasks[0].dataset
    problems = [
        LogisticProblem(dataset, t.split, compute_class_weights(recipe.loss, dataset.labels[t.split.train], dataset.classes))
        for t in tasks
    ]
    mode = fusion.mode if fusion else None
    heads = solve_heads(features, problems, recipe.l2_penalties, recipe.inner_folds, tasks[0].device, mode)
    seconds = (time.monotonic() - began) / len(tasks)
    runs = []
    for task, model, head in zip(tasks, models, heads, strict=True):
        model.head.load_state_dict(head.state)
        figures = {"learning_rate": 0.0, "loss": head.loss, "accuracy": head.accuracy}
        row = make_history_row(1, "head", **figures, seconds=seconds, images=len(task.split.train))
        solved = TrainedRun(
            task, model, [row], 0, seconds, identities, features, logistic_info=head.info, learnt_features=(features,)
        )
        runs.append(solved)
    return runs


def build_model(task: TrainingTask) -> Classifier:
    """The candidate's network before training, on the task's device; its random parts depend on the split's seed only."""
    candidate = task.candidate
    backbones = candidate.backbones
    if candidate.recipe.drop_path:
        rate = {"drop_path_rate": candidate.recipe.drop_path}
        backbones = tuple(b.with_changes(options={**b.options, **rate}) for b in backbones)
    if task.member_bundles:
        backbones = tuple(b.with_changes(weights=str(m.resolve())) for b, m in zip(backbones, task.member_bundles, strict=True))
    spec = ClassifierSpec(
        backbones=backbones,
        head=candidate.head,
        fusion=candidate.fusion,
        classes=task.dataset.classes,
        picture=task.pixels.size,
        center_crop=candidate.recipe.center_crop,
        multi_label=task.dataset.is_multi_label,
        student="token" if candidate.distillation and candidate.distillation.loss == "token" else "plain",
    )
    model = classifiers.build_classifier(spec, seed=seed_of(task.split.seed, "weights"), base=task.weights_base)
    if candidate.recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(task.device)


def _stored_features(task: TrainingTask, model: Classifier, identities: tuple[str, ...]) -> CachedFeatures | None:
    recipe = task.candidate.recipe
    if not task.candidate.stores_features:
        return None
    return extract_features(model, task.pixels, task.cache, task.device, task.progress, identities, *recipe.feature_format)


def training_features(
    task: TrainingTask, model: Classifier, features: CachedFeatures | None, identities: tuple[str, ...]
) -> tuple[CachedFeatures, ...]:
    """What a head trains on, epoch by epoch in a cycle: the given features of unaugmented images, or those of the cached views.

    Empty where the candidate trains on pixels.
    """
    recipe = task.candidate.recipe
    if features is None or not recipe.n_cached_views:
        return () if features is None else (features,)
    loader = _make_pixel_loader(task)
    return extract_cached_views(
        model, loader, recipe.n_cached_views, task.cache, task.progress, identities, *recipe.feature_format
    )


def make_batch_sampler(task: TrainingTask) -> BatchSampler:
    """The order in which the task's training rows are shown."""
    recipe = task.candidate.recipe
    return BatchSampler(task.dataset, task.split, recipe.batch_size, recipe.imbalance, task.bag_index or 0)


def _make_pixel_loader(task: TrainingTask) -> PixelLoader:
    steps = task.candidate.recipe.augment
    return PixelLoader(task.dataset, task.pixels, Augmentation(steps, seed=task.split.seed) if steps else None, task.device)


def _make_distillation_loader(task: TrainingTask) -> tuple[DistillationLoader | None, dict[str, Any] | None]:
    """Of a student: its batches with the teacher's logits, all of them computed; and what the record says of the teacher."""
    distillation, teacher, split = task.candidate.distillation, task.teacher, task.split
    if distillation is None or distillation.alpha == 0:
        return None, None
    if teacher is None:
        raise ValueError(f"the student '{task.candidate.name}' has no teacher in its task")
    teacher.raise_on_leak(task.dataset.hashed_ids, split)
    began = time.monotonic()
    if task.group is not None and not task.group.is_leader:
        task.group.meet()  # then the first process has stored what the teacher says
    loader = _make_pixel_loader(task)
    check = check_teacher_accuracy(teacher, loader, split.train, task.cache)
    epochs = task.candidate.recipe.total_epochs
    inputs = make_teacher_inputs(loader, make_batch_sampler(task), epochs, split, teacher, distillation)
    logits = TeacherLogits(teacher, inputs, task.cache, task.progress)
    logits.compute_missing()
    if task.group is not None and task.group.is_leader:
        task.group.meet()
    seconds = round(time.monotonic() - began, 3)
    info = {
        "teacher": teacher.name,
        "accuracy_check": check,
        "views": inputs.view_count,
        "bytes": logits.nbytes,
        "seconds": seconds,
    }
    return DistillationLoader(inputs, logits), info


def _make_training_setup(
    task: TrainingTask,
    adapted: AdaptedNetwork,
    features: CachedFeatures | None,
    views: tuple[CachedFeatures, ...],
    distillation_loader: DistillationLoader | None,
) -> TrainingSetup:
    recipe, split = task.candidate.recipe, task.split
    source: BatchSource
    if distillation_loader is not None:
        source = distillation_loader
    else:
        source = FeatureLoader(task.dataset, views, task.device) if views else _make_pixel_loader(task)
    weights = compute_class_weights(recipe.loss, task.dataset.labels[split.train], task.dataset.classes)
    criterion = Criterion(recipe.loss, None if weights is None else weights.to(task.device))
    objective, validator = _make_objective(task, adapted, criterion), _make_validator(task, adapted.model, features)
    return TrainingSetup(source, make_batch_sampler(task), objective, validator, task.last_epoch, task.group)


def _make_objective(task: TrainingTask, adapted: AdaptedNetwork, criterion: Criterion) -> Objective:
    fusion, distillation = task.candidate.fusion, task.candidate.distillation
    auxiliary = fusion.aux_loss_weight if fusion else 0.0
    has_token = distillation is not None and distillation.loss == "token"
    distilled = (
        DistillationLoss(criterion, distillation.loss, distillation.alpha, distillation.temperature) if distillation else None
    )
    factors = None if task.row_weights is None else torch.from_numpy(task.row_weights).to(task.device)

    def compute_loss_and_logits(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        out = adapted.forward_batch(batch.inputs)
        label_logits = out.class_logits if has_token and out.class_logits is not None else out.logits
        mixing = (batch.mix_index, batch.mix_lambda)
        row_weights = None if factors is None else factors[send_array(batch.rows, factors.device)]
        if distilled is None or batch.teacher_logits is None:
            loss = criterion(label_logits, batch.labels, *mixing, row_weights=row_weights, part=batch.part)
        else:
            token = out.token_logits if has_token else None
            loss = distilled(label_logits, batch.labels, batch.teacher_logits, *mixing, token=token, part=batch.part)
        if auxiliary:
            for logits in out.branch_logits:
                loss = loss + auxiliary * criterion(logits, batch.labels, *mixing, row_weights=row_weights, part=batch.part)
        return loss, out.logits

    return compute_loss_and_logits


def _make_validator(task: TrainingTask, model: Classifier, features: CachedFeatures | None) -> ValidationFunction | None:
    rows = task.split.val
    if rows is None or not len(rows) or (task.group is not None and not task.group.is_leader):
        return None
    labels = task.dataset.labels[rows]

    def compute_validation_metrics() -> dict[str, float]:
        return validation_metrics(predict_rows(TrainedRun(task, model, [], 0, 0.0, (), features), rows)[0], labels)

    return compute_validation_metrics
