"""What the record of a trained run says of its convergence: the rule of training/loop/convergence.py, on training rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phoropter.core.seeds import random_permutation
from phoropter.models.heads import MlpHead
from phoropter.training.branch_ablation import compute_branch_features
from phoropter.training.fit import TrainedRun
from phoropter.training.loop.convergence import TrainingAnswers, judge_convergence
from phoropter.training.loop.label_losses import count_hits

MIN_ROWS, ROWS_PER_CLASS = 512, 4  # training rows that are answered again, without augmentation and dropout


def describe_convergence(run: TrainedRun) -> dict[str, Any] | None:
    """The entry `convergence` of a record, as plain data; None of a network that was used as it is."""
    if not run.history:
        return None
    slope = run.logistic_info["slope"] if run.logistic_info else None
    return judge_convergence(run.history, answer_training_rows(run), run.best_epoch, slope).plain()


@torch.inference_mode()
def answer_training_rows(run: TrainedRun) -> TrainingAnswers:
    """The answers of the trained network on some of its training rows, drawn alike for every run of a split."""
    dataset, train = run.task.dataset, run.task.split.train
    count = max(MIN_ROWS, ROWS_PER_CLASS * len(dataset.classes))
    rows = np.sort(train[random_permutation(dataset.hashed_ids[train], "at home")[:count]])
    model = run.model.eval()
    features = compute_branch_features(run, rows)
    with _watch_hidden_units(model.head) as active:
        logits = model.forward_head(features).logits.cpu()
    labels = dataset.labels[rows]
    if dataset.is_multi_label:
        present, predicted = np.flatnonzero(labels.any(axis=0)), np.flatnonzero((logits.numpy() > 0).any(axis=0))
    else:
        present, predicted = np.unique(labels), logits.argmax(1).numpy()
    units = torch.cat(list(active.values())) if active else torch.zeros(0, dtype=torch.bool)
    return TrainingAnswers(
        accuracy=float(count_hits(logits, torch.from_numpy(labels))) / len(labels),
        n_classes=len(present),
        n_silent=len(np.setdiff1d(present, predicted)),
        n_hidden=len(units),
        n_dead=int((~units).sum()),
    )


@contextmanager
def _watch_hidden_units(head: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Name of a layer → (H,) whether each of its hidden units was above 0 on some row, filled by passes within the block."""
    active: dict[str, Tensor] = {}

    def note_activity(name: str, outputs: tuple[Tensor, Tensor]) -> None:
        active[name] = (outputs[1] > 0).any(0).cpu()

    hooks = [
        layer.register_forward_hook(lambda module, inputs, outputs, name=name: note_activity(name, outputs))
        for name, layer in head.named_modules()
        if isinstance(layer, MlpHead) and layer.hidden is not None
    ]
    try:
        yield active
    finally:
        for hook in hooks:
            hook.remove()
