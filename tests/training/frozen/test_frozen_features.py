"""The features of frozen backbones are extracted once and gathered by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.fit import TrainingTask
from phoropter.training.frozen.frozen_features import FeatureTable, extract_for_tasks


@pytest.mark.parametrize("cached_views", [None, 2])
def test_rows_are_gathered_from_the_table_of_their_schedule(few_digits: Any, tmp_path: Path, cached_views: int | None) -> None:
    dataset, pixels = few_digits
    recipe: dict[str, Any] = {"preset": "probe", "epochs": 4}
    if cached_views:
        recipe |= {"augment": "hflip", "cached_views": cached_views}
    entry = {"backbone": "test_resnet", "weights": "random", "size": 32, "frozen": True, "recipe": recipe}
    (candidate,) = parse_candidates([entry], PRESETS["scratch"])
    splits = make_splits(dataset, KFold(2, seeds=[0, 1]))
    tasks = [TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), tmp_path) for split in splits]
    extracted = extract_for_tasks(tasks)  # random weights: one set of backbones for each seed
    assert [one.task_indices for one in extracted] == [[0, 1], [2, 3]]
    table = FeatureTable(extracted, tasks)
    rows = np.stack([splits[0].train[:5], splits[2].train[5:10]])
    for epoch in range(3):
        table.load_view(epoch)
        (features,), labels = table.gather_rows(rows)
        for i, one in enumerate(extracted):
            view = one.training_features[epoch % len(one.training_features)]
            np.testing.assert_array_equal(features[i].numpy(), view[0][rows[i]])
            np.testing.assert_array_equal(labels[i].numpy(), dataset.labels[rows[i]])
    assert len(extracted[0].training_features) == (cached_views or 1)
