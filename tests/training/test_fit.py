"""What a trained run refuses, and which task needs a teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from phoropter.core.errors import LeakageError
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.fit import TrainedRun, TrainingTask, build_model, fit, predict_rows


def make_task(few_digits: Any, folder: Path, **entry: Any) -> TrainingTask:
    dataset, pixels = few_digits
    candidate = parse_candidates([{"weights": "random", "size": 32, **entry}], PRESETS["scratch"])[0]
    return TrainingTask(candidate, make_splits(dataset, KFold(3))[0], dataset, pixels, torch.device("cpu"), folder)


def test_training_rows_are_not_predicted_as_held_out(few_digits: Any, tmp_path: Path) -> None:
    task = make_task(few_digits, tmp_path, backbone="test_resnet")
    run = TrainedRun(task, build_model(task), [], 0, 0.0, (), None)
    assert len(predict_rows(run, task.split.train[:3])[0]) == 3
    with pytest.raises(LeakageError, match="3 rows to be tested were trained on"):
        run.predict_held_out(task.split.train[:3])


def test_a_student_without_a_teacher_is_refused(few_digits: Any, tmp_path: Path) -> None:
    task = make_task(few_digits, tmp_path, student="test_resnet", teacher="test_vit")
    with pytest.raises(ValueError, match=r"the student .* has no teacher in its task"):
        list(fit(task))


def test_a_model_depends_on_the_seed_of_its_split_only(few_digits: Any, tmp_path: Path) -> None:
    task = make_task(few_digits, tmp_path, backbone="test_resnet")
    one, same, other = (
        build_model(replace(task, split=split)).state_dict()
        for split in (task.split, replace(task.split, fold=2, name="another fold"), replace(task.split, seed=1))
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
