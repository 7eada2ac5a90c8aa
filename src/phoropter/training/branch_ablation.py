"""What each branch of a fusion is worth: how well it does alone, and the fusion without it, so that a dead branch is seen.

A branch left out is replaced by its mean over training rows, which keeps the layers behind it where they are at home. Left out:
fusions judged by several views, of which the single view is looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.seeds import random_permutation
from phoropter.models.heads import BranchAblation, Features, Outputs
from phoropter.training.fit import TrainedRun
from phoropter.training.loop.precision import autocast_context, resolve_autocast_dtype
from phoropter.training.predict import BATCH_SIZE

MEAN_ROWS = 512  # training rows whose mean stands for a branch that is left out


@torch.inference_mode()
def ablate_branches(fitted: TrainedRun, train: NDArray[np.int64], test: NDArray[np.int64]) -> list[dict[str, Any]]:
    """A row a branch: its backbone's name, `accuracy` of its own logits on the test rows (None where it has none), `without` it,
    and of the `whole` fusion."""
    model, labels = fitted.model.eval(), torch.from_numpy(fitted.task.dataset.labels[test])
    some = np.sort(train[random_permutation(fitted.task.dataset.hashed_ids[train], "at home")[:MEAN_ROWS]])
    home, seen = _branch_features(fitted, some), _branch_features(fitted, test)
    means = _branch_means(fitted, home)
    whole = _fusion_outputs(fitted, seen)
    rows = []
    for i, backbone in enumerate(model.spec.backbones):
        own = None if not whole.branch_logits else _compute_accuracy(whole.branch_logits[i], labels)
        without = _fusion_outputs(fitted, seen, BranchAblation(i, means[i]))
        rows.append(
            {
                "name": backbone.name,
                "accuracy": own,
                "without": _compute_accuracy(without.logits, labels),
                "whole": _compute_accuracy(whole.logits, labels),
            }
        )
    return rows


def _branch_means(fitted: TrainedRun, home: Features) -> list[torch.Tensor]:
    """What stands for each branch when it is left out: (C,) logits where the fusion reads logits, else (D,) features."""
    fusion = fitted.model.spec.fusion
    if fusion is not None and fusion.mode == "logits":
        return [logits.mean(0) for logits in _fusion_outputs(fitted, home).branch_logits]
    return [features.mean(0) for features in home]


def _branch_features(fitted: TrainedRun, rows: NDArray[np.int64]) -> Features:
    """(n, D_i) features of each branch, from the cache where they are there."""
    task = fitted.task
    if fitted.features is not None:
        return tuple(torch.from_numpy(f[rows]).to(task.device).float() for f in fitted.features)
    dtype = resolve_autocast_dtype(task.candidate.recipe, task.device)
    parts = []
    for start in range(0, len(rows), BATCH_SIZE):
        pictures = torch.from_numpy(task.pixels.batch(rows[start : start + BATCH_SIZE])).to(task.device)
        with autocast_context(task.device, dtype):
            parts.append(fitted.model.forward_features(pictures))
    return tuple(torch.cat([p[i].float() for p in parts]) for i in range(len(parts[0])))


def _fusion_outputs(fitted: TrainedRun, features: Features, without: BranchAblation | None = None) -> Outputs:
    return fitted.model.forward_head(features, without)


def _compute_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.cpu().argmax(1) == labels).double().mean())
