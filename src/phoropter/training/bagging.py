"""Balanced bagging: one model for each under-sampling of the frequent classes; their probabilities are averaged.

All bags begin with the same weights, and each is trained on its own draw of the majority, disjoint from the others' as far as
there are rows (signals-and-protocols, §7). The models become one Classifier with a branch for each, so that bundles, prediction
and distillation need no case of their own.

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
    """As `fit`, for a task whose recipe has several bags; a history row is the mean over the bags of that epoch."""
    count = task.candidate.recipe.imbalance.n_bags
    runs: list[TrainedRun] = []
    for bag in range(count):
        one_bag = replace(task, bag_index=bag, checkpoints=task.checkpoints.for_part(f"bag-{bag}"))
        runs.append((yield from fit(one_bag)))
    first = runs[0]
    return replace(
        first,
        task=task,
        model=classifiers.build_ensemble([run.model for run in runs]),
        history=_average_histories([run.history for run in runs]),
        train_seconds=sum(run.train_seconds for run in runs),
        features=None if first.features is None else first.features * count,
        bagging_info=_describe_bags(task, runs),
    )


def _average_histories(histories: Sequence[Sequence[HistoryRow]]) -> list[HistoryRow]:
    """A row an epoch: figures averaged over the bags, their seconds added up."""
    rows = []
    for rows_of_epoch in zip(*histories, strict=True):
        mean: dict[str, Any] = dict(rows_of_epoch[0])
        for name in ("train_loss", "train_accuracy", "images_per_s", "validation_loss", "validation_accuracy"):
            if name in mean:
                mean[name] = float(np.mean([row[name] for row in rows_of_epoch]))
        mean["seconds"] = round(sum(row["seconds"] for row in rows_of_epoch), 3)
        rows.append(mean)
    return rows


def _describe_bags(task: TrainingTask, runs: Sequence[TrainedRun]) -> dict[str, Any]:
    """For the record: how many bags of how many rows, how many different rows they hold, the epoch selected in each."""
    bags = [np.concatenate(make_batch_sampler(run.task).epoch_batches(0)) for run in runs]
    return {
        "count": len(bags),
        "rows": [len(bag) for bag in bags],
        "rows_together": len(np.unique(np.concatenate(bags))),
        "best_epochs": [run.best_epoch for run in runs],
    }
