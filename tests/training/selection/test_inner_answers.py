"""Answers for the rows of a training part, by fits that had not seen them; nothing of the test part reaches them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.core.errors import SplitError
from phoropter.data.dataset import Dataset
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.sources.folder import open_folder
from phoropter.data.splits.inner_splits import make_inner_splits
from phoropter.data.splits.protocol import Split
from phoropter.results.metrics.probabilities import softmax
from phoropter.study.compute import drive_training
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.fit import TrainedRun, TrainingTask
from phoropter.training.selection.inner_answers import load_or_answer
from small_pictures import draw_dark_and_light

NET = {"backbone": "test_resnet", "weights": "random"}
KINDS: dict[str, dict[str, Any]] = {
    "solved": {**NET, "frozen": True, "recipe": "logistic"},
    "trained": {**NET, "recipe": {"preset": "scratch", "epochs": 1, "batch_size": 8}},
}


def train(task: TrainingTask) -> TrainedRun:
    return drive_training(task, "", lambda event: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dark_and_light(tmp_path_factory.mktemp("inner") / "pictures", 12, greys=(60, 90), noise=120)


def make_task(folder: Path, kind: str) -> TrainingTask:
    dataset = open_folder(folder)
    _, pixels = prepare_pixels(dataset, 32, cache=folder.parent / "cache")
    split = Split(0, 0, 0, 3, "fold 1 of 3", np.arange(0, 24, 3), np.arange(1, 24, 3))
    split = replace(split, train=np.sort(np.concatenate([split.train, split.test + 1])))
    candidate = parse_candidates([KINDS[kind]], parse_recipe("finetune"))[0]
    return TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), folder.parent / "cache")


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_is_answered_by_a_fit_without_it(folder: Path, tmp_path: Path, kind: str) -> None:
    task = make_task(folder, kind)
    found = load_or_answer(tmp_path / "a.npz", task, train)
    by_hand = np.full(len(task.dataset), np.nan)
    for inner in make_inner_splits(task.dataset, task.split, 3):
        assert not set(inner.train) & set(inner.test) and set(inner.train) | set(inner.test) == set(task.split.train)
        logits = train(replace(task, split=inner)).predict_held_out(inner.test)[0]
        by_hand[inner.test] = softmax(logits)[np.arange(len(logits)), task.dataset.labels[inner.test]]
    assert found.truth == pytest.approx(by_hand[task.split.train], abs=2e-3)  # heads that are solved to a tolerance
    assert found.seconds > 0


@pytest.mark.parametrize("kind", KINDS)
def test_labels_planted_in_the_test_part_change_nothing(folder: Path, tmp_path: Path, kind: str) -> None:
    task = make_task(folder, kind)
    labels = task.dataset.labels.copy()
    labels[task.split.test] = 1 - labels[task.split.test]
    planted = replace(task, dataset=replace(task.dataset, labels=labels))
    found, other = (load_or_answer(tmp_path / f"{i}.npz", t, train) for i, t in enumerate((task, planted)))
    assert np.array_equal(found.truth, other.truth)


def test_stored_answers_are_read_and_damaged_ones_made_again(folder: Path, tmp_path: Path) -> None:
    task, file = make_task(folder, "solved"), tmp_path / "a.npz"
    first = load_or_answer(file, task, train)
    np.savez(file, truth=first.truth / 2, seconds=1.0)
    assert np.array_equal(load_or_answer(file, task, train).truth, first.truth / 2)
    file.write_bytes(file.read_bytes()[:-60])
    assert np.array_equal(load_or_answer(file, task, train).truth, first.truth)


def test_rows_of_one_group_have_no_inner_folds(folder: Path, tmp_path: Path) -> None:
    task = make_task(folder, "solved")
    groups = np.where(np.isin(np.arange(len(task.dataset)), task.split.test), "tested", "trained")
    alone: Dataset = replace(task.dataset, groups=groups)
    with pytest.raises(
        SplitError, match=r"^mode: select: the training part of fold 1 of 3 cannot be divided into two inner folds"
    ):
        load_or_answer(tmp_path / "a.npz", replace(task, dataset=alone), train)
