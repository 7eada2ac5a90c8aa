"""Many heads of one frozen candidate trained together: all folds, repeats, seeds, rates and decays as one tensor program.

The heads' parameters are stacked (runs first) and stepped by one optimiser, which works element by element, so each run ends
where `fit` would have brought it, up to the order of floating-point sums. Random draws are those of `fit`: the same initial
head, the same order of rows, the same dropout.

Left out, and trained one by one by `fit`: averaged weights, gradient accumulation, bags, optimizers of the user's own.

Letters: R runs, L schedules of r runs (batch_schedule), D_i width of branch i, C classes.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from phoropter.core.errors import DivergedError
from phoropter.core.files import digest
from phoropter.core.seeds import seed_of
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.training.batches.loading import BatchSampler
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.fine_tuning.phase import Phase
from phoropter.training.fit import (
    TrainedRun,
    TrainingTask,
    fit_logistic_heads,
    make_batch_sampler,
    predict_rows,
)
from phoropter.training.frozen.batch_schedule import SharedSchedule, iterate_batch_windows
from phoropter.training.frozen.batched_heads import BATCHED_FUSIONS, BatchedDropout, BatchedHeads, can_share_window
from phoropter.training.frozen.frozen_features import FeatureTable, FrozenFeatures, extract_for_tasks
from phoropter.training.loop.history import HistoryRow, make_history_row, validation_metrics
from phoropter.training.loop.losses import compute_class_weights
from phoropter.training.loop.schedule import build_optimizer, set_learning_rate

MAX_BATCHED_HEADS = 64  # runs in one program: the features gathered for a step stay at a few hundred megabytes

FitOutcome = TrainedRun | DivergedError


def can_batch(candidate: Candidate) -> bool:
    """Whether runs of this candidate may be trained as one program; any loss may, built-in or of the user's own."""
    recipe = candidate.recipe
    new_heads = not (candidate.distillation or candidate.members or candidate.head.kind == "pretrained")
    one_step_a_batch = recipe.grad_accum_steps == 1 and not recipe.ema and recipe.precision in ("float32", "auto")
    one_model = recipe.imbalance.n_bags == 1
    written_out = candidate.fusion is None or candidate.fusion.mode in BATCHED_FUSIONS
    element_wise = isinstance(recipe.optimizer.kind, str)  # an Optimizer of the user's own might let stacked heads mix
    trained_heads = candidate.stores_features and bool(recipe.phases) and new_heads and one_model and written_out
    return trained_heads and one_step_a_batch and element_wise


def batch_group_key(candidate: Candidate) -> str:
    """Equal for candidates whose heads may share a program: those that differ in name, learning rates and weight decay only."""
    plain = candidate.plain()
    plain.pop("name")
    recipe = plain["recipe"]
    recipe.pop("preset")
    recipe["optimizer"].pop("weight_decay")
    recipe["phases"] = [[p["train"], p["epochs"]] for p in recipe["phases"]]
    return digest(plain)


def fit_batched(tasks: Sequence[TrainingTask]) -> list[FitOutcome]:
    """Trains the heads of at most MAX_BATCHED_HEADS tasks on one dataset; returns an outcome for each, in order.

    The candidates pass `can_batch` and have one `batch_group_key`. Each outcome equals what `fit` returns for the task, within
    the tolerance of float32 sums.
    """
    with torch.random.fork_rng(devices=[tasks[0].device] if tasks[0].device.type == "cuda" else []):
        return fit_from_features(tasks, extract_for_tasks(tasks))


