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
from phoropter.training.batches import Order
from phoropter.training.cache import Features, frozen_features
from phoropter.training.candidate import Candidate
from phoropter.training.fit import Fitted, Task, answers, build, order_of, shown_features, solved
from phoropter.training.lanes import Lane, windows
from phoropter.training.loop import Row, optimizer_of, set_rate
from phoropter.training.losses import class_weights
from phoropter.training.recipe import Phase
from phoropter.training.stacked import Drops, Heads, narrow

MOST = 64  # runs in one program: what is gathered for a step stays a few hundred megabytes

Outcome = Fitted | DivergedError


def fits_together(candidate: Candidate) -> bool:
    """Whether runs of this candidate may be trained as one program."""
    recipe = candidate.recipe
    simple = not (recipe.ema or candidate.teaching or candidate.members or candidate.head.kind == "own")
    alone = recipe.accumulate == 1 and recipe.imbalance.bags == 1 and recipe.precision in ("float32", "auto")
    return candidate.stores_features and bool(recipe.phases) and simple and alone


def kin(candidate: Candidate) -> str:
    """Equal for candidates whose heads may share a program: they differ in rates, decay and name alone."""
    made = candidate.plain()
    made.pop("name")
    recipe = made["recipe"]
    recipe.pop("preset")
    recipe["optimizer"].pop("weight_decay")
    recipe["phases"] = [[p["train"], p["epochs"]] for p in recipe["phases"]]
    return digest(made)


def fit_together(tasks: Sequence[Task]) -> list[Outcome]:
    """Tasks of one candidate that `fits_together`, or of its `kin`, on one dataset, at most MOST → an outcome each, in order.

    Each equals what `fit` returns for the task alone, within the tolerance of float32 sums.
    """
    with torch.random.fork_rng(devices=[tasks[0].device] if tasks[0].device.type == "cuda" else []):
        return fit_asked(tasks, ask(tasks))


@dataclass(frozen=True, eq=False)
class Asked:
    """Frozen backbones that have been asked: numbers of the tasks that read them, the network, its features, its identities.

    shown: what is learned from, epoch by epoch and over again: the features, or those of the recipe's fixed views
    """

    members: list[int]
    first: Classifier
    features: Features
    identities: tuple[str, ...]
    shown: tuple[Features, ...]


def ask(tasks: Sequence[Task]) -> list[Asked]:
    """The backbones of some tasks of one candidate, built, and their features; random ones and fixed views are functions of the
    seed."""
    by_seed: dict[int, list[int]] = defaultdict(list)
    for i, task in enumerate(tasks):
        by_seed[task.split.seed if _random(task.candidate) or task.candidate.recipe.kept_views else 0].append(i)
    found: list[Asked] = []
    for members in by_seed.values():
        task = tasks[members[0]]
        if found and not _random(task.candidate):
            first, identities, features = found[0].first, found[0].identities, found[0].features
        else:
            first = build(task)
            first.freeze("head")
            identities = tuple(b.identity for b in first.branches)
            dtype = task.candidate.recipe.features
            features = frozen_features(first, task.pixels, task.cache, task.device, task.progress, identities, dtype)
        found.append(Asked(members, first, features, identities, shown_features(task, first, features, identities)))
    return found


def fit_asked(tasks: Sequence[Task], found: Sequence[Asked]) -> list[Outcome]:
    """As `fit_together`, from what has been asked."""
    outcomes: dict[int, Outcome] = {}
    runs: list[_Run] = []
    for asked in found:
        seeds = [seed_of(tasks[i].split.seed, "weights") for i in asked.members]
        models = [classifiers.sibling(asked.first, seed=seed) for seed in seeds]
        mine = [tasks[i] for i in asked.members]
        if mine[0].candidate.recipe.penalties:
            outcomes |= dict(zip(asked.members, solved(mine, models, asked.features, asked.identities), strict=True))
            continue
        for i, model in zip(asked.members, models, strict=True):
            runs.append(_Run(i, tasks[i], model, asked))
    for program in _programs(runs):
        outcomes |= program.train()
    return [outcomes[i] for i in range(len(tasks))]


def _random(candidate: Candidate) -> bool:
    return any(b.weights == "random" for b in candidate.backbones)


@dataclass(frozen=True, eq=False)
class _Run:
    """One member of a program.

    number: its place among the tasks · asked: its backbones · history: a row an epoch · best: weights, where chosen
    """

    number: int
    task: Task
    model: Classifier
    asked: Asked
    history: list[Row] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> Order:
        return order_of(self.task)


