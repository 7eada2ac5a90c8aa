"""What a candidate answers for the rows it is trained on, by fits that had not seen them: on inner folds of a training part.

They are the inner folds that choose the penalty of a solved head: stratified, and people apart where the split keeps them apart.
Each fold's fit is that of the candidate itself, with its recipe, on fewer rows. Answers are stored, whole or not at all, by the
key of the candidate's run; a stored file that cannot be read is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import atomic_write, file_lock, make_folder
from phoropter.core.storage.npz_files import read_own_npz
from phoropter.data.splits.inner_splits import make_inner_splits
from phoropter.results.metrics.probabilities import softmax
from phoropter.training.fit import TrainedRun, TrainingTask
from phoropter.training.frozen.batched_fit import can_batch, fit_batched
from phoropter.training.selection.greedy_selection import INNER_FOLDS, Selection, select_members

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class InnerAnswers:
    """truth: (n,) probability that was given to the true class of each training row, in their order
    seconds: that the fits took, without passes of frozen backbones"""

    truth: Floats
    seconds: float


def choose_members(
    tasks: Mapping[str, tuple[Path, TrainingTask]], train: Callable[[TrainingTask], TrainedRun]
) -> tuple[Selection, float]:
    """Members of one split → the selection among them, and the seconds that their fits on inner folds took.

    tasks: name of a member → the file of its answers, and its task. Raises what `load_or_answer` raises.
    """
    answers = {name: load_or_answer(file, task, train) for name, (file, task) in tasks.items()}
    _, first = next(iter(tasks.values()))
    rows, groups = first.split.train, first.dataset.groups
    units = np.arange(len(rows)) if groups is None else np.unique(groups[rows], return_inverse=True)[1]
    truths = {name: found.truth for name, found in answers.items()}
    chosen = select_members(truths, units, first.split.seed, first.split.content_key(first.dataset))
    return chosen, sum(found.seconds for found in answers.values())


def load_or_answer(file: Path, task: TrainingTask, train: Callable[[TrainingTask], TrainedRun]) -> InnerAnswers:
    """The answers of a task's candidate for the task's training rows.

    file: where they are stored · train: trains a task to its end whose head is not trained in one batch with others
    Raises SplitError where the rows have no inner folds, and what training raises.
    """
    make_folder(file.parent)
    with file_lock(file.with_suffix(".lock")):
        stored = _read_answers(file, len(task.split.train))
        if stored is None:
            stored = _answer_rows(task, train, file.stem)
            with atomic_write(file) as aside, aside.open("wb") as opened:
                np.savez(opened, truth=stored.truth, seconds=np.float64(stored.seconds))
    return stored


def _answer_rows(task: TrainingTask, train: Callable[[TrainingTask], TrainedRun], name: str) -> InnerAnswers:
    checkpoints, labels = task.checkpoints, task.dataset.labels
    tasks = [
        replace(task, split=inner, checkpoints=checkpoints.for_part(f"{name}-{number}"))
        for number, inner in enumerate(make_inner_splits(task.dataset, task.split, INNER_FOLDS, "mode: select"))
    ]
    outcomes = fit_batched(tasks) if can_batch(task.candidate) else [train(each) for each in tasks]
    found, seconds = np.zeros(len(task.dataset)), 0.0
    for inner, outcome in zip(tasks, outcomes, strict=True):
        if isinstance(outcome, Exception):
            raise outcome
        rows = inner.split.test
        found[rows] = softmax(outcome.predict_held_out(rows)[0])[np.arange(len(rows)), labels[rows]]
        seconds += outcome.train_seconds
    return InnerAnswers(found[task.split.train], seconds)


def _read_answers(file: Path, count: int) -> InnerAnswers | None:
    try:
        stored = read_own_npz(file)
        truth, seconds = stored["truth"], float(stored["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return InnerAnswers(np.asarray(truth, dtype=np.float64), seconds) if truth.shape == (count,) else None
