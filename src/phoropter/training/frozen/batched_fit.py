"""Many heads of one frozen candidate at once: all its folds, repeats, seeds, rates and decays as one batched tensor program.

The heads' parameters are stacked (runs first) and stepped by one optimiser, which works element by element, so each run ends
where it would have ended alone, up to the order of floating-point sums. Draws are those of a run alone: the same initial head,
the same order of rows, the same dropout. Left to `fit`, one by one: averaged weights, accumulation, bags.

Letters: R runs, L lanes of r runs (training/lanes), D_i width of branch i, C classes.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phoropter.core.errors import DivergedError
from phoropter.core.files import digest
from phoropter.core.seeds import seed_of
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.training.batches.loading import BatchSampler
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.recipe import Phase
from phoropter.training.feature_cache import CachedFeatures, extract_features
from phoropter.training.fit import (
    TrainedRun,
    TrainingTask,
    build_model,
    fit_logistic_heads,
    make_batch_sampler,
    predict_rows,
    training_features,
)
from phoropter.training.frozen.batch_schedule import SharedSchedule, iterate_batch_windows
from phoropter.training.frozen.batched_heads import BatchedDropout, BatchedHeads, can_share_window
from phoropter.training.loop.losses import compute_class_weights
from phoropter.training.loop.schedule import build_optimizer, set_learning_rate
from phoropter.training.loop.training_loop import HistoryRow

MAX_BATCHED_HEADS = 64  # runs in one program: what is gathered for a step stays a few hundred megabytes

FitOutcome = TrainedRun | DivergedError


def can_batch(candidate: Candidate) -> bool:
    """Whether runs of this candidate may be trained as one program."""
    recipe = candidate.recipe
    simple = not (recipe.ema or candidate.teaching or candidate.members or candidate.head.kind == "pretrained")
    alone = recipe.grad_accum_steps == 1 and recipe.imbalance.n_bags == 1 and recipe.precision in ("float32", "auto")
    return candidate.stores_features and bool(recipe.phases) and simple and alone


def batch_group_key(candidate: Candidate) -> str:
    """Equal for candidates whose heads may share a program: they differ in rates, decay and name alone."""
    made = candidate.plain()
    made.pop("name")
    recipe = made["recipe"]
    recipe.pop("preset")
    recipe["optimizer"].pop("weight_decay")
    recipe["phases"] = [[p["train"], p["epochs"]] for p in recipe["phases"]]
    return digest(made)


def fit_batched(tasks: Sequence[TrainingTask]) -> list[FitOutcome]:
    """Tasks of one candidate that `fits_together`, or of its `kin`, on one dataset, at most MOST → an outcome each, in order.

    Each equals what `fit` returns for the task alone, within the tolerance of float32 sums.
    """
    with torch.random.fork_rng(devices=[tasks[0].device] if tasks[0].device.type == "cuda" else []):
        return fit_from_features(tasks, extract_for_tasks(tasks))


@dataclass(frozen=True, eq=False)
class FrozenFeatures:
    """Frozen backbones that have been asked: numbers of the tasks that read them, the network, its features, its identities.

    shown: what is learned from, epoch by epoch and over again: the features, or those of the recipe's fixed views
    """

    task_indices: list[int]
    model: Classifier
    features: CachedFeatures
    identities: tuple[str, ...]
    training_features: tuple[CachedFeatures, ...]


def extract_for_tasks(tasks: Sequence[TrainingTask]) -> list[FrozenFeatures]:
    """The backbones of some tasks of one candidate, built, and their features; random ones and fixed views are functions of the
    seed."""
    by_seed: dict[int, list[int]] = defaultdict(list)
    for i, task in enumerate(tasks):
        by_seed[task.split.seed if _has_random_backbone(task.candidate) or task.candidate.recipe.n_cached_views else 0].append(i)
    found: list[FrozenFeatures] = []
    for members in by_seed.values():
        task = tasks[members[0]]
        if found and not _has_random_backbone(task.candidate):
            first, identities, features = found[0].model, found[0].identities, found[0].features
        else:
            first = build_model(task)
            first.freeze("head")
            identities = tuple(b.identity for b in first.branches)
            dtype = task.candidate.recipe.feature_dtype
            features = extract_features(first, task.pixels, task.cache, task.device, task.progress, identities, dtype)
        found.append(FrozenFeatures(members, first, features, identities, training_features(task, first, features, identities)))
    return found


def fit_from_features(tasks: Sequence[TrainingTask], found: Sequence[FrozenFeatures]) -> list[FitOutcome]:
    """As `fit_together`, from what has been asked."""
    outcomes: dict[int, FitOutcome] = {}
    runs: list[_HeadRun] = []
    for asked in found:
        seeds = [seed_of(tasks[i].split.seed, "weights") for i in asked.task_indices]
        models = [classifiers.with_new_head(asked.model, seed=seed) for seed in seeds]
        mine = [tasks[i] for i in asked.task_indices]
        if mine[0].candidate.recipe.l2_penalties:
            outcomes |= dict(
                zip(asked.task_indices, fit_logistic_heads(mine, models, asked.features, asked.identities), strict=True)
            )
            continue
        for i, model in zip(asked.task_indices, models, strict=True):
            runs.append(_HeadRun(i, tasks[i], model, asked))
    for program in _group_into_trainers(runs):
        outcomes |= program.train()
    return [outcomes[i] for i in range(len(tasks))]


def _has_random_backbone(candidate: Candidate) -> bool:
    return any(b.weights == "random" for b in candidate.backbones)


@dataclass(frozen=True, eq=False)
class _HeadRun:
    """One member of a program.

    number: its place among the tasks · asked: its backbones · history: a row an epoch · best: weights, where chosen
    """

    task_index: int
    task: TrainingTask
    model: Classifier
    extracted: FrozenFeatures
    history: list[HistoryRow] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)

    @property
    def batch_sampler(self) -> BatchSampler:
        return make_batch_sampler(self.task)


def _group_into_trainers(runs: list[_HeadRun]) -> Iterator[_BatchedTrainer]:
    """Runs whose epochs have equally many batches share a schedule; lanes of equally many runs share a program."""
    by_steps: dict[int, list[_HeadRun]] = defaultdict(list)
    for run in runs:
        by_steps[len(run.batch_sampler.epoch_batches(0))].append(run)
    for some in by_steps.values():
        lanes = _group_by_schedule(
            some, can_share_window(some[0].model.head) and not some[0].task.candidate.recipe.imbalance.stratified_batches
        )
        by_length: dict[int, list[_ScheduledRuns]] = defaultdict(list)
        for lane in lanes:
            by_length[len(lane.runs)].append(lane)
        for equal in by_length.values():
            yield _BatchedTrainer(equal)


@dataclass(frozen=True, eq=False)
class _ScheduledRuns:
    runs: list[_HeadRun]
    schedule: SharedSchedule


def _group_by_schedule(runs: list[_HeadRun], shared: bool) -> list[_ScheduledRuns]:
    """Runs by seed where they may share windows and these are not wasteful, else by split; by rates and decay within."""
    found: dict[tuple[Any, ...], list[_HeadRun]] = defaultdict(list)
    for run in runs:
        found[(run.task.split.seed,) if shared else (run.task.split.seed, run.task.split.name)].append(run)
    lanes: list[_ScheduledRuns] = []
    for mine in found.values():
        mine = sorted(mine, key=lambda run: (_hyperparameter_key(run), run.task_index))
        reads = SharedSchedule([run.batch_sampler for run in mine], shared)
        lanes += _group_by_schedule(mine, False) if shared and reads.is_wasteful else [_ScheduledRuns(mine, reads)]
    return lanes


def _hyperparameter_key(run: _HeadRun) -> str:
    recipe = run.task.candidate.recipe
    return digest([recipe.optimizer.plain(), [p.plain() for p in recipe.phases]])


class _BatchedTrainer:
    """R runs, one optimiser."""

    def __init__(self, lanes: list[_ScheduledRuns]) -> None:
        self.schedules = [lane.schedule for lane in lanes]
        self.runs = [run for lane in lanes for run in lane.runs]
        self.task = self.runs[0].task
        self.recipe = self.task.candidate.recipe
        self.device = self.task.device
        weights = [
            compute_class_weights(self.recipe.loss, t.dataset.labels[t.split.train], t.dataset.classes) for t in self._run_tasks
        ]
        stacked = None if weights[0] is None else torch.stack([w for w in weights if w is not None]).to(self.device)
        heads = [run.model.head for run in self.runs]
        fusion = self.task.candidate.fusion
        self.heads = BatchedHeads(heads, self.recipe.loss, stacked, fusion.aux_loss_weight if fusion else 0.0)
        self.dropout = BatchedDropout(heads[0], self.schedules, self.device)
        self.feature_table = _FeatureTable(lanes, self.device)

    @property
    def _run_tasks(self) -> list[TrainingTask]:
        return [run.task for run in self.runs]

    def train(self) -> dict[int, FitOutcome]:
        """Trains all runs; number of the task → its outcome."""
        began = time.monotonic()
        first = 0
        for number, phase in enumerate(self.recipe.phases):
            optimizer, rates = self._build_shared_optimizer(number)
            for epoch in range(first, first + phase.epochs):
                self._train_epoch(phase, optimizer, rates, epoch, first)
            first += phase.epochs
        seconds = (time.monotonic() - began) / len(self.runs)
        return {run.task_index: self._make_outcome(run, i, seconds) for i, run in enumerate(self.runs)}

    def _build_shared_optimizer(self, number: int) -> tuple[torch.optim.Optimizer, list[dict[str, Any]]]:
        """One optimiser over all runs, with groups for each rate and decay; and of each run the last of its groups."""
        whole: torch.optim.Optimizer | None = None
        last: list[dict[str, Any]] = []
        for _, equal in groupby(enumerate(self.runs), key=lambda numbered: _hyperparameter_key(numbered[1])):
            some = list(equal)
            part = slice(some[0][0], some[-1][0] + 1)
            instead = {}
            for name, parameter in self.heads.parameters.items():
                piece = parameter[part]
                piece.grad = self.heads.gradients[name][part]
                instead[f"head.{name}"] = piece
            run = some[0][1]
            recipe = run.task.candidate.recipe
            made = build_optimizer(run.model, recipe, recipe.phases[number], instead)
            if whole is None:
                whole = made
            else:
                for group in made.param_groups:
                    whole.add_param_group(group)
            last += [whole.param_groups[-1]] * len(some)
        assert whole is not None
        return whole, last

    def _train_epoch(
        self, phase: Phase, optimizer: torch.optim.Optimizer, rates: list[dict[str, Any]], epoch: int, first: int
    ) -> None:
        began = time.monotonic()
        sums = torch.zeros(3, len(self.runs), dtype=torch.float32, device=self.device)
        self.feature_table.load_view(epoch)
        coming = list(iterate_batch_windows(self.schedules, epoch))
        for index, window in enumerate(coming):
            set_learning_rate(optimizer, self.recipe.schedule, (epoch - first) * len(coming) + index, len(coming), phase.epochs)
            counts = torch.from_numpy(window.batch_sizes).to(self.device)
            member = torch.from_numpy(window.mask).to(self.device)
            scales = self.dropout.draw_scales(epoch, index, window.batch_sizes[:, 0].astype(int).tolist(), window.rows.shape[1])
            found = self.heads.forward_backward(*self.feature_table.gather_rows(window.rows), member, counts, scales)
            self._clip_gradients()
            optimizer.step()
            sums[0].addcmul_(found[0], counts.flatten())
            sums[1] += found[1]
            sums[2] += counts.flatten()
        seconds = (time.monotonic() - began) / len(self.runs)
        for i, (loss, hits, n) in enumerate(sums.T.tolist()):
            self.runs[i].history.append(
                {
                    "epoch": epoch + 1,
                    "phase": phase.train,
                    "learning_rate": rates[i]["lr"],
                    "train_loss": loss / n,
                    "train_accuracy": hits / n,
                    "seconds": round(seconds, 3),
                    "images_per_s": round(n / seconds, 1) if seconds else 0.0,
                    **self._validate_run(i, epoch),
                }
            )

    def _validate_run(self, i: int, epoch: int) -> dict[str, float]:
        """A run's loss and accuracy on its inner validation part; the best weights are remembered where they are asked for."""
        run = self.runs[i]
        rows = run.task.split.val
        if rows is None or not len(rows):
            return {}
        self._load_head_weights(run, i)
        logits = torch.from_numpy(predict_rows(TrainedRun(run.task, run.model, [], 0, 0.0, (), run.extracted.features), rows)[0])
        labels = torch.from_numpy(run.task.dataset.labels[rows])
        loss = float(torch.nn.functional.cross_entropy(logits, labels))
        if self.recipe.checkpoint == "best_val" and loss < run.best.get("loss", math.inf):
            run.best.update(loss=loss, epoch=epoch + 1, state={k: v.clone() for k, v in run.model.head.state_dict().items()})
        return {"validation_loss": loss, "validation_accuracy": float((logits.argmax(1) == labels).double().mean())}

    def _clip_gradients(self) -> None:
        if self.recipe.grad_clip is None:
            return
        gradients = self.heads.gradients.values()
        norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()  # (R,)
        scale = (self.recipe.grad_clip / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))

    def _load_head_weights(self, run: _HeadRun, i: int) -> None:
        run.model.head.load_state_dict({name: stacked[i].clone() for name, stacked in self.heads.parameters.items()})

    def _make_outcome(self, run: _HeadRun, i: int, seconds: float) -> FitOutcome:
        for row in run.history:
            if not math.isfinite(row["train_loss"]):
                return DivergedError(
                    f"the training loss became {row['train_loss']} in epoch {row['epoch']} of {self.recipe.total_epochs}: "
                    "lower the learning rate or clip the gradient (grad_clip: 1)"
                )
        self._load_head_weights(run, i)
        if run.best:
            run.model.head.load_state_dict(run.best["state"])
        asked, chosen = run.extracted, run.best.get("epoch", 0)
        return TrainedRun(run.task, run.model, run.history, chosen, seconds, asked.identities, asked.features)


