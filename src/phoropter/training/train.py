"""Training one candidate on one split: a single model, or a bagged ensemble where the recipe asks for several bags.

A task with a group is trained by several processes. The first announces it and the others call `train_candidate` with the same
task; all end together, whichever of them fails.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from phoropter.core.errors import RunError
from phoropter.training.bagging import fit_bags
from phoropter.training.fine_tuning.kept_prefix import can_keep_prefix
from phoropter.training.fit import TrainedRun, TrainingTask, fit
from phoropter.training.loop.history import HistoryRow
from phoropter.training.loop.parallel.training_group import TrainingGroup
from phoropter.training.loop.training_loop import StepProgress

Training = Generator[StepProgress | HistoryRow, None, TrainedRun]


def train_candidate(task: TrainingTask) -> Training:
    """Trains the task's candidate; a task with a `bag_index` is one bag. Yields progress and a history row an epoch.

    Returns the TrainedRun. Raises what `fit` raises, and RunError where another process of the group failed.
    """
    if task.group is not None and (task.group.is_busy or not is_shared(task)):  # busy: it trains this one's teacher once more
        task = replace(task, group=None)
    bagged = task.candidate.recipe.imbalance.n_bags > 1 and task.bag_index is None
    training = fit_bags(task) if bagged else fit(task)
    return (yield from (training if task.group is None else _train_together(task, task.group, training)))


def is_shared(task: TrainingTask) -> bool:
    """Whether the processes of a group train it together: a network that sees pictures in every epoch, and not what is kept."""
    candidate = task.candidate
    return bool(candidate.recipe.phases) and not candidate.stores_features and not can_keep_prefix(candidate.recipe)


def _train_together(task: TrainingTask, group: TrainingGroup, training: Training) -> Training:
    if group.is_leader:
        group.send_message(AnnouncedTask.from_task(task))
    group.begin_training()
    group.is_busy = True
    try:
        run = yield from training
        group.meet()  # the others wait for what the first does after its last epoch, and hear where that fails
    except (Exception, GeneratorExit) as error:
        group.part(error)
        raise
    except BaseException:  # a stop that is raised wherever the process is, and the others may be elsewhere
        group.break_off()
        raise
    finally:
        group.is_busy = False
    return run


@dataclass(frozen=True, eq=False)
class AnnouncedTask:
    """What the other processes of a group need to know of a task; data, cache and device are their own.

    dataset, pixels: identities of the data · fields: of the TrainingTask, by their names
    """

    dataset: str
    pixels: str
    fields: dict[str, Any]

    @classmethod
    def from_task(cls, task: TrainingTask) -> AnnouncedTask:
        same = ("candidate", "split", "weights_base", "member_bundles", "bag_index", "last_epoch", "row_weights")
        teacher = None if task.teacher is None else replace(task.teacher, load_model=_refuse_to_load)
        fields = {name: getattr(task, name) for name in same} | {"teacher": teacher}
        return cls(task.dataset.fingerprint, task.pixels.identity, fields)


def _refuse_to_load() -> NoReturn:
    raise RunError(
        "what the teacher says is not in the cache of this process: let all processes share one cache folder (PHOROPTER_CACHE)"
    )
