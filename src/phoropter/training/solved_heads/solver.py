"""Preconditioned L-BFGS (Nocedal & Wright 2006, algorithm 7.4) for many logistic regressions on shared features at once.

The preconditioner is the block-diagonal (per class) Hessian, bias included: first at uniform probabilities, where all blocks are
equal, and for many runs recomputed after 4 steps at their mean probabilities. 12–24 iterations suffice. All runs read the
features of all rows in one matrix product, and a run's weights are 0 outside its own training rows; the preconditioner and the
centring use the union of the runs' training rows, which changes the path of the solver and not the optimum. The line search
costs no product: logits are linear in the step.

Where rows have several labels, each label is a logistic regression of its own on the same features, and all are solved as one:
the sigmoid stands for the softmax, and the objective is the sum over the labels.

Letters: R runs, N rows, D width, C classes or labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from phoropter.training.loop.devices import use_threads
from phoropter.training.loop.label_losses import select_answer_weights
from phoropter.training.solved_heads.problem import LogisticProblem, Rows

LBFGS_MEMORY = 10  # pairs of step and gradient change that L-BFGS keeps
MAX_ITERATIONS = 200
PRECONDITIONER_REFRESH_STEP = 4  # the iteration before which the preconditioner is recomputed
CONSTANT_VARIANCE = 1e-5  # of the second moment: a feature of less variance is constant up to the rounding of float32 sums
MAX_LOGITS = 2**25  # logits in memory at once: R · C · N


class StandardizedFeatures:
    """x: (N, D) features of all rows that some problem trains on, standardised, so that float32 sums are precise.

    offset: (C, N) logits that those of the features are added to, or None
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        problems: Sequence[LogisticProblem],
        device: torch.device,
        offset: NDArray[np.float32] | None = None,
    ) -> None:
        self.problems = problems
        dataset = problems[0].dataset
        self.rows = np.unique(np.concatenate([p.split.train for p in problems]))
        self.row_positions = np.full(len(dataset), -1, dtype=np.int64)
        self.row_positions[self.rows] = np.arange(len(self.rows))
        self.labels = torch.from_numpy(dataset.labels[self.rows]).to(device)
        self.classes, self.multi_label = len(dataset.classes), dataset.is_multi_label
        x = torch.from_numpy(np.asarray(features[self.rows], dtype=np.float32)).to(device)
        self.mean = x.mean(0, dtype=torch.float64).float()
        x = x - self.mean
        self.scale = _replace_zeros(x.square().mean(0, dtype=torch.float64).sqrt().float())
        self.x = x / self.scale
        self.gram = self._weighted_gram(torch.full((len(self.x),), 1 / len(self.x), device=device))
        self.preconditioners: dict[float, Tensor] = {}
        self.logits_per_run = self.classes * len(self.rows)
        self.offset = None if offset is None else torch.from_numpy(offset[self.rows]).to(device).T

    def uniform_preconditioner(self, penalty: float) -> Tensor:
        """(1, D + 1, D + 1) inverse of a class's block of the Hessian at uniform probabilities, (1 − 1/C)/C · Σ x xᵀ."""
        if penalty not in self.preconditioners:
            outcomes = 2 if self.multi_label else self.classes
            self.preconditioners[penalty] = _invert_hessians(self.gram[None] * ((1 - 1 / outcomes) / outcomes), penalty)
        return self.preconditioners[penalty]

    def class_preconditioners(self, weights: Tensor, penalty: float) -> Tensor:
        """(C, N) row weights p(1 − p) → (C, D + 1, D + 1) inverse of each class's own block of the Hessian."""
        return _invert_hessians(torch.stack([self._weighted_gram(w) for w in weights]), penalty)

    def _weighted_gram(self, weights: Tensor) -> Tensor:
        """(N,) row weights → (D + 1, D + 1) Σ w x xᵀ, with a one appended to x for the bias."""
        weighted = self.x * weights[:, None]
        bias_column = torch.cat([weighted.sum(0), weights.sum()[None]])
        return torch.cat([torch.cat([weighted.T @ self.x, bias_column[None, :-1]]), bias_column[:, None]], 1)

    def refresh_pays_off(self, runs: int) -> bool:
        """Whether a preconditioner for each class (2·N·C·D² operations) costs less than twenty steps of the runs (4·N·C·D·R)."""
        return self.x.shape[1] < 40 * runs and self.classes * self.x.shape[1] ** 2 < MAX_LOGITS

    def build_row_mask(self, runs: Sequence[tuple[int, Rows]]) -> Tensor:
        """(problem, rows) of each run → (R, N) 1 on its rows, else 0."""
        matrix = np.zeros((len(runs), len(self.rows)), dtype=np.float32)
        for mask, (_, rows) in zip(matrix, runs, strict=True):
            mask[self.row_positions[rows]] = 1.0
        return torch.from_numpy(matrix).to(self.x.device)

    def build_loss_weights(self, runs: Sequence[tuple[int, Rows]]) -> Tensor:
        """(problem, rows) of each run → (R, 1, N) weights with a sum of 1; (R, C, N) where answers weigh differently by label."""
        several = self.multi_label and any(self.problems[i].weights is not None for i, _ in runs)
        matrix = np.zeros((len(runs), self.classes if several else 1, len(self.rows)), dtype=np.float32)
        for of_run, (i, rows) in zip(matrix, runs, strict=True):
            weights, labels = self.problems[i].weights, self.problems[i].dataset.labels[rows]
            if weights is None:
                of_run[:, self.row_positions[rows]] = 1.0
            elif several:
                of_run[:, self.row_positions[rows]] = select_answer_weights(weights.cpu(), torch.from_numpy(labels)).T.numpy()
            else:
                of_run[:, self.row_positions[rows]] = weights.cpu().numpy()[labels]
        matrix /= matrix.sum(2, keepdims=True, dtype=np.float64).astype(np.float32)
        return torch.from_numpy(matrix).to(self.x.device)


