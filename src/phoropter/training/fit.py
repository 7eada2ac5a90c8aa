"""A Candidate on a Split → a Classifier: what is learned, what it is shown and by whom taught, the loop, done.

A frozen candidate whose pictures are not augmented, or augmented into a few fixed views, never touches a picture here: its head
learns from stored features.
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
from phoropter.training.augmentation.pipeline import Augmentation
from phoropter.training.batches.loading import Batch, BatchSampler, BatchSource, FeatureLoader, PixelLoader
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.distillation import (
    DistillationLoader,
    Teacher,
    TeacherLogits,
    check_teacher_accuracy,
    make_teacher_inputs,
)
from phoropter.training.feature_cache import CachedFeatures, extract_cached_views, extract_features
from phoropter.training.logistic_regression import LogisticProblem, fit_logistic
from phoropter.training.loop.checkpoint import Checkpoints
from phoropter.training.loop.losses import Criterion, DistillationLoss, compute_class_weights
from phoropter.training.loop.precision import resolve_autocast_dtype
from phoropter.training.loop.training_loop import HistoryRow, Objective, StepProgress, TrainingSetup, ValidationFunction, train
from phoropter.training.predict import predict_from_features, predict_from_pixels

LogitsAndFeatures = tuple[NDArray[np.float32], NDArray[np.float16]]  # logits (n, C), features (n, D)


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """One candidate on one split with one seed, and where its material is.

    cache: folder of stored features · base: folder that relative weights paths start from ·
    checkpoints: where to go on from, and when to save · progress: told about a feature pass or a teacher's (done, total)
    teacher: of a student, unless its weight α is 0 · members: bundles of a warm fusion's branches, in their order
    bag: the one of the recipe's bags that is trained; None: all of them, where there are several (bags.py)
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


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A trained classifier and how it came to be; `answers(rows)` are its predictions.

    weights_before: digests of the backbones' weights before training · taught: of a student: how its teacher was asked
    bags: of several under-samplings: what each was trained on
    solved: of a head that was solved: under which penalty, and how it was chosen
    precision: what the network computed in, which `auto` leaves to the device; of stored features their heads
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

    def predict_held_out(self, rows: NDArray[np.int64]) -> LogitsAndFeatures:
        """(n,) rows → (n, C) float32 logits, (n, D) float16 last-layer features; none of the rows may have been trained on."""
        met = np.intersect1d(rows, self.task.split.train)
        if len(met):
            raise LeakageError(f"{self.task.split.name}: {len(met)} rows to be tested were trained on; the split is at fault")
        return predict_rows(self, rows)


def predict_rows(fitted: TrainedRun, rows: NDArray[np.int64]) -> LogitsAndFeatures:
    """A fitted classifier's logits and features for any rows, trained on or not."""
    task, recipe = fitted.task, fitted.task.candidate.recipe
    if fitted.features is not None and recipe.tta == "single":
        return predict_from_features(fitted.model, fitted.features, rows, task.device)
    dtype = resolve_autocast_dtype(recipe, task.device)
    return predict_from_pixels(fitted.model, task.pixels, rows, task.device, recipe.tta, dtype)


def fit(task: TrainingTask) -> Generator[StepProgress | HistoryRow, None, TrainedRun]:
    """Trains the task's candidate. Yields ticks and a row an epoch; returns the Fitted.

    Bit-identical for equal tasks on a CPU with the same number of threads, whether or not it was interrupted; on a GPU as far
    as its kernels repeat themselves. Raises DivergedError, WeightsError, DiskError; LeakageError and RunError for a teacher
    that met the rows to be tested, or knows nothing.
    """
    with torch.random.fork_rng(devices=[task.device] if task.device.type == "cuda" else []):
        model = build_model(task)
        weights_before = tuple(b.identity for b in model.branches)
        features = _stored_features(task, model, weights_before)
        if task.candidate.recipe.l2_penalties:
            assert features is not None
            return fit_logistic_heads([task], [model], features, weights_before)[0]
        shown = training_features(task, model, features, weights_before)
        taught, note = _make_distillation_loader(task)
        began = time.monotonic()
        history, best_epoch = [], 0
        if task.candidate.recipe.phases:
            lesson = _make_training_setup(task, model, features, shown, taught)
            state = yield from train(model, task.candidate.recipe, lesson, task.checkpoints, task.device)
            history, best_epoch = state.history, state.best_epoch
        seconds, dtype = time.monotonic() - began, resolve_autocast_dtype(task.candidate.recipe, task.device)
        precision = str(dtype).removeprefix("torch.")
        return TrainedRun(task, model, history, best_epoch, seconds, weights_before, features, note, precision=precision)