def _programs(runs: list[_Run]) -> Iterator[_Program]:
    """Runs whose epochs have equally many batches share a schedule; lanes of equally many runs share a program."""
    by_steps: dict[int, list[_Run]] = defaultdict(list)
    for run in runs:
        by_steps[len(run.order.epoch(0))].append(run)
    for some in by_steps.values():
        lanes = _lanes(some, narrow(some[0].model.head) and not some[0].task.candidate.recipe.imbalance.keep_ratio)
        by_length: dict[int, list[_Lane]] = defaultdict(list)
        for lane in lanes:
            by_length[len(lane.runs)].append(lane)
        for equal in by_length.values():
            yield _Program(equal)


@dataclass(frozen=True, eq=False)
class _Lane:
    runs: list[_Run]
    reads: Lane


def _lanes(runs: list[_Run], shared: bool) -> list[_Lane]:
    """Runs by seed where they may share windows and these are not wasteful, else by split; by rates and decay within."""
    found: dict[tuple[Any, ...], list[_Run]] = defaultdict(list)
    for run in runs:
        found[(run.task.split.seed,) if shared else (run.task.split.seed, run.task.split.name)].append(run)
    lanes: list[_Lane] = []
    for mine in found.values():
        mine = sorted(mine, key=lambda run: (_tuned(run), run.number))
        reads = Lane([run.order for run in mine], shared)
        lanes += _lanes(mine, False) if shared and reads.wasteful else [_Lane(mine, reads)]
    return lanes


def _tuned(run: _Run) -> str:
    recipe = run.task.candidate.recipe
    return digest([recipe.optimizer.plain(), [p.plain() for p in recipe.phases]])


class _Program:
    """R runs, one optimiser."""

    def __init__(self, lanes: list[_Lane]) -> None:
        self.lanes = [lane.reads for lane in lanes]
        self.runs = [run for lane in lanes for run in lane.runs]
        self.task = self.runs[0].task
        self.recipe = self.task.candidate.recipe
        self.device = self.task.device
        weights = [class_weights(self.recipe.loss, t.dataset.labels[t.split.train], t.dataset.classes) for t in self._tasks]
        stacked = None if weights[0] is None else torch.stack([w for w in weights if w is not None]).to(self.device)
        heads = [run.model.head for run in self.runs]
        fusion = self.task.candidate.fusion
        self.heads = Heads(heads, self.recipe.loss, stacked, fusion.auxiliary if fusion else 0.0)
        self.drops = Drops(heads[0], self.lanes, self.device)
        self.held = _Held(lanes, self.device)

    @property
    def _tasks(self) -> list[Task]:
        return [run.task for run in self.runs]

    def train(self) -> dict[int, Outcome]:
        """Trains all runs; number of the task → its outcome."""
        began = time.monotonic()
        first = 0
        for number, phase in enumerate(self.recipe.phases):
            optimizer, rates = self._optimizer(number)
            for epoch in range(first, first + phase.epochs):
                self._epoch(phase, optimizer, rates, epoch, first)
            first += phase.epochs
        seconds = (time.monotonic() - began) / len(self.runs)
        return {run.number: self._outcome(run, i, seconds) for i, run in enumerate(self.runs)}

    def _optimizer(self, number: int) -> tuple[torch.optim.Optimizer, list[dict[str, Any]]]:
        """One optimiser over all runs, with groups for each rate and decay; and of each run the last of its groups."""
        whole: torch.optim.Optimizer | None = None
        last: list[dict[str, Any]] = []
        for _, equal in groupby(enumerate(self.runs), key=lambda numbered: _tuned(numbered[1])):
            some = list(equal)
            part = slice(some[0][0], some[-1][0] + 1)
            instead = {}
            for name, parameter in self.heads.parameters.items():
                piece = parameter[part]
                piece.grad = self.heads.gradients[name][part]
                instead[f"head.{name}"] = piece
            run = some[0][1]
            recipe = run.task.candidate.recipe
            made = optimizer_of(run.model, recipe, recipe.phases[number], instead)
            if whole is None:
                whole = made
            else:
                for group in made.param_groups:
                    whole.add_param_group(group)
            last += [whole.param_groups[-1]] * len(some)
        assert whole is not None
        return whole, last

    def _epoch(self, phase: Phase, optimizer: torch.optim.Optimizer, rates: list[dict[str, Any]], epoch: int, first: int) -> None:
        began = time.monotonic()
        sums = torch.zeros(3, len(self.runs), dtype=torch.float32, device=self.device)
        self.held.show(epoch)
        coming = list(windows(self.lanes, epoch))
        for index, window in enumerate(coming):
            set_rate(optimizer, self.recipe.schedule, (epoch - first) * len(coming) + index, len(coming), phase.epochs)
            counts = torch.from_numpy(window.counts).to(self.device)
            member = torch.from_numpy(window.member).to(self.device)
            scales = self.drops.at(epoch, index, window.counts[:, 0].astype(int).tolist(), window.rows.shape[1])
            found = self.heads.step(*self.held.gather(window.rows), member, counts, scales)
            self._clip()
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
                    **self._validated(i, epoch),
                }
            )

    def _validated(self, i: int, epoch: int) -> dict[str, float]:
        """A run's loss and accuracy on its inner validation part; the best weights are remembered where they are asked for."""
        run = self.runs[i]
        rows = run.task.split.val
        if rows is None or not len(rows):
            return {}
        self._load(run, i)
        logits = torch.from_numpy(answers(Fitted(run.task, run.model, [], 0, 0.0, (), run.asked.features), rows)[0])
        labels = torch.from_numpy(run.task.dataset.labels[rows])
        loss = float(torch.nn.functional.cross_entropy(logits, labels))
        if self.recipe.select == "validation" and loss < run.best.get("loss", math.inf):
            run.best.update(loss=loss, epoch=epoch + 1, state={k: v.clone() for k, v in run.model.head.state_dict().items()})
        return {"validation_loss": loss, "validation_accuracy": float((logits.argmax(1) == labels).double().mean())}

    def _clip(self) -> None:
        if self.recipe.clip is None:
            return
        gradients = self.heads.gradients.values()
        norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()  # (R,)
        scale = (self.recipe.clip / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))

    def _load(self, run: _Run, i: int) -> None:
        run.model.head.load_state_dict({name: stacked[i].clone() for name, stacked in self.heads.parameters.items()})

    def _outcome(self, run: _Run, i: int, seconds: float) -> Outcome:
        for row in run.history:
            if not math.isfinite(row["train_loss"]):
                return DivergedError(
                    f"the training loss became {row['train_loss']} in epoch {row['epoch']} of {self.recipe.epochs}: "
                    "lower the learning rate or clip the gradient (clip: 1)"
                )
        self._load(run, i)
        if run.best:
            run.model.head.load_state_dict(run.best["state"])
        asked, chosen = run.asked, run.best.get("epoch", 0)
        return Fitted(run.task, run.model, run.history, chosen, seconds, asked.identities, asked.features)