def _invert_hessians(hessians: Tensor, penalty: float) -> Tensor:
    """(…, D + 1, D + 1) Hessians of the loss → inverses of those with the penalty, which does not act on the bias.

    On one thread: a factorisation by several has other last bits, which decide where a weakly penalised problem counts as solved.
    """
    hessians.diagonal(dim1=1, dim2=2).add_(1e-6)  # a constant feature would make one singular
    hessians.diagonal(dim1=1, dim2=2)[:, :-1].add_(penalty)
    with use_threads(1):
        factor, failed = torch.linalg.cholesky_ex(hessians)
        if failed.any():  # rounding has made it indefinite
            factor = torch.linalg.cholesky(hessians.double()).to(hessians)
        return torch.cholesky_inverse(factor)


def _replace_zeros(scale: Tensor) -> Tensor:
    return torch.where(scale > 1e-8, scale, torch.ones_like(scale))


class BatchedSolver:
    """R problems, one penalty after another. theta: (R, C, D + 1), the bias last, for features standardised by each run."""

    def __init__(self, data: StandardizedFeatures, runs: Sequence[tuple[int, Rows]], tolerance: float) -> None:
        self.data, self.tolerance, self.iterations = data, tolerance, 0
        self.row_mask = mask = data.build_row_mask(runs)
        counts = mask.sum(1, keepdim=True)
        self.mean = mask @ data.x / counts  # (R, D)
        second = mask @ data.x.square() / counts
        variance = second - self.mean.square()
        # Dividing by what rounding leaves of a constant feature's variance would blow up the rows on which it differs
        constant = variance <= CONSTANT_VARIANCE * second
        self.scale = torch.where(constant, torch.ones_like(variance), variance.clamp_min(0).sqrt())
        self.loss_weights = data.build_loss_weights(runs)  # (R, 1, N) or (R, C, N)
        self.theta = torch.zeros(len(runs), data.classes, data.x.shape[1] + 1, device=data.x.device)
        # (R, 1, N) classes, or (1, C, N) 0 and 1
        self.labels = data.labels.T[None].float() if data.multi_label else data.labels.expand(len(runs), 1, -1)
        # Kept up to date by adding the logits of each step, so that the offset need only stand here
        start = torch.zeros(data.classes, len(data.x), device=data.x.device) if data.offset is None else data.offset
        self.logits = start.expand(len(runs), -1, -1).clone(memory_format=torch.contiguous_format)

    def row_losses(self) -> Tensor:
        """(R, N) losses of all rows, trained on or not; means over several labels."""
        if self.data.multi_label:
            return (F.softplus(self.logits) - self.labels * self.logits).mean(1)
        return torch.logsumexp(self.logits, 1) - self.logits.gather(1, self.labels)[:, 0]

    def minimize_objective(self, penalty: float) -> None:
        """Moves `theta` to the minimum for this penalty; runs that are solved stand still while the others go on."""
        memory: list[tuple[Tensor, Tensor, Tensor]] = []
        refresh = self.data.refresh_pays_off(len(self.theta))
        # From 0 the first steps lead away from uniform probabilities; a later penalty begins near its minimum
        refresh_at = PRECONDITIONER_REFRESH_STEP if self.iterations == 0 else 0
        self.preconditioner = self.data.uniform_preconditioner(penalty)
        point = self._evaluate_point(self.logits, self.theta, penalty)
        gradient = self._compute_gradient(point, penalty)
        for iteration in range(MAX_ITERATIONS):
            self.max_gradient = gradient.abs().amax((1, 2))
            active = self.max_gradient > self.tolerance
            if not active.any():
                return
            self.iterations += 1
            if iteration == refresh_at and refresh:
                self.preconditioner = self._local_preconditioner(penalty)
            direction = -self._two_loop_recursion(gradient, memory)
            slopes = (direction * gradient).sum((1, 2))
            uphill = slopes >= 0
            if uphill.any():  # only where rounding has spoilt the memory
                direction = torch.where(uphill[:, None, None], -self._apply_preconditioner(gradient), direction)
                slopes = (direction * gradient).sum((1, 2))
            previous = gradient
            point, step = self._line_search(point, slopes, direction, active, penalty)
            gradient = self._compute_gradient(point, penalty)
            change = gradient - previous
            curvature = (step * change).sum((1, 2))
            # A pair without positive curvature (of a run that stands still, or by rounding) must leave the others' memory alone
            kept = curvature > 1e-10
            inverse = torch.where(kept, 1 / curvature.clamp_min(1e-30), 0.0)
            memory.append((step * kept[:, None, None], change, inverse))
            del memory[:-LBFGS_MEMORY]

    def collect_results(self) -> Iterator[tuple[Tensor, Tensor, float, float, float]]:
        """Of each run: weight and bias for features as they are stored, training loss and accuracy, largest gradient entry."""
        weight, bias = self._undo_standardization(self.theta)
        bias = bias - (weight / self.data.scale) @ self.data.mean
        if self.data.multi_label:
            means = self._weighted_losses(self.logits, self._log_probabilities(self.logits)) / self.data.classes
            correct = ((self.logits > 0) == (self.labels == 1)).float().mean(1) * self.row_mask
        else:
            means = (self.row_losses() * self.loss_weights[:, 0]).sum(1)
            correct = (self.logits.argmax(1) == self.data.labels) * self.row_mask
        accuracies = (correct.sum(1) / self.row_mask.sum(1)).tolist()
        losses = means.tolist()
        yield from zip((weight / self.data.scale).cpu(), bias.cpu(), losses, accuracies, self.max_gradient.tolist(), strict=True)

    def _undo_standardization(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, D) weights and (R, C) biases for `data.x`."""
        weight = theta[..., :-1] / self.scale[:, None]
        return weight, theta[..., -1] - (weight @ self.mean[..., None])[..., 0]

    def _compute_logits(self, theta: Tensor) -> Tensor:
        """(R, C, N) logits of all rows: one product for all runs."""
        weight, bias = self._undo_standardization(theta)
        return torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 1), self.data.x.T).view(*bias.shape, -1)

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        return F.logsigmoid(logits) if self.data.multi_label else torch.log_softmax(logits, 1)

    def _weighted_losses(self, logits: Tensor, logp: Tensor) -> Tensor:
        """(R,) losses of the training rows; of several labels their sum."""
        if self.data.multi_label:  # of the answer no: −log(1 − p) = z − log p
            return (((1 - self.labels) * logits - logp) * self.loss_weights).sum((1, 2))
        return -(logp.gather(1, self.labels)[:, 0] * self.loss_weights[:, 0]).sum(1)

    def _evaluate_point(self, logits: Tensor, theta: Tensor, penalty: float) -> _SolverState:
        logp = self._log_probabilities(logits)
        losses = self._weighted_losses(logits, logp)
        return _SolverState(theta, logits, logp, losses + penalty / 2 * theta[..., :-1].square().sum((1, 2)))

    def _compute_gradient(self, point: _SolverState, penalty: float) -> Tensor:
        """(R, C, D + 1) the gradient; overwrites the point's log-probabilities, which nothing reads afterwards."""
        share, p = self.loss_weights, point.log_probabilities.exp_()  # residuals: (R, C, N)
        residuals = (p.sub_(self.labels) if self.data.multi_label else p).mul_(share)
        if not self.data.multi_label:
            residuals.scatter_add_(1, self.labels, -share)
        total = residuals.sum(2)
        weight = (residuals.flatten(0, 1) @ self.data.x).view(*total.shape, -1)  # (R, C, D): one product for all runs
        # By the chain rule through each run's standardisation, so that it need not be applied to x
        weight = (weight - total[..., None] * self.mean[:, None]) / self.scale[:, None]
        return torch.cat([weight + penalty * point.theta[..., :-1], total[..., None]], 2)

    def _local_preconditioner(self, penalty: float) -> Tensor:
        """(C, D + 1, D + 1) inverse of the classes' Hessian blocks, averaged over the runs, whose Hessians nearly coincide."""
        p = torch.sigmoid(self.logits) if self.data.multi_label else torch.softmax(self.logits, 1)
        return self.data.class_preconditioners((p * (1 - p) * self.loss_weights).mean(0), penalty)

    def _apply_preconditioner(self, gradient: Tensor) -> Tensor:
        return torch.matmul(gradient.transpose(0, 1), self.preconditioner).transpose(0, 1)

    def _two_loop_recursion(self, gradient: Tensor, memory: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """L-BFGS's inverse Hessian times the gradient; its first approximation is the preconditioner."""
        q = gradient.clone()
        alphas = []
        for step, change, inverse in reversed(memory):
            alpha = inverse * (step * q).sum((1, 2))
            q.addcmul_(change, -alpha[:, None, None])
            alphas.append(alpha)
        q = self._apply_preconditioner(q)
        if memory:  # scaled to the latest curvature (Nocedal & Wright 2006, eq. 7.20)
            step, change, inverse = memory[-1]
            scale = (change * self._apply_preconditioner(change)).sum((1, 2)) * inverse
            q *= torch.where(scale > 0, 1 / scale.clamp_min(1e-30), 1.0)[:, None, None]
        for (step, change, inverse), alpha in zip(memory, reversed(alphas), strict=True):
            q.addcmul_(step, (alpha - inverse * (change * q).sum((1, 2)))[:, None, None])
        return q

    def _line_search(
        self, point: _SolverState, slopes: Tensor, direction: Tensor, active: Tensor, penalty: float
    ) -> tuple[_SolverState, Tensor]:
        """Backtracking from the full step until the objective descends (Armijo 1966) → the new point, the step taken."""
        direction_logits = self._compute_logits(direction)  # the only product of the search: logits are linear in the step
        size = active.to(direction)
        for _ in range(30):
            factor = size[:, None, None]
            step = direction * factor
            candidate = self._evaluate_point(torch.addcmul(self.logits, direction_logits, factor), self.theta + step, penalty)
            # The last term forgives the rounding of float32 sums
            too_high = candidate.objective > point.objective + 1e-4 * size * slopes + 2e-7 * point.objective.abs()
            if not too_high.any():
                break
            size = torch.where(too_high, size / 2, size)
        self.theta, self.logits = candidate.theta, candidate.logits
        return candidate, step


@dataclass(frozen=True, eq=False)
class _SolverState:
    """A point of R problems. theta: (R, C, D + 1) · logits, log_probabilities: (R, C, N) · objective: (R,)"""

    theta: Tensor
    logits: Tensor
    log_probabilities: Tensor
    objective: Tensor