def fit_logistic_heads(
    tasks: Sequence[TrainingTask], models: Sequence[Classifier], features: CachedFeatures, identities: tuple[str, ...]
) -> list[TrainedRun]:
    """Tasks of one frozen candidate whose heads are solved, each with its model → what became of each (training/convex)."""
    began = time.monotonic()
    recipe, dataset = tasks[0].candidate.recipe, tasks[0].dataset
    problems = [
        LogisticProblem(dataset, t.split, compute_class_weights(recipe.loss, dataset.labels[t.split.train], dataset.classes))
        for t in tasks
    ]
    found = fit_logistic(features[0], problems, recipe.l2_penalties, recipe.inner_folds, tasks[0].device)
    seconds = (time.monotonic() - began) / len(tasks)
    made = []
    for task, model, one in zip(tasks, models, found, strict=True):
        model.head.load_state_dict({"head.last.weight": one.weight, "head.last.bias": one.bias})
        row = {"epoch": 1, "phase": "head", "learning_rate": 0.0, "train_loss": one.loss, "train_accuracy": one.accuracy}
        row |= {"seconds": round(seconds, 3), "images_per_s": round(len(task.split.train) / max(seconds, 1e-9), 1)}
        made.append(TrainedRun(task, model, [row], 0, seconds, identities, features, logistic_info=one.info))
    return made


def build_model(task: TrainingTask) -> Classifier:
    """The candidate's network before training; its random parts are a function of the split's seed alone."""
    candidate = task.candidate
    backbones = candidate.backbones
    if task.member_bundles:
        backbones = tuple(b.with_changes(weights=str(m.resolve())) for b, m in zip(backbones, task.member_bundles, strict=True))
    spec = ClassifierSpec(
        backbones=backbones,
        head=candidate.head,
        fusion=candidate.fusion,
        classes=task.dataset.classes,
        picture=task.pixels.size,
        crop=candidate.recipe.crop,
        student="token" if candidate.teaching and candidate.teaching.loss == "token" else "plain",
    )
    model = classifiers.build_classifier(spec, seed=seed_of(task.split.seed, "weights"), base=task.weights_base)
    if candidate.recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(task.device)


def _stored_features(task: TrainingTask, model: Classifier, identities: tuple[str, ...]) -> CachedFeatures | None:
    recipe = task.candidate.recipe
    if not task.candidate.stores_features:
        return None
    return extract_features(model, task.pixels, task.cache, task.device, task.progress, identities, recipe.feature_dtype)


def training_features(
    task: TrainingTask, model: Classifier, clean: CachedFeatures | None, identities: tuple[str, ...]
) -> tuple[CachedFeatures, ...]:
    """What a head learns from, epoch by epoch and over again: the clean features, or those of the fixed views; else nothing."""
    recipe = task.candidate.recipe
    if clean is None or not recipe.n_cached_views:
        return () if clean is None else (clean,)
    tap = _make_pixel_loader(task)
    return extract_cached_views(model, tap, recipe.n_cached_views, task.cache, task.progress, identities, recipe.feature_dtype)


def make_batch_sampler(task: TrainingTask) -> BatchSampler:
    """Which of its training rows are shown when."""
    recipe, split = task.candidate.recipe, task.split
    return BatchSampler(
        task.dataset, split.train, recipe.batch_size, split.seed, recipe.imbalance, split.name, task.bag_index or 0
    )