def fit_from_features(tasks: Sequence[TrainingTask], extracted: Sequence[FrozenFeatures]) -> list[FitOutcome]:
    """As `fit_batched`, from features that have been extracted."""
    outcomes: dict[int, FitOutcome] = {}
    runs: list[_HeadRun] = []
    for frozen in extracted:
        seeds = [seed_of(tasks[i].split.seed, "weights") for i in frozen.task_indices]
        models = [classifiers.with_new_head(frozen.model, seed=seed) for seed in seeds]
        members = [tasks[i] for i in frozen.task_indices]
        if members[0].candidate.recipe.l2_penalties:
            fitted = fit_logistic_heads(members, models, frozen.features, frozen.identities)
            outcomes |= dict(zip(frozen.task_indices, fitted, strict=True))
            continue
        for i, model in zip(frozen.task_indices, models, strict=True):
            runs.append(_HeadRun(i, tasks[i], model, frozen))
    for trainer in _group_into_trainers(runs):
        outcomes |= trainer.train()
    return [outcomes[i] for i in range(len(tasks))]


@dataclass(frozen=True, eq=False)
class _HeadRun:
    """One head of a program.

    task_index: which of the tasks · extracted: its features · history: a row an epoch
    best: loss, epoch and weights of the best epoch so far, where the recipe selects it
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
    """Programs of runs: all schedules of a program have equally many steps an epoch and equally many runs."""
    by_steps: dict[int, list[_HeadRun]] = defaultdict(list)
    for run in runs:
        by_steps[len(run.batch_sampler.epoch_batches(0))].append(run)
    for some in by_steps.values():
        first = some[0]
        shared = can_share_window(first.model.head) and not first.task.candidate.recipe.imbalance.stratified_batches
        by_length: dict[int, list[_ScheduledRuns]] = defaultdict(list)
        for scheduled in _group_by_schedule(some, shared):
            by_length[len(scheduled.runs)].append(scheduled)
        for equal in by_length.values():
            yield _BatchedTrainer(equal)


@dataclass(frozen=True, eq=False)
class _ScheduledRuns:
    runs: list[_HeadRun]
    schedule: SharedSchedule


def _group_by_schedule(runs: list[_HeadRun], shared: bool) -> list[_ScheduledRuns]:
    """Runs by seed where they may share windows and these are not wasteful, else by split; sorted by rates and decay within."""
    groups: dict[tuple[int, str], list[_HeadRun]] = defaultdict(list)
    for run in runs:
        split = run.task.split
        groups[(split.seed, "" if shared else split.content_key(run.task.dataset))].append(run)
    scheduled: list[_ScheduledRuns] = []
    for group in groups.values():
        # Runs of one rate stand side by side, so that a slice of the stacked parameters is one group of the optimiser
        group = sorted(group, key=lambda run: (_hyperparameter_key(run), run.task_index))
        schedule = SharedSchedule([run.batch_sampler for run in group], shared)
        scheduled += _group_by_schedule(group, False) if shared and schedule.is_wasteful else [_ScheduledRuns(group, schedule)]
    return scheduled


def _hyperparameter_key(run: _HeadRun) -> str:
    recipe = run.task.candidate.recipe
    return digest([recipe.optimizer.plain(), [p.plain() for p in recipe.phases]])


class _BatchedTrainer:
    """R runs, one optimiser."""

    def __init__(self, scheduled: list[_ScheduledRuns]) -> None:
        self.schedules = [group.schedule for group in scheduled]
        self.runs = [run for group in scheduled for run in group.runs]
        self.task = self.runs[0].task
        self.recipe = self.task.candidate.recipe
        self.device = self.task.device
        weights = [
            compute_class_weights(self.recipe.loss, t.dataset.labels[t.split.train], t.dataset.classes)
            for t in (run.task for run in self.runs)
        ]
        stacked = None if weights[0] is None else torch.stack([w for w in weights if w is not None]).to(self.device)
        heads = [run.model.head for run in self.runs]
        fusion = self.task.candidate.fusion
        auxiliary, several = fusion.aux_loss_weight if fusion else 0.0, self.task.dataset.is_multi_label
        self.heads = BatchedHeads(heads, self.recipe.loss, stacked, auxiliary, several)
        self.dropout = BatchedDropout(heads[0], self.schedules, self.device)
        # All runs of a schedule have one seed, so they read the features of one set of backbones
        self.feature_table = FeatureTable([group.runs[0].extracted for group in scheduled], [run.task for run in self.runs])

    def train(self) -> dict[int, FitOutcome]:
        """Trains all runs; returns task index → outcome."""
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
        """One optimiser over all runs in phase `number`; and, for each run, its last parameter group, which holds its rate."""
        combined: torch.optim.Optimizer | None = None
        last_groups: list[dict[str, Any]] = []
        for _, equal in groupby(enumerate(self.runs), key=lambda numbered: _hyperparameter_key(numbered[1])):
            members = list(equal)
            part = slice(members[0][0], members[-1][0] + 1)
            instead = {}
            for name, parameter in self.heads.parameters.items():
                piece = parameter[part]  # a view: a step of the optimiser writes into the stacked tensor
                piece.grad = self.heads.gradients[name][part]
                instead[f"head.{name}"] = piece
            run = members[0][1]
            recipe = run.task.candidate.recipe
            own = build_optimizer(run.model, recipe, recipe.phases[number], instead)
            if combined is None:
                combined = own
            else:
                for group in own.param_groups:
                    combined.add_param_group(group)
            last_groups += [combined.param_groups[-1]] * len(members)
        assert combined is not None
        return combined, last_groups

    def _train_epoch(
        self, phase: Phase, optimizer: torch.optim.Optimizer, rates: list[dict[str, Any]], epoch: int, first: int
    ) -> None:
        began = time.monotonic()
        sums = torch.zeros(3, len(self.runs), dtype=torch.float32, device=self.device)
        self.feature_table.load_view(epoch)
        windows = list(iterate_batch_windows(self.schedules, epoch))
        for index, window in enumerate(windows):
            step = (epoch - first) * len(windows) + index
            set_learning_rate(optimizer, self.recipe.schedule, step, len(windows), phase.epochs)
            batch_sizes = torch.from_numpy(window.batch_sizes).to(self.device)
            mask = torch.from_numpy(window.mask).to(self.device)
            sizes = window.batch_sizes[:, 0].astype(int).tolist()
            scales = self.dropout.draw_scales(epoch, index, sizes, window.rows.shape[1])
            features, labels = self.feature_table.gather_rows(window.rows)
            loss, hits = self.heads.forward_backward(features, labels, mask, batch_sizes, scales)
            self._clip_gradients()
            optimizer.step()
            # Sums stay on the device: the host waits for it once an epoch
            sums[0].addcmul_(loss, batch_sizes.flatten())
            sums[1] += hits
            sums[2] += batch_sizes.flatten()
        seconds = (time.monotonic() - began) / len(self.runs)
        for i, (loss_sum, hit_count, n) in enumerate(sums.T.tolist()):
            row = make_history_row(
                epoch + 1,
                phase.train,
                learning_rate=rates[i]["lr"],
                loss=loss_sum / n,
                accuracy=hit_count / n,
                seconds=seconds,
                images=n,
            )
            self.runs[i].history.append(row | self._validate_run(i, epoch))

    def _validate_run(self, i: int, epoch: int) -> dict[str, float]:
        """A run's loss and accuracy on its inner validation part; keeps the best weights where the recipe selects them."""
        run = self.runs[i]
        rows = run.task.split.val
        if rows is None or not len(rows):
            return {}
        self._load_head_weights(run, i)
        logits, _ = predict_rows(TrainedRun(run.task, run.model, [], 0, 0.0, (), run.extracted.features), rows)
        metrics = validation_metrics(logits, run.task.dataset.labels[rows])
        loss = metrics["validation_loss"]
        if self.recipe.checkpoint == "best-val" and loss < run.best.get("loss", math.inf):
            run.best.update(loss=loss, epoch=epoch + 1, state={k: v.clone() for k, v in run.model.head.state_dict().items()})
        return metrics

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
        frozen, best_epoch = run.extracted, run.best.get("epoch", 0)
        learnt = frozen.training_features
        return TrainedRun(
            run.task, run.model, run.history, best_epoch, seconds, frozen.identities, frozen.features, learnt_features=learnt
        )
