"""The solved heads of a fusion of frozen backbones: one on their concatenated features, or stacked on the logits of their own.

Stacked (Wolpert 1992): every branch gets its own logistic regression. What combines them is fitted to logits of rows that the
branch's head was not fitted to, because those of rows it has seen are too sure of themselves:

    logits = mean over branches of z_b  +  W [z_1, …, z_n] + b,     the L2 penalty on W

so the combination begins at the average of the branches, and the penalty, chosen on the same inner folds, holds it there unless
leaving it pays. The heads that are kept are fitted to all training rows.

Letters: N rows, C classes, n branches, D_i width of branch i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from phoropter.training.candidates.recipe import LossSpec
from phoropter.training.loop.label_losses import count_hits
from phoropter.training.loop.losses import Criterion
from phoropter.training.solved_heads.logistic_regression import LogisticFit, fit_logistic
from phoropter.training.solved_heads.problem import LogisticProblem

# Of the correction of the average; at the largest the stacked head is the average up to the classes' biases. On 4,000 rows of
# CIFAR-10 inner folds choose 0.01, so that the grid goes one step further.
STACKING_PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001)


@dataclass(frozen=True, eq=False)
class SolvedHead:
    """What is loaded into the head of a classifier, and what its record says.

    state: name → tensor · loss, accuracy: on the training rows · info: as of LogisticFit; of stacked logits with `branches`
    """

    state: dict[str, Tensor]
    loss: float
    accuracy: float
    info: dict[str, Any]


def solve_heads(
    features: Sequence[NDArray[np.float32]],
    problems: Sequence[LogisticProblem],
    penalties: Sequence[float],
    folds: int,
    device: torch.device,
    fusion_mode: str | None,
) -> list[SolvedHead]:
    """(N, D_i) features of each branch → the head of each problem.

    fusion_mode: None of a single backbone; concat: one head on the concatenated features; logits: stacked logits
    """
    if fusion_mode == "logits":
        return _solve_stacked_logits(features, problems, penalties, folds, device)
    joined = features[0] if fusion_mode is None else np.concatenate([np.asarray(f, dtype=np.float32) for f in features], axis=1)
    prefix = "head.last" if fusion_mode is None else "fusing.last"
    fits = fit_logistic(joined, problems, penalties, folds, device)
    return [SolvedHead(_name_tensors(prefix, fit), fit.loss, fit.accuracy, fit.info) for fit in fits]


def _name_tensors(prefix: str, fit: LogisticFit) -> dict[str, Tensor]:
    return {f"{prefix}.weight": fit.weight, f"{prefix}.bias": fit.bias}


def _solve_stacked_logits(
    features: Sequence[NDArray[np.float32]],
    problems: Sequence[LogisticProblem],
    penalties: Sequence[float],
    folds: int,
    device: torch.device,
) -> list[SolvedHead]:
    branches = [fit_logistic(of_branch, problems, penalties, folds, device, held_out=True) for of_branch in features]
    return [
        _stack_branches(features, problem, [of_branch[i] for of_branch in branches], folds, device)
        for i, problem in enumerate(problems)
    ]


def _fit_correction(problem: LogisticProblem, branches: list[LogisticFit], folds: int, device: torch.device) -> LogisticFit:
    """The W and b of the correction, from the held-out logits of the training rows."""
    train, classes, count = problem.split.train, len(problem.dataset.classes), len(problem.dataset)
    held_out = [branch.held_out_logits for branch in branches if branch.held_out_logits is not None]
    if len(held_out) < len(branches):  # rows of one group alone: there are no inner folds, and the average stays
        info: dict[str, Any] = {"penalty": None, "slope": 0.0, "steps": 0, "inner_folds": None, "inner_loss": {}}
        return LogisticFit(torch.zeros(classes, classes * len(branches)), torch.zeros(classes), 0.0, 0.0, info)
    stacked = np.zeros((count, classes * len(branches)), dtype=np.float32)
    average = np.zeros((count, classes), dtype=np.float32)
    stacked[train] = torch.cat(held_out, 1).numpy()
    average[train] = torch.stack(held_out).mean(0).numpy()
    return fit_logistic(stacked, [problem], STACKING_PENALTIES, folds, device, offset=average)[0]


def _stack_branches(
    features: Sequence[NDArray[np.float32]],
    problem: LogisticProblem,
    branches: list[LogisticFit],
    folds: int,
    device: torch.device,
) -> SolvedHead:
    train = problem.split.train
    fusing = _fit_correction(problem, branches, folds, device)
    state = _name_tensors("fusing.last", fusing)
    for i, branch in enumerate(branches):
        state |= _name_tensors(f"branches.{i}.last", branch)
    of_train = [
        torch.from_numpy(np.asarray(x[train], dtype=np.float32)) @ branch.weight.T + branch.bias
        for x, branch in zip(features, branches, strict=True)
    ]
    logits = torch.stack(of_train).mean(0) + torch.cat(of_train, 1) @ fusing.weight.T + fusing.bias
    labels = torch.from_numpy(problem.dataset.labels[train])
    weights = None if problem.weights is None else problem.weights.cpu()
    mean_loss = Criterion(LossSpec(), weights)(logits, labels) if labels.ndim == 2 else F.cross_entropy(logits, labels, weights)
    loss, hits = float(mean_loss), float(count_hits(logits, labels)) / len(labels)
    slope = max(f.info["slope"] for f in (fusing, *branches))
    info = {**fusing.info, "slope": slope, "branches": [branch.info for branch in branches]}
    return SolvedHead(state, loss, hits, info)
