"""A linear head is a convex problem: solving it beats training it. Multinomial logistic regression with an L2 penalty, for many
folds at once, and the penalty chosen on inner folds of the training rows.

For each run, over its n training rows with weights m_i (1, or the class's weight), features standardised by these rows:

    minimise over W, b:   Σ m_i CE(W x̃_i + b, y_i) / Σ m_i  +  λ/2 · ‖W‖²

which is scikit-learn's LogisticRegression with C = 1 / (λ n). Solved by L-BFGS (Nocedal & Wright 2006, algorithm 7.4) in the
metric of the classes' own blocks of the Hessian, bias included: first of those where all classes are as likely, which are one;
for many runs also of those where they are after some steps; so that a dozen steps or two do. The features of all rows are read
by all runs in one matrix product; a run counts its own training rows and nothing else, and of the others only the metric and the
place of the origin know. The line search costs no product: logits are linear in the step.

Left out: L1 penalties; more classes × rows × runs than memory holds are solved some runs at a time.

Letters: R runs, N rows, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phoropter.core.seeds import named_generator, random_permutation
from phoropter.data.dataset import Dataset
from phoropter.data.splits.group_kfold import balanced_group_partition
from phoropter.data.splits.protocol import Split

LBFGS_MEMORY = 10  # steps L-BFGS remembers
MAX_ITERATIONS = 200  # and the most it takes
PRECONDITIONER_REFRESH_STEP = 4  # the step before which the metric is taken anew
MAX_LOGITS = 2**25  # logits held at once: R · C · N

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """A linear head for features as they are stored: logits = weight @ x + bias.

    weight: (C, D) float32 · bias: (C,) · loss: mean over the training rows, without the penalty · accuracy: on them
    note: the penalty, how it was chosen, and how far the slope is from 0
    """

    weight: Tensor
    bias: Tensor
    loss: float
    accuracy: float
    info: dict[str, Any]


@dataclass(frozen=True, eq=False)
class LogisticProblem:
    """What one run is fitted to. rows: to train on · weights: (C,) of the classes, or None."""

    dataset: Dataset
    split: Split
    weights: Tensor | None = None


def fit_logistic(
    features: NDArray[np.float32],
    problems: Sequence[LogisticProblem],
    penalties: Sequence[float],
    folds: int,
    device: torch.device,
    slope: float = 1e-4,
) -> list[LogisticFit]:
    """(N, D) stored features → the head of each problem. Of several penalties the one with the least loss on `folds` inner folds
    of the training rows is taken, the larger of two equal ones; then all training rows are fitted.

    slope: largest entry of the gradient at which a problem counts as solved (scikit-learn's `tol`)
    """
    data = _StandardizedFeatures(features, problems, device)
    falling = sorted({float(p) for p in penalties}, reverse=True)
    scores: list[dict[float, float]] = [{} for _ in problems]
    if len(falling) > 1:
        inner = [(i, *parts) for i, p in enumerate(problems) for parts in split_inner_folds(p, folds)]
        for some in _split_by_memory(inner, data.logits_per_run):
            _score_penalties(data, some, falling, scores, slope)
    chosen = [min(falling, key=lambda p: (s[p], -p)) if s else falling[0] for s in scores]
    found: dict[int, LogisticFit] = {}
    for penalty in sorted(set(chosen)):
        mine = [(i, problems[i].split.train, None) for i, p in enumerate(chosen) if p == penalty]
        for portion in _split_by_memory(mine, data.logits_per_run):
            fit = _BatchedSolver(data, [(i, rows) for i, rows, _ in portion], slope)
            fit.minimize_objective(penalty)
            for (i, _, _), (weight, bias, loss, hits, left) in zip(portion, fit.collect_results(), strict=True):
                note: dict[str, Any] = {
                    "penalty": penalty,
                    "slope": left,
                    "steps": fit.iterations,
                    "inner_folds": folds if scores[i] else None,
                }
                note["inner_loss"] = {f"{p:g}": round(v, 6) for p, v in scores[i].items()}
                found[i] = LogisticFit(weight, bias, loss, hits, note)
    return [found[i] for i in range(len(problems))]


def split_inner_folds(problem: LogisticProblem, folds: int) -> Iterator[tuple[Rows, Rows]]:
    """The training rows of a split as (to fit, to judge), `folds` times, classes in proportion; whole groups where the split
    keeps them together, too."""
    dataset, split = problem.dataset, problem.split
    rows, groups = split.train, dataset.groups
    if groups is not None and not len(np.intersect1d(groups[split.train], groups[split.test])):
        _, index = np.unique(groups[rows], return_inverse=True)
        counts = np.zeros((index.max() + 1, len(dataset.classes)), dtype=np.int64)
        np.add.at(counts, (index, dataset.labels[rows]), 1)
        folds = min(folds, len(counts))
        part = balanced_group_partition(
            counts, np.full(folds, 1 / folds), named_generator(split.seed, "inner folds", split.name)
        )[index]
    else:
        shuffled = rows[random_permutation(dataset.hashed_ids[rows], split.seed, "inner folds")]
        shuffled = shuffled[np.argsort(dataset.labels[shuffled], kind="stable")]
        rows, part = shuffled, np.arange(len(shuffled)) % folds
    for fold in range(folds):
        if (part == fold).any() and (part != fold).any():
            yield np.sort(rows[part != fold]), np.sort(rows[part == fold])


def _split_by_memory(runs: list[Any], cells: int) -> Iterator[list[Any]]:
    """As many runs at once as memory is meant for."""
    size = max(1, MAX_LOGITS // cells)
    for start in range(0, len(runs), size):
        yield runs[start : start + size]


def _score_penalties(
    data: _StandardizedFeatures, some: list[Any], falling: Sequence[float], scores: list[dict[float, float]], slope: float
) -> None:
    """Adds to each problem's scores the loss on what its inner folds held out, from the largest penalty down."""
    fit = _BatchedSolver(data, [(i, rows) for i, rows, _ in some], slope)
    judged = data.build_row_weights([(i, rows) for i, _, rows in some], normed=False)
    shares = judged.sum(1) / torch.tensor([len(data.problems[i].split.train) for i, _, _ in some], device=judged.device)
    for penalty in falling:
        fit.minimize_objective(penalty)
        losses = (fit.row_losses() * judged).sum(1) / judged.sum(1) * shares
        for (i, _, _), loss in zip(some, losses.tolist(), strict=True):
            scores[i][penalty] = scores[i].get(penalty, 0.0) + loss


class _StandardizedFeatures:
    """Features of all rows some problem trains on, about a common origin at a common scale; x: (N, D)."""

    def __init__(self, features: NDArray[np.float32], problems: Sequence[LogisticProblem], device: torch.device) -> None:
        self.problems = problems
        dataset = problems[0].dataset
        self.rows = np.unique(np.concatenate([p.split.train for p in problems]))
        self.row_positions = np.full(len(dataset), -1, dtype=np.int64)
        self.row_positions[self.rows] = np.arange(len(self.rows))
        self.labels = torch.from_numpy(dataset.labels[self.rows]).to(device)
        self.classes = len(dataset.classes)
        x = torch.from_numpy(np.asarray(features[self.rows], dtype=np.float32)).to(device)
        self.mean = x.mean(0, dtype=torch.float64).float()
        x = x - self.mean
        self.scale = _replace_zeros(x.square().mean(0, dtype=torch.float64).sqrt().float())
        self.x = x / self.scale
        self.gram = self._weighted_gram(torch.full((len(self.x),), 1 / len(self.x), device=device))
        self.preconditioners: dict[float, Tensor] = {}

    @property
    def logits_per_run(self) -> int:
        """Logits of one run."""
        return self.classes * len(self.rows)

    def uniform_preconditioner(self, penalty: float) -> Tensor:
        """(1, D + 1, D + 1) the inverse of a class's block of the Hessian where all classes are as likely."""
        if penalty not in self.preconditioners:
            self.preconditioners[penalty] = _invert_hessians(self.gram[None] * ((1 - 1 / self.classes) / self.classes), penalty)
        return self.preconditioners[penalty]

    def class_preconditioners(self, weights: Tensor, penalty: float) -> Tensor:
        """(C, N) weights of the rows → (C, D + 1, D + 1) the inverse of each class's own block of the Hessian."""
        return _invert_hessians(torch.stack([self._weighted_gram(w) for w in weights]), penalty)

    def _weighted_gram(self, weights: Tensor) -> Tensor:
        """(N,) weights of the rows → (D + 1, D + 1) Σ w x xᵀ, x with a one at its end for the bias."""
        weighted = self.x * weights[:, None]
        of_bias = torch.cat([weighted.sum(0), weights.sum()[None]])
        return torch.cat([torch.cat([weighted.T @ self.x, of_bias[None, :-1]]), of_bias[:, None]], 1)

    def refresh_pays_off(self, runs: int) -> bool:
        """Whether the classes' own metrics cost less than some twenty steps of so many runs."""
        return self.x.shape[1] < 40 * runs and self.classes * self.x.shape[1] ** 2 < MAX_LOGITS

    def build_row_weights(self, runs: Sequence[tuple[int, Rows]], normed: bool) -> Tensor:
        """(R, N) the weight of each row in each run: 0 where it is none of its rows; `normed`: together 1."""
        made = np.zeros((len(runs), len(self.rows)), dtype=np.float32)
        for mine, (i, rows) in zip(made, runs, strict=True):
            weights = self.problems[i].weights if normed else None
            mine[self.row_positions[rows]] = 1.0 if weights is None else weights.numpy()[self.problems[i].dataset.labels[rows]]
        if normed:
            made /= made.sum(1, keepdims=True, dtype=np.float64).astype(np.float32)
        return torch.from_numpy(made).to(self.x.device)


def _invert_hessians(bend: Tensor, penalty: float) -> Tensor:
    """Of Hessians without the penalty, which knows no bias."""
    bend.diagonal(dim1=1, dim2=2).add_(1e-6)
    bend.diagonal(dim1=1, dim2=2)[:, :-1].add_(penalty)
    factor, failed = torch.linalg.cholesky_ex(bend)
    if failed.any():  # rounding has made it indefinite
        factor = torch.linalg.cholesky(bend.double()).to(bend)
    return torch.cholesky_inverse(factor)


def _replace_zeros(scale: Tensor) -> Tensor:
    return torch.where(scale > 1e-8, scale, torch.ones_like(scale))


class _BatchedSolver:
    """R problems of one penalty after another. theta: (R, C, D + 1), the bias last, for features standardised by each run."""

    def __init__(self, data: _StandardizedFeatures, runs: Sequence[tuple[int, Rows]], slope: float) -> None:
        self.data, self.tolerance, self.iterations = data, slope, 0
        plain = data.build_row_weights([(i, rows) for i, rows in runs], normed=False)
        self.row_mask = plain
        counts = plain.sum(1, keepdim=True)
        self.mean = plain @ data.x / counts  # (R, D)
        self.scale = _replace_zeros((plain @ data.x.square() / counts - self.mean.square()).clamp_min(0).sqrt())
        self.row_weights = data.build_row_weights(runs, normed=True)  # (R, N)
        self.theta = torch.zeros(len(runs), data.classes, data.x.shape[1] + 1, device=data.x.device)
        self.labels = data.labels.expand(len(runs), 1, -1)  # (R, 1, N)
        self.logits = torch.zeros(len(runs), data.classes, len(data.x), device=data.x.device)

    def row_losses(self) -> Tensor:
        """(R, N) of every row, whether trained on or not."""
        return torch.logsumexp(self.logits, 1) - self.logits.gather(1, self.labels)[:, 0]

    def minimize_objective(self, penalty: float) -> None:
        """On from where it is to the minimum for this penalty."""
        memory: list[tuple[Tensor, Tensor, Tensor]] = []
        worth = self.data.refresh_pays_off(len(self.theta))
        anew = (
            PRECONDITIONER_REFRESH_STEP if self.iterations == 0 else 0
        )  # the step before which the metric is taken where the runs then are
        self.preconditioner = self.data.uniform_preconditioner(penalty)
        point = self._evaluate_point(self.logits, self.theta, penalty)
        gradient = self._compute_gradient(point, penalty)
        for number in range(MAX_ITERATIONS):
            self.max_gradient = gradient.abs().amax((1, 2))
            going = self.max_gradient > self.tolerance
            if not going.any():
                return
            self.iterations += 1
            if number == anew and worth:
                self.preconditioner = self._local_preconditioner(penalty)
            direction = -self._two_loop_recursion(gradient, memory)
            falls = (direction * gradient).sum((1, 2))
            uphill = falls >= 0
            if uphill.any():  # only where rounding has made the memory useless
                direction = torch.where(uphill[:, None, None], -self._apply_preconditioner(gradient), direction)
                falls = (direction * gradient).sum((1, 2))
            before = gradient
            point, moved = self._line_search(point, falls, direction, going, penalty)
            gradient = self._compute_gradient(point, penalty)
            turned = gradient - before
            bend = (moved * turned).sum((1, 2))
            kept = bend > 1e-10
            memory.append((moved * kept[:, None, None], turned, torch.where(kept, 1 / bend.clamp_min(1e-30), 0.0)))
            del memory[:-LBFGS_MEMORY]

    def collect_results(self) -> Iterator[tuple[Tensor, Tensor, float, float, float]]:
        """Of each run: weight and bias for features as they are stored, training loss, training accuracy, what slope is left."""
        weight, bias = self._undo_standardization(self.theta)
        bias = bias - (weight / self.data.scale) @ self.data.mean
        losses = (self.row_losses() * self.row_weights).sum(1).tolist()
        right = (self.logits.argmax(1) == self.data.labels) * self.row_mask
        hits = (right.sum(1) / self.row_mask.sum(1)).tolist()
        rows = zip((weight / self.data.scale).cpu(), bias.cpu(), losses, hits, self.max_gradient.tolist(), strict=True)
        yield from rows

    def _undo_standardization(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, D) weights and (R, C) biases for `data.x` as it is."""
        weight = theta[..., :-1] / self.scale[:, None]
        return weight, theta[..., -1] - (weight @ self.mean[..., None])[..., 0]

    def _compute_logits(self, theta: Tensor) -> Tensor:
        """(R, C, N) logits of all rows: one product for all runs."""
        weight, bias = self._undo_standardization(theta)
        return torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 1), self.data.x.T).view(*bias.shape, -1)

    def _evaluate_point(self, logits: Tensor, theta: Tensor, penalty: float) -> _SolverState:
        logp = torch.log_softmax(logits, 1)
        losses = -(logp.gather(1, self.labels)[:, 0] * self.row_weights).sum(1)
        return _SolverState(theta, logits, logp, losses + penalty / 2 * theta[..., :-1].square().sum((1, 2)))

    def _compute_gradient(self, point: _SolverState, penalty: float) -> Tensor:
        """(R, C, D + 1) the gradient; what the point said of the classes is used up."""
        share = self.row_weights[:, None]
        out = point.log_probabilities.exp_().mul_(share).scatter_add_(1, self.labels, -share)  # (R, C, N)
        total = out.sum(2)
        weight = (out.flatten(0, 1) @ self.data.x).view(*total.shape, -1)  # (R, C, D)
        weight = (weight - total[..., None] * self.mean[:, None]) / self.scale[:, None]
        return torch.cat([weight + penalty * point.theta[..., :-1], total[..., None]], 2)

    def _local_preconditioner(self, penalty: float) -> Tensor:
        """(C, D + 1, D + 1) the inverse of the classes' blocks of the Hessian where the runs now are, their mean: folds of one
        dataset bend alike."""
        said = torch.softmax(self.logits, 1)
        return self.data.class_preconditioners((said * (1 - said) * self.row_weights[:, None]).mean(0), penalty)

    def _apply_preconditioner(self, gradient: Tensor) -> Tensor:
        return torch.matmul(gradient.transpose(0, 1), self.preconditioner).transpose(0, 1)

    def _two_loop_recursion(self, gradient: Tensor, memory: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        q = gradient.clone()
        shares = []
        for moved, turned, weight in reversed(memory):
            share = weight * (moved * q).sum((1, 2))
            q.addcmul_(turned, -share[:, None, None])
            shares.append(share)
        q = self._apply_preconditioner(q)
        if memory:  # the metric, at the scale of the latest bend
            moved, turned, weight = memory[-1]
            flat = (turned * self._apply_preconditioner(turned)).sum((1, 2)) * weight
            q *= torch.where(flat > 0, 1 / flat.clamp_min(1e-30), 1.0)[:, None, None]
        for (moved, turned, weight), share in zip(memory, reversed(shares), strict=True):
            q.addcmul_(moved, (share - weight * (turned * q).sum((1, 2)))[:, None, None])
        return q

    def _line_search(
        self, point: _SolverState, falls: Tensor, direction: Tensor, going: Tensor, penalty: float
    ) -> tuple[_SolverState, Tensor]:
        """Whole steps, or half as long as often as it takes to descend (Armijo 1966); → where they led, and what was moved."""
        ahead = self._compute_logits(direction)
        step = going.to(direction)
        for _ in range(30):
            along = step[:, None, None]
            moved = direction * along
            there = self._evaluate_point(torch.addcmul(self.logits, ahead, along), self.theta + moved, penalty)
            high = there.objective > point.objective + 1e-4 * step * falls + 2e-7 * point.objective.abs()
            if not high.any():
                break
            step = torch.where(high, step / 2, step)
        self.theta, self.logits = there.theta, there.logits
        return there, moved


@dataclass(frozen=True, eq=False)
class _SolverState:
    """Where R problems are. theta: (R, C, D + 1) · logits, logp: (R, C, N) · value: (R,) of the objective"""

    theta: Tensor
    logits: Tensor
    log_probabilities: Tensor
    objective: Tensor
