"""A task is trained as one model, or as several bags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.fit import TrainedRun, TrainingTask
from phoropter.training.train import train_candidate


def run_to_end(task: TrainingTask) -> TrainedRun:
    training = train_candidate(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def test_a_task_with_a_bag_index_trains_that_bag_only(few_digits: Any, tmp_path: Path) -> None:
    dataset, pixels = few_digits
    recipe = {"preset": "probe", "epochs": 1, "imbalance": {"undersample": 1, "n_bags": 2}}
    entry = {"backbone": "test_resnet", "weights": "random", "size": 32, "frozen": True, "recipe": recipe}
    (candidate,) = parse_candidates([entry], PRESETS["scratch"])
    task = TrainingTask(candidate, make_splits(dataset, KFold(3))[0], dataset, pixels, torch.device("cpu"), tmp_path)
    all_bags, one_bag = run_to_end(task), run_to_end(replace(task, bag_index=1))
    assert len(all_bags.model.branches) == 2 and all_bags.bagging_info is not None and all_bags.task is task
    assert len(one_bag.model.branches) == 1 and one_bag.bagging_info is None
