"""Multinomial logistic regression with an L2 penalty, for many folds at once, with the penalty chosen on inner folds.

For each run, over its n training rows with weights m_i (1, or the class's weight), features standardised by these rows:

    minimise over W, b:   Σ m_i CE(o_i + W x̃_i + b, y_i) / Σ m_i  +  λ/2 · ‖W‖²

which, without the offset o_i, is scikit-learn's LogisticRegression with C = 1 / (λ n). The solver is solver.py's. Where rows have
several labels, it is that of each label by itself, all under one λ.

Left out: L1 penalties.

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

from phoropter.data.splits.inner_splits import split_training_rows
from phoropter.training.solved_heads.problem import LogisticProblem, Rows
from phoropter.training.solved_heads.solver import MAX_LOGITS, BatchedSolver, StandardizedFeatures


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """A linear head for features as they are stored, on the CPU: logits = weight @ x + bias.

    weight: (C, D) float32 · bias: (C,) · loss: mean over the training rows, without the penalty · accuracy: on them
    info: the penalty, the loss of each on the inner folds, and the largest entry of the gradient that is left
    held_out_logits: (n, C) of the training rows in their order, where asked for: each row's by a head that was fitted under the
        same penalty on the inner folds without it
    """

    weight: Tensor
    bias: Tensor
    loss: float
    accuracy: float
    info: dict[str, Any]
    held_out_logits: Tensor | None = None


def fit_logistic(
    features: NDArray[np.float32],
    problems: Sequence[LogisticProblem],
    penalties: Sequence[float],
    folds: int,
    device: torch.device,
    *,
    tolerance: float = 1e-4,
    offset: NDArray[np.float32] | None = None,
    held_out: bool = False,
) -> list[LogisticFit]:
    """(N, D) stored features → the head of each problem, fitted to all its training rows, under the penalty with the least loss
    on `folds` inner folds of them (of equal ones the largest).

    tolerance: largest entry of the gradient at which a problem counts as solved (scikit-learn's `tol`)
    offset:    (N, C) logits that the head's are added to
    held_out:  whether each fit also gets its `held_out_logits`
    """
    data = StandardizedFeatures(features, problems, device, offset)
    descending = sorted({float(p) for p in penalties}, reverse=True)
    inner_splits = [(i, *parts) for i, p in enumerate(problems) for parts in split_training_rows(p.dataset, p.split, folds)]
    scores: list[dict[float, float]] = [{} for _ in problems]
    if len(descending) > 1:
        for portion in _split_by_memory(inner_splits, data.logits_per_run):
            _score_penalties(data, portion, descending, scores, tolerance)
    chosen = [min(descending, key=lambda p: (s[p], -p)) if s else descending[0] for s in scores]
    fits: dict[int, LogisticFit] = {}
    for penalty in sorted(set(chosen)):
        of_penalty = [i for i, p in enumerate(chosen) if p == penalty]
        held_out_logits: dict[int, Tensor] = {}
        if held_out:
            inner = [split for split in inner_splits if split[0] in of_penalty]
            held_out_logits = _compute_held_out_logits(data, inner, penalty, tolerance)
        for part in _split_by_memory([(i, problems[i].split.train) for i in of_penalty], data.logits_per_run):
            solver = BatchedSolver(data, part, tolerance)
            solver.minimize_objective(penalty)
            for (i, _), (weight, bias, loss, accuracy, left) in zip(part, solver.collect_results(), strict=True):
                losses = {f"{p:g}": round(v, 6) for p, v in scores[i].items()}
                info: dict[str, Any] = {"penalty": penalty, "slope": left, "steps": solver.iterations}
                info |= {"inner_folds": folds if losses else None, "inner_loss": losses}
                fits[i] = LogisticFit(weight, bias, loss, accuracy, info, held_out_logits.get(i))
    return [fits[i] for i in range(len(problems))]


def _split_by_memory(runs: list[Any], logits_per_run: int) -> Iterator[list[Any]]:
    """Portions of the runs whose logits fit into MAX_LOGITS."""
    size = max(1, MAX_LOGITS // logits_per_run)
    yield from (runs[start : start + size] for start in range(0, len(runs), size))


def _score_penalties(
    data: StandardizedFeatures, folds: list[Any], descending: list[float], scores: list[dict[float, float]], tolerance: float
) -> None:
    """Adds to each problem's scores the mean loss on the rows its inner folds validate on; folds: (problem, fit, validate)."""
    solver = BatchedSolver(data, [(i, rows) for i, rows, _ in folds], tolerance)
    validated = data.build_row_mask([(i, rows) for i, _, rows in folds])
    shares = validated.sum(1) / torch.tensor([len(data.problems[i].split.train) for i, _, _ in folds], device=validated.device)
    for penalty in descending:
        solver.minimize_objective(penalty)
        losses = (solver.row_losses() * validated).sum(1) / validated.sum(1) * shares
        for (i, _, _), loss in zip(folds, losses.tolist(), strict=True):
            scores[i][penalty] = scores[i].get(penalty, 0.0) + loss


def _compute_held_out_logits(data: StandardizedFeatures, folds: list[Any], penalty: float, tolerance: float) -> dict[int, Tensor]:
    """Problem → (n, C) logits of its training rows on the CPU, each by the inner fold that validates on it."""
    found: dict[int, Tensor] = {}
    for portion in _split_by_memory(folds, data.logits_per_run):
        solver = BatchedSolver(data, [(i, rows) for i, rows, _ in portion], tolerance)
        solver.minimize_objective(penalty)
        for (i, _, rows), logits in zip(portion, solver.logits, strict=True):
            train: Rows = data.problems[i].split.train
            order = np.argsort(train, kind="stable")
            places = order[np.searchsorted(train, rows, sorter=order)]
            into = found.setdefault(i, torch.zeros(len(train), data.classes))
            into[torch.from_numpy(places)] = logits[:, torch.from_numpy(data.row_positions[rows]).to(logits.device)].T.cpu()
    return found