def _make_pixel_loader(task: TrainingTask) -> PixelLoader:
    steps = task.candidate.recipe.augment
    return PixelLoader(task.dataset, task.pixels, Augmentation(steps, seed=task.split.seed) if steps else None, task.device)


def _make_distillation_loader(task: TrainingTask) -> tuple[DistillationLoader | None, dict[str, Any] | None]:
    """A student's batches with its teacher's answers, all of them there; and how the teacher was asked, for the record."""
    teaching, teacher, split = task.candidate.teaching, task.teacher, task.split
    if teaching is None or teaching.alpha == 0:
        return None, None
    if teacher is None:
        raise ValueError(f"the student '{task.candidate.name}' has no teacher in its task")
    teacher.raise_on_leak(task.dataset.hashed_ids, split)
    began = time.monotonic()
    tap = _make_pixel_loader(task)
    exam = check_teacher_accuracy(teacher, tap, split.train, task.cache)
    shown = make_teacher_inputs(tap, make_batch_sampler(task), task.candidate.recipe.total_epochs, split, teacher, teaching)
    answers = TeacherLogits(teacher, shown, task.cache, task.progress)
    answers.compute_missing()
    seconds = round(time.monotonic() - began, 3)
    note = {"teacher": teacher.name, "exam": exam, "views": shown.view_count, "bytes": answers.nbytes, "seconds": seconds}
    return DistillationLoader(shown, answers), note


def _make_training_setup(
    task: TrainingTask,
    model: Classifier,
    features: CachedFeatures | None,
    shown: tuple[CachedFeatures, ...],
    taught: DistillationLoader | None,
) -> TrainingSetup:
    recipe, split = task.candidate.recipe, task.split
    tap: BatchSource = taught or (FeatureLoader(task.dataset, shown, task.device) if shown else _make_pixel_loader(task))
    weights = compute_class_weights(recipe.loss, task.dataset.labels[split.train], task.dataset.classes)
    criterion = Criterion(recipe.loss, None if weights is None else weights.to(task.device))
    return TrainingSetup(
        tap, make_batch_sampler(task), _make_objective(task, model, criterion), _make_validator(task, model, features)
    )


def _make_objective(task: TrainingTask, model: Classifier, criterion: Criterion) -> Objective:
    fusion, teaching = task.candidate.fusion, task.candidate.teaching
    auxiliary = fusion.aux_loss_weight if fusion else 0.0
    token = teaching is not None and teaching.loss == "token"
    distilled = DistillationLoss(criterion, teaching.loss, teaching.alpha, teaching.temperature) if teaching else None
    outputs = torch.compile(model.forward_outputs) if task.candidate.recipe.compile else model.forward_outputs

    def compute_loss_and_logits(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        out = model.forward_head(batch.inputs) if isinstance(batch.inputs, tuple) else outputs(batch.inputs)
        own = out.class_logits if token and out.class_logits is not None else out.logits
        if distilled is None or batch.teacher_logits is None:
            loss = criterion(own, batch.labels, batch.mix_index, batch.mix_lambda)
        else:
            said = out.token_logits if token else None
            loss = distilled(own, batch.labels, batch.teacher_logits, batch.mix_index, batch.mix_lambda, token=said)
        if auxiliary:
            for logits in out.branch_logits:
                loss = loss + auxiliary * criterion(logits, batch.labels, batch.mix_index, batch.mix_lambda)
        return loss, out.logits

    return compute_loss_and_logits


def _make_validator(task: TrainingTask, model: Classifier, features: CachedFeatures | None) -> ValidationFunction | None:
    rows = task.split.val
    if rows is None or not len(rows):
        return None
    labels = torch.from_numpy(task.dataset.labels[rows])

    def compute_validation_metrics() -> dict[str, float]:
        fitted = TrainedRun(task, model, [], 0, 0.0, (), features)
        logits = torch.from_numpy(predict_rows(fitted, rows)[0])
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return {"validation_loss": float(loss), "validation_accuracy": float((logits.argmax(1) == labels).double().mean())}

    return compute_validation_metrics