class _Held:
    """The features of the rows the runs train on, in memory once for each backbone and one view at a time, found by row."""

    def __init__(self, lanes: list[_Lane], device: torch.device) -> None:
        self.device = device
        dataset = lanes[0].runs[0].task.dataset
        self.rows = np.unique(np.concatenate([run.task.split.train for lane in lanes for run in lane.runs]))
        self.place = np.full(len(dataset), -1, dtype=np.int64)
        self.place[self.rows] = np.arange(len(self.rows))
        self.labels = torch.from_numpy(dataset.labels).to(device)
        tables = {id(lane.runs[0].asked): lane.runs[0].asked.shown for lane in lanes}
        begins = {name: number * len(self.rows) for number, name in enumerate(tables)}
        self.begin = np.array([begins[id(lane.runs[0].asked)] for lane in lanes])[:, None]  # (L, 1) of each lane's table
        self.tables = list(tables.values())
        self.views = len(self.tables[0])
        self.view = -1
        self.branches: tuple[Tensor, ...] = ()

    def show(self, epoch: int) -> None:
        """Puts the view of an epoch in the place of the one before it."""
        if epoch % self.views == self.view:
            return
        self.view, self.branches = epoch % self.views, ()
        self.branches = tuple(
            torch.from_numpy(np.concatenate([np.asarray(f[self.rows], dtype=np.float32) for f in each])).to(self.device)
            for each in zip(*(views[self.view] for views in self.tables), strict=True)
        )

    def gather(self, rows: NDArray[np.int64]) -> tuple[tuple[Tensor, ...], Tensor]:
        """(L, U) rows → (L, U, D_i) features of each branch, (L, U) labels."""
        shape = rows.shape
        places = torch.from_numpy((self.place[rows] + self.begin).ravel()).to(self.device)
        labels = self.labels[torch.from_numpy(rows).to(self.device)]
        return tuple(b.index_select(0, places).view(*shape, -1) for b in self.branches), labels
