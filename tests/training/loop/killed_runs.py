"""Small runs on digits that can be killed after a checkpoint, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.fit import TrainedRun, TrainingTask, fit
from phoropter.training.loop.checkpoint import Checkpoints, TrainingState

torch.set_num_threads(1)


def task_of(
    few_digits: Any, tmp_path: Path, recipe: Any, *, every_s: float = 1e9, frozen: bool = False, **entry: Any
) -> TrainingTask:
    dataset, pixels = few_digits
    split = make_splits(dataset, KFold(3))[0]
    network = {} if "student" in entry else {"backbone": "test_resnet"}
    written = {**network, "weights": "random", "size": 32, **entry}
    if frozen:
        written |= {"frozen": True, "recipe": recipe}
    candidate, *_ = parse_candidates([written], parse_recipe({"batch_size": 32, **recipe}, PRESETS["scratch"]))
    folder = tmp_path / "work"
    folder.mkdir(exist_ok=True, parents=True)
    checkpoints = Checkpoints(folder, every_s)
    return TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), tmp_path / "cache", checkpoints=checkpoints)


def finish(task: TrainingTask, stop_after: int | None = None) -> TrainedRun | None:
    """Runs a fit to its end, or abandons it after so many checkpoints, as a kill would."""
    training = fit(task)
    saved: list[int] = []
    save = task.checkpoints.save

    class Killed(Exception):
        pass

    def counting(state: TrainingState) -> None:
        save(state)
        saved.append(1)
        if stop_after is not None and len(saved) >= stop_after:
            raise Killed

    task.checkpoints.save = counting  # type: ignore[method-assign]
    try:
        while True:
            next(training)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except Killed:
        return None
