"""Branch ablation of a fusion: the accuracy of each branch by itself, and of the fusion without it; it reveals a dead branch.

An ablated branch is replaced by its mean over training rows, which keeps the activations of later layers in distribution.

Left out: test-time augmentation; the single view is ablated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.seeds import random_permutation
from phoropter.models.heads import BranchAblation, Features
from phoropter.training.batches.gpu_pixels import load_pictures_on_device
from phoropter.training.fit import TrainedRun
from phoropter.training.loop.label_losses import count_hits
from phoropter.training.loop.precision import autocast_context, resolve_autocast_dtype
from phoropter.training.predict import split_into_batches

MEAN_ROWS = 512  # training rows whose mean replaces an ablated branch


@torch.inference_mode()
def ablate_branches(run: TrainedRun, train: NDArray[np.int64], test: NDArray[np.int64]) -> list[dict[str, Any]]:
    """A row for each branch of a fusion: `name` of its backbone, and accuracies on the test rows.

    accuracy: of the branch's own logits, None where it has none · without: of the fusion without it · fused: of the fusion
    """
    model, dataset = run.model.eval(), run.task.dataset
    labels = torch.from_numpy(dataset.labels[test])
    some = np.sort(train[random_permutation(dataset.hashed_ids[train], "at home")[:MEAN_ROWS]])
    means = _branch_means(run, compute_branch_features(run, some))
    features = compute_branch_features(run, test)
    fusion = run.model.forward_head(features)
    accuracy = _compute_accuracy(fusion.logits, labels)
    rows = []
    for i, backbone in enumerate(model.spec.backbones):
        own = None if not fusion.branch_logits else _compute_accuracy(fusion.branch_logits[i], labels)
        without = _compute_accuracy(model.forward_head(features, BranchAblation(i, means[i])).logits, labels)
        rows.append({"name": backbone.name, "accuracy": own, "without": without, "fused": accuracy})
    return rows


def _branch_means(run: TrainedRun, features: Features) -> list[torch.Tensor]:
    """The replacement of each branch: (C,) mean logits where the fusion reads logits, else (D,) mean features."""
    fusion = run.model.spec.fusion
    if fusion is not None and fusion.mode == "logits":
        return [logits.mean(0) for logits in run.model.forward_head(features).branch_logits]
    return [of_branch.mean(0) for of_branch in features]


def compute_branch_features(run: TrainedRun, rows: NDArray[np.int64]) -> Features:
    """(n, D_i) float32 features of each branch on the task's device, from the cache where the candidate is frozen."""
    task = run.task
    if run.features is not None:
        return tuple(torch.from_numpy(f[rows]).to(task.device).float() for f in run.features)
    dtype = resolve_autocast_dtype(task.candidate.recipe, task.device)
    batches = []
    for some in split_into_batches(run.model, rows, task.device):
        images = load_pictures_on_device(task.pixels, some, task.device)
        with autocast_context(task.device, dtype):
            batches.append(run.model.forward_features(images))
    return tuple(torch.cat([batch[i].float() for batch in batches]) for i in range(len(batches[0])))


def _compute_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float(count_hits(logits.cpu(), labels)) / len(labels)
