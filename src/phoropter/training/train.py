"""Training one candidate on one split: a single model, or a bagged ensemble where the recipe asks for several bags."""

from __future__ import annotations

from collections.abc import Generator

from phoropter.training.bagging import fit_bags
from phoropter.training.fit import TrainedRun, TrainingTask, fit
from phoropter.training.loop.history import HistoryRow
from phoropter.training.loop.training_loop import StepProgress


def train_candidate(task: TrainingTask) -> Generator[StepProgress | HistoryRow, None, TrainedRun]:
    """Trains the task's candidate; a task with a `bag_index` is one bag. Yields progress and a history row an epoch.

    Returns the TrainedRun. Raises what `fit` raises.
    """
    bagged = task.candidate.recipe.imbalance.n_bags > 1 and task.bag_index is None
    return (yield from (fit_bags(task) if bagged else fit(task)))
