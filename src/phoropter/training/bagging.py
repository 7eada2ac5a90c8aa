"""Bagging over several under-samplings: a model for each draw of the frequent classes, their probabilities averaged.

Each bag begins with the same weights and sees its own draw of the majority, disjoint from the others' as far as there are rows
(signals-and-protocols, §7). The bags become one Classifier of as many branches, so that a bundle, a view or a teacher needs to
know nothing of them.

Left out: bags of a fusion and of a student, whose parts would have to be trained together.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from phoropter.models import classifier as classifiers
from phoropter.training.fit import TrainedRun, TrainingTask, fit, make_batch_sampler
from phoropter.training.loop.history import HistoryRow
from phoropter.training.loop.training_loop import StepProgress


def fit_bags(task: TrainingTask) -> Generator[StepProgress | HistoryRow, None, TrainedRun]:
    """As `fit`, for a task whose recipe has several bags; the history is the mean over the bags of each epoch."""
    count = task.candidate.recipe.imbalance.n_bags
    fitted: list[TrainedRun] = []
    for bag in range(count):
        alone = replace(task, bag_index=bag, checkpoints=task.checkpoints.for_part(f"bag-{bag}"))
        fitted.append((yield from fit(alone)))
    first = fitted[0]
    model = classifiers.build_ensemble([f.model for f in fitted])
    features = None if first.features is None else first.features * count
    seconds = sum(f.train_seconds for f in fitted)
    history = _average_histories([f.history for f in fitted])
    note = _describe_bags(task, fitted)
    made = TrainedRun(task, model, history, first.best_epoch, seconds, first.initial_weight_digests, features, bagging_info=note)
    return replace(made, precision=first.precision)


def _average_histories(histories: Sequence[Sequence[HistoryRow]]) -> list[HistoryRow]:
    """A row an epoch: numbers averaged over the bags, their seconds added up."""
    rows = []
    for same in zip(*histories, strict=True):
        made: dict[str, Any] = dict(same[0])
        for name in ("train_loss", "train_accuracy", "images_per_s", "validation_loss", "validation_accuracy"):
            if name in made:
                made[name] = float(np.mean([row[name] for row in same]))
        made["seconds"] = round(sum(row["seconds"] for row in same), 3)
        rows.append(made)
    return rows


def _describe_bags(task: TrainingTask, fitted: Sequence[TrainedRun]) -> dict[str, Any]:
    """For the record: how many bags of how many rows, how many different rows they hold, and which epoch of each was chosen."""
    bags = [np.concatenate(make_batch_sampler(f.task).epoch_batches(0)) for f in fitted]
    return {
        "count": len(bags),
        "rows": [len(bag) for bag in bags],
        "rows_together": len(np.unique(np.concatenate(bags))),
        "best_epochs": [f.best_epoch for f in fitted],
    }