class _FeatureTable:
    """The features of the rows the runs train on, in memory once for each backbone and one view at a time, found by row."""

    def __init__(self, lanes: list[_ScheduledRuns], device: torch.device) -> None:
        self.device = device
        dataset = lanes[0].runs[0].task.dataset
        self.rows = np.unique(np.concatenate([run.task.split.train for lane in lanes for run in lane.runs]))
        self.row_positions = np.full(len(dataset), -1, dtype=np.int64)
        self.row_positions[self.rows] = np.arange(len(self.rows))
        self.labels = torch.from_numpy(dataset.labels).to(device)
        tables = {id(lane.runs[0].extracted): lane.runs[0].extracted.training_features for lane in lanes}
        begins = {name: number * len(self.rows) for number, name in enumerate(tables)}
        self.table_offsets = np.array([begins[id(lane.runs[0].extracted)] for lane in lanes])[
            :, None
        ]  # (L, 1) of each lane's table
        self.tables = list(tables.values())
        self.view_count = len(self.tables[0])
        self.current_view = -1
        self.branch_features: tuple[Tensor, ...] = ()

    def load_view(self, epoch: int) -> None:
        """Puts the view of an epoch in the place of the one before it."""
        if epoch % self.view_count == self.current_view:
            return
        self.current_view, self.branch_features = epoch % self.view_count, ()
        self.branch_features = tuple(
            torch.from_numpy(np.concatenate([np.asarray(f[self.rows], dtype=np.float32) for f in each])).to(self.device)
            for each in zip(*(views[self.current_view] for views in self.tables), strict=True)
        )

    def gather_rows(self, rows: NDArray[np.int64]) -> tuple[tuple[Tensor, ...], Tensor]:
        """(L, U) rows → (L, U, D_i) features of each branch, (L, U) labels."""
        shape = rows.shape
        places = torch.from_numpy((self.row_positions[rows] + self.table_offsets).ravel()).to(self.device)
        labels = self.labels[torch.from_numpy(rows).to(self.device)]
        return tuple(b.index_select(0, places).view(*shape, -1) for b in self.branch_features), labels
