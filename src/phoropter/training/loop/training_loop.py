"""The training loop: a generator that yields progress now and then and one history row per epoch; the caller decides what to do.

The learning rate is a function of the step. torch's generator is seeded by (seed, epoch, step) before every step, so that dropout
and stochastic depth repeat after a resume. Sums stay on the device: the host waits for it once per epoch, not once per step.

Several processes may train one network (parallel/training_group.py). Each goes through this loop with its share of every batch;
what the first alone does (validation, averages, checkpoints), the others wait for at their next batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

import torch

from phoropter.core.errors import DivergedError
from phoropter.training.batches.loading import Batch, BatchSampler, BatchSource, Prefetcher, Rows
from phoropter.training.batches.parts import ShareLoader
from phoropter.training.candidates.fine_tuning.phase import Phase
from phoropter.training.candidates.recipe import Recipe
from phoropter.training.loop.checkpoint import Checkpoints, TrainingState
from phoropter.training.loop.history import HistoryRow, make_history_row
from phoropter.training.loop.parallel.batch_gradients import (
    SUM_NAMES,
    BatchGradients,
    Objective,
    choose_sum_dtype,
    raise_on_unshared,
)
from phoropter.training.loop.parallel.training_group import TrainingGroup
from phoropter.training.loop.precision import resolve_autocast_dtype
from phoropter.training.loop.schedule import TrainedNetwork, build_optimizer, set_learning_rate
from phoropter.training.malloc import tune_malloc

PROGRESS_INTERVAL_S = 0.5


@dataclass(frozen=True)
class StepProgress:
    """Progress within an epoch: epoch and step count from 1."""

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_s: float


ValidationFunction = Callable[[], dict[str, float]]


@dataclass(frozen=True, eq=False)
class TrainingSetup:
    """What a run trains on: the source of its batches, their order, the objective, and the validation of an epoch.

    last_epoch: the epoch after which training ends, counted from 1; the schedule stays that of all epochs (None: the last)
    group: the processes that train together; None: this one alone
    """

    batch_source: BatchSource
    batch_sampler: BatchSampler
    objective: Objective
    validate: ValidationFunction | None = None
    last_epoch: int | None = None
    group: TrainingGroup | None = None


def train(
    model: TrainedNetwork, recipe: Recipe, setup: TrainingSetup, checkpoints: Checkpoints, device: torch.device
) -> Generator[StepProgress | HistoryRow, None, TrainingState]:
    """Trains `model` in place, from its last checkpoint on. Yields StepProgress and a row per epoch; returns the last state.

    Raises DivergedError when the loss of an epoch is not finite. With `ema` or `checkpoint: best-val` the model ends with the
    averaged or the best weights; of a group, that of the first process does, which alone has checkpoints.
    """
    tune_malloc()
    state = checkpoints.load()
    if setup.group is not None:
        state = _share_state(state, model, recipe, setup.group)
        setup = replace(setup, batch_source=ShareLoader(setup.batch_source, setup.batch_sampler.dataset, setup.group))
    if state.model is not None:
        model.load_state_dict(state.model)
    if state.average is not None:
        state.average = {k: v.to(device) for k, v in state.average.items()}
    first = 0
    for phase in recipe.phases:
        last = first + phase.epochs
        end = last if setup.last_epoch is None else min(last, setup.last_epoch)
        if state.epoch < end:
            yield from _PhaseTrainer(model, recipe, phase, setup, device).run(state, checkpoints, range(first, end))
        first = last
    if state.average is not None:
        model.load_state_dict(state.average)
    if recipe.checkpoint == "best-val" and state.best is not None:
        model.load_state_dict(state.best)
    return state


def _share_state(state: TrainingState, model: TrainedNetwork, recipe: Recipe, group: TrainingGroup) -> TrainingState:
    """The state of the first process, in all of them, with its weights; of averaged and best weights the others have no need."""
    raise_on_unshared(model, recipe)
    group.meet()
    if not group.is_leader:
        return TrainingState.from_bytes(group.receive_message())
    weights = state.model or model.state_dict()
    group.send_message(replace(state, model=weights, average=None, best=None).to_bytes())
    return state


class _PhaseTrainer:
    """One phase of a recipe: its optimizer, its schedule, its epochs."""

    def __init__(self, model: TrainedNetwork, recipe: Recipe, phase: Phase, setup: TrainingSetup, device: torch.device) -> None:
        self.model, self.recipe, self.phase, self.setup, self.device = model, recipe, phase, setup, device
        model.freeze(phase.train)
        self.optimizer = build_optimizer(model, recipe, phase)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.dtype = resolve_autocast_dtype(recipe, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self.prefetcher = Prefetcher(setup.batch_source, device)
        seed = setup.batch_sampler.split.seed
        self.gradients = BatchGradients(model, setup.objective, seed, device, self.dtype, self.scaler, setup.group)

    def run(
        self, state: TrainingState, checkpoints: Checkpoints, epochs: range
    ) -> Generator[StepProgress | HistoryRow, None, None]:
        if state.optimizer is not None:
            self.optimizer.load_state_dict(state.optimizer)
        if state.scaler:
            self.scaler.load_state_dict(state.scaler)
        self.gradients.most_rows = state.micro_batch
        while state.epoch in epochs:
            row = yield from self._train_epoch(state, checkpoints, epochs)
            state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
            if checkpoints.is_due():
                self._save_checkpoint(state, checkpoints, in_phase=state.epoch in epochs)
            yield row  # after it was saved, so that a resumed run does not report the epoch again
        state.optimizer = state.scaler = None

    def _train_epoch(
        self, state: TrainingState, checkpoints: Checkpoints, epochs: range
    ) -> Generator[StepProgress, None, HistoryRow]:
        self.model.train()
        batches = self.setup.batch_sampler.epoch_batches(state.epoch)
        accumulate = self.recipe.grad_accum_steps
        steps = math.ceil(len(batches) / accumulate)
        sums = torch.tensor([state.sums.get(k, 0.0) for k in SUM_NAMES], dtype=choose_sum_dtype(self.device), device=self.device)
        step_sums = torch.zeros_like(sums)
        began, n_seen, reported = time.monotonic(), 0, time.monotonic()
        for index, batch in self.prefetcher.iterate_epoch(batches, state.epoch, state.step):
            if index % accumulate == 0:
                set_learning_rate(
                    self.optimizer,
                    self.recipe.schedule,
                    (state.epoch - epochs.start) * steps + index // accumulate,
                    steps,
                    self.phase.epochs,
                )
            if self.setup.group is not None:
                self.setup.group.meet()
            first = index // accumulate * accumulate
            step_sums += self._add_gradients(batch, batches[first : first + accumulate], state, index)
            n_seen += len(batch.rows)
            if (index + 1) % accumulate and index + 1 < len(batches):
                continue
            sums += self._step_optimizer(state, step_sums)
            step_sums = torch.zeros_like(sums)
            state.step = index + 1
            if checkpoints.is_due() and state.step < len(batches):
                state.sums = dict(zip(SUM_NAMES, sums.tolist(), strict=True))
                self._save_checkpoint(state, checkpoints)
            if time.monotonic() - reported >= PROGRESS_INTERVAL_S:
                reported = time.monotonic()
                yield StepProgress(
                    state.epoch + 1, self.recipe.total_epochs, index + 1, len(batches), n_seen / (reported - began)
                )
        return self._record_epoch(state, dict(zip(SUM_NAMES, sums.tolist(), strict=True)), time.monotonic() - began, n_seen)

    def _add_gradients(self, batch: Batch, together: list[Rows], state: TrainingState, index: int) -> torch.Tensor:
        """Adds those of batch `index`; returns the (3,) SUM_NAMES of its rows. together: the batches of this optimizer step

        Where memory is short, the step begins again with smaller parts.
        """
        first, epoch, of = index - index % self.recipe.grad_accum_steps, state.epoch, len(together)
        sums = self.gradients.add_batch(batch, epoch, index, of)
        while sums is None:
            self.optimizer.zero_grad(set_to_none=True)
            self.gradients.halve_parts(self.recipe.batch_size)
            state.micro_batch = self.gradients.most_rows
            for number in range(first, index + 1):
                again = batch if number == index else self.setup.batch_source.batch(together[number - first], epoch, number)
                if (sums := self.gradients.add_batch(again, epoch, number, of)) is None:
                    break
        return sums

    def _step_optimizer(self, state: TrainingState, step_sums: torch.Tensor) -> torch.Tensor:
        """Returns the sums of the step, those of all processes."""
        group = self.setup.group
        if group is not None:
            group.sum_tensors([*(p.grad for p in self.parameters if p.grad is not None), step_sums])
        if self.recipe.grad_clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.recipe.ema is not None and (group is None or group.is_leader):
            state.average = update_ema_weights(state.average, self.model, self.recipe.ema)
        return step_sums

    def _record_epoch(self, state: TrainingState, sums: dict[str, float], seconds: float, n_seen: int) -> HistoryRow:
        count = sums["count"]
        loss = sums["loss"] / count
        if not math.isfinite(loss):
            raise DivergedError(
                f"the training loss became {loss} in epoch {state.epoch + 1} of {self.recipe.total_epochs}: "
                "lower the learning rate, clip the gradient (grad_clip: 1), or use precision float32"
            )
        rate, accuracy = self.optimizer.param_groups[-1]["lr"], sums["hits"] / count
        row = make_history_row(
            state.epoch + 1,
            self.phase.train,
            learning_rate=rate,
            loss=loss,
            accuracy=accuracy,
            seconds=seconds,
            images=n_seen,
        )
        if self.setup.validate is not None:
            row |= self._validate_model(state)
        state.history.append(row)
        return row

    def _validate_model(self, state: TrainingState) -> dict[str, float]:
        assert self.setup.validate is not None
        trained = None if state.average is None else {k: v.clone() for k, v in self.model.state_dict().items()}
        if state.average is not None:  # what will predict is validated, and training goes on from its own weights
            self.model.load_state_dict(state.average)
        metrics = self.setup.validate()
        if self.recipe.checkpoint == "best-val" and metrics["validation_loss"] < state.best_loss:
            state.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            state.best_loss, state.best_epoch = metrics["validation_loss"], state.epoch + 1
        if trained is not None:
            self.model.load_state_dict(trained)
        return metrics

    def _save_checkpoint(self, state: TrainingState, checkpoints: Checkpoints, in_phase: bool = True) -> None:
        """in_phase: the phase goes on; the next one begins with an optimizer of its own, so none is saved at its border."""
        state.model = self.model.state_dict()
        state.optimizer = self.optimizer.state_dict() if in_phase else None
        state.scaler = self.scaler.state_dict() if in_phase else None
        checkpoints.save(state)


def update_ema_weights(average: dict[str, Any] | None, model: TrainedNetwork, decay: float) -> dict[str, Any]:
    """decay · average + (1 − decay) · weights, for floating tensors; counters are copied."""
    weights = {k: v.detach() for k, v in model.state_dict().items()}
    if average is None:
        return {k: v.clone() for k, v in weights.items()}
    with torch.no_grad():
        for name, value in weights.items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)
            else:
                average[name].copy_(value)
    return average
