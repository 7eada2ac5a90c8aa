"""Many heads of one frozen candidate at once: all its folds, repeats and seeds as one batched tensor program.

The heads' parameters are stacked (R runs first) and stepped by one optimiser, which works element by element, so each run ends
where it would have ended alone, up to the order of floating-point sums. Draws are those of a run alone: the same initial head,
the same order of rows. Left to `fit`, one by one: heads with dropout, averaged weights, accumulation, chosen epochs, bags.

Letters: R runs, B rows of a batch, D_i width of branch i, C classes.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from phoropter.core.errors import DivergedError
from phoropter.core.seeds import seed_of
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.training.batches import Order
from phoropter.training.cache import frozen_features
from phoropter.training.candidate import Candidate
from phoropter.training.fit import Fitted, Task, build
from phoropter.training.loop import Row, optimizer_of, set_rate
from phoropter.training.losses import Criterion, class_weights
from phoropter.training.recipe import Phase

MOST = 64  # runs in one program: what is gathered for a step stays a few hundred megabytes

Outcome = Fitted | DivergedError


def fits_together(candidate: Candidate) -> bool:
    """Whether runs of this candidate may be trained as one program."""
    recipe = candidate.recipe
    dropout = candidate.head.dropout or (candidate.fusion.dropout if candidate.fusion else 0)
    plain = not (
        recipe.augment or recipe.ema or dropout or candidate.teaching or candidate.members or candidate.head.kind == "own"
    )
    alone = (
        recipe.views == "single"
        and recipe.select == "last"
        and recipe.accumulate == 1
        and recipe.imbalance.bags == 1
        and recipe.precision in ("float32", "auto")
    )
    return candidate.frozen and bool(recipe.phases) and plain and alone and not (candidate.fusion and candidate.fusion.auxiliary)


def fit_together(tasks: Sequence[Task]) -> list[Outcome]:
    """Tasks of one candidate that `fits_together`, on one dataset, at most MOST → an outcome each, in their order.

    Each equals what `fit` returns for the task alone, within the tolerance of float32 sums.
    """
    outcomes: dict[int, Outcome] = {}
    by_seed: dict[int, list[int]] = defaultdict(list)
    for i, task in enumerate(tasks):  # random backbones are a function of the seed
        by_seed[task.split.seed if _random(task.candidate) else 0].append(i)
    with torch.random.fork_rng(devices=[]):
        for members in by_seed.values():
            first = build(tasks[members[0]])
            task = tasks[members[0]]
            features = frozen_features(first, task.pixels, task.cache, task.device, task.progress)
            models = [classifiers.sibling(first, seed=seed_of(tasks[i].split.seed, "weights")) for i in members]
            for model in models:
                model.freeze("head")
            group = [_Run(i, tasks[i], m, _order(tasks[i])) for i, m in zip(members, models, strict=True)]
            for program in _programs(group):
                outcomes |= program.train(features)
    return [outcomes[i] for i in range(len(tasks))]


def _random(candidate: Candidate) -> bool:
    return any(b.weights == "random" for b in candidate.backbones)


def _order(task: Task) -> Order:
    recipe = task.candidate.recipe
    return Order(task.dataset, task.split.train, recipe.batch, task.split.seed, recipe.imbalance, task.split.name)


@dataclass(frozen=True, eq=False)
class _Run:
    """One member of a program. number: its place among the tasks."""

    number: int
    task: Task
    model: Classifier
    order: Order


def _programs(group: list[_Run]) -> Iterator[_Program]:
    """Runs whose epochs have equally many batches share a schedule, and so a program."""
    by_steps: dict[int, list[_Run]] = defaultdict(list)
    for run in group:
        by_steps[len(run.order.epoch(0))].append(run)
    for steps, runs in by_steps.items():
        for start in range(0, len(runs), MOST):
            yield _Program(runs[start : start + MOST], steps)


class _Program:
    """R runs, one optimiser."""

    def __init__(self, runs: list[_Run], steps: int) -> None:
        self.runs, self.steps = runs, steps
        self.task = runs[0].task
        self.recipe = self.task.candidate.recipe
        self.device = self.task.device
        self.template = runs[0].model.head
        heads = [run.model.head for run in runs]
        stacked, self.buffers = stack_module_state(heads)  # type: ignore[arg-type]
        self.parameters = {k: v.detach().clone().requires_grad_(True) for k, v in stacked.items()}
        weights = [class_weights(self.recipe.loss, t.dataset.labels[t.split.train], t.dataset.classes) for t in self._tasks]
        self.weights = None if weights[0] is None else torch.stack([w for w in weights if w is not None]).to(self.device)
        self.labels = torch.from_numpy(self.task.dataset.labels).to(self.device)

    @property
    def _tasks(self) -> list[Task]:
        return [run.task for run in self.runs]

    def train(self, features: tuple[NDArray[np.float32], ...]) -> dict[int, Outcome]:
        """Trains all runs; number of the task → its outcome."""
        began = time.monotonic()
        identities = tuple(b.identity for b in self.runs[0].model.branches)
        held = _Held(features, np.unique(np.concatenate([t.split.train for t in self._tasks])), self.device)
        histories: list[list[Row]] = [[] for _ in self.runs]
        first = 0
        for phase in self.recipe.phases:
            optimizer = optimizer_of(self.runs[0].model, self.recipe, phase, {f"head.{k}": v for k, v in self.parameters.items()})
            for epoch in range(first, first + phase.epochs):
                for history, row in zip(histories, self._epoch(phase, optimizer, held, epoch, first), strict=True):
                    history.append(row)
            first += phase.epochs
        seconds = (time.monotonic() - began) / len(self.runs)
        return {run.number: self._outcome(i, histories[i], seconds, identities, features) for i, run in enumerate(self.runs)}

    def _epoch(self, phase: Phase, optimizer: torch.optim.Optimizer, held: _Held, epoch: int, first: int) -> list[Row]:
        began = time.monotonic()
        batches = [run.order.epoch(epoch) for run in self.runs]
        sums = torch.zeros(2, len(self.runs), dtype=torch.float32, device=self.device)
        for index in range(self.steps):
            set_rate(optimizer, self.recipe.schedule, (epoch - first) * self.steps + index, self.steps, phase.epochs)
            sums += self._step(optimizer, held, [b[index] for b in batches])
        seconds = (time.monotonic() - began) / len(self.runs)
        shown = [sum(map(len, b)) for b in batches]
        rate_now = optimizer.param_groups[-1]["lr"]
        return [
            {
                "epoch": epoch + 1,
                "phase": phase.train,
                "learning_rate": rate_now,
                "train_loss": loss / n,
                "train_accuracy": hits / n,
                "seconds": round(seconds, 3),
                "images_per_s": round(n / seconds, 1) if seconds else 0.0,
            }
            for loss, hits, n in zip(*sums.tolist(), shown, strict=True)
        ]

    def _step(self, optimizer: torch.optim.Optimizer, held: _Held, rows: list[NDArray[np.int64]]) -> Tensor:
        """One step of all runs; (2, R): summed loss, hits. Batches of another length (the last of an epoch) go apart."""
        by_size: dict[int, list[int]] = defaultdict(list)
        for i, some in enumerate(rows):
            by_size[len(some)].append(i)
        sums = torch.zeros(2, len(rows), device=self.device)
        total: Tensor = torch.zeros((), device=self.device)
        for size, members in by_size.items():
            chosen = np.stack([rows[i] for i in members])  # (r, B)
            labels = self.labels[torch.from_numpy(chosen).to(self.device)]
            losses, logits = self._losses(held.gather(chosen), labels, members if len(by_size) > 1 else None)
            total = total + losses.sum()
            with torch.no_grad():
                sums[0, members] = losses.detach() * size
                sums[1, members] = (logits.argmax(-1) == labels).sum(1).float()
        total.backward()
        self._clip()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return sums

    def _losses(self, features: tuple[Tensor, ...], labels: Tensor, members: list[int] | None) -> tuple[Tensor, Tensor]:
        """(r, B, D_i) features, (r, B) labels → (r,) losses, (r, B, C) logits."""
        pick = (lambda v: v) if members is None else (lambda v: v[members])
        parameters = {k: pick(v) for k, v in self.parameters.items()}
        buffers = {k: pick(v) for k, v in self.buffers.items()}

        def answer(p: dict[str, Tensor], b: dict[str, Tensor], f: tuple[Tensor, ...]) -> Tensor:
            logits: Tensor = functional_call(self.template, (p, b), (f,)).logits
            return logits

        logits = vmap(answer)(parameters, buffers, features)
        if self.weights is None:
            return vmap(Criterion(self.recipe.loss))(logits, labels), logits
        weighted = vmap(lambda x, y, w: Criterion(self.recipe.loss, w)(x, y))
        return weighted(logits, labels, pick(self.weights)), logits

    def _clip(self) -> None:
        if self.recipe.clip is None:
            return
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        norms = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()  # (R,)
        scale = (self.recipe.clip / (norms + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(scale.view(-1, *[1] * (grad.ndim - 1)))

    def _outcome(
        self, i: int, history: list[Row], seconds: float, identities: tuple[str, ...], features: tuple[NDArray[np.float32], ...]
    ) -> Outcome:
        run = self.runs[i]
        for row in history:
            if not math.isfinite(row["train_loss"]):
                return DivergedError(
                    f"the training loss became {row['train_loss']} in epoch {row['epoch']} of {self.recipe.epochs}: "
                    "lower the learning rate or clip the gradient (clip: 1)"
                )
        state = {k: v[i].detach().clone() for k, v in {**self.parameters, **self.buffers}.items()}
        run.model.head.load_state_dict(state)
        return Fitted(run.task, run.model, history, 0, seconds, identities, features)


class _Held:
    """The features of the rows the runs train on, in memory, found by row."""

    def __init__(self, features: tuple[NDArray[np.float32], ...], rows: NDArray[np.int64], device: torch.device) -> None:
        self.place = torch.full((int(rows.max()) + 1,), -1, dtype=torch.int64)
        self.place[torch.from_numpy(rows)] = torch.arange(len(rows))
        self.branches = tuple(torch.from_numpy(np.ascontiguousarray(f[rows])).to(device) for f in features)
        self.device = device

    def gather(self, rows: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """(r, B) rows → (r, B, D_i) features of each branch."""
        places = self.place[torch.from_numpy(rows)].to(self.device)
        return tuple(b[places] for b in self.branches)
