"""Dropout masks of batched heads are those of heads trained one by one; which heads may share windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from phoropter.core.seeds import seed_of
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.models.fusion import LogitFusion
from phoropter.models.heads import MlpHead, SingleHead
from phoropter.models.spec import FusionSpec, HeadSpec
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.candidates.recipe import LossSpec
from phoropter.training.fit import TrainingTask, build_model, make_batch_sampler
from phoropter.training.frozen.batch_schedule import SharedSchedule
from phoropter.training.frozen.batched_heads import BatchedDropout, BatchedHeads, can_share_window


def test_dropout_masks_are_drawn_by_seed_and_step(few_digits: Any, tmp_path: Path) -> None:
    dataset, pixels = few_digits
    member = {"weights": "random", "size": 32}
    entry = {
        **{"fuse": [{"name": "test_resnet", **member}, {"name": "test_vit", **member}], "frozen": True, "recipe": "probe"},
        **{"start": "random", "hidden": 12, "dropout": 0.5, "head": {"kind": "dense", "dropout": 0.5}},
    }
    (candidate,) = parse_candidates([entry], PRESETS["scratch"])
    splits = make_splits(dataset, KFold(2, seeds=[0, 1]))
    tasks = [TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), tmp_path) for split in splits]
    schedules = [SharedSchedule([make_batch_sampler(task)], shared=False) for task in tasks]
    drops = BatchedDropout(build_model(tasks[0]).head, schedules, torch.device("cpu"))
    scales = drops.draw_scales(epoch=1, index=2, batch_sizes=[16, 12, 16, 12], window=16)
    assert list(scales) == ["branches.0", "branches.1", "fusing"]
    for scale in scales.values():
        assert set(scale[:, :12].unique().tolist()) == {0.0, 2.0}
        assert not torch.equal(scale[0], scale[2]) and not torch.equal(scale[1], scale[3])
        assert torch.all(scale[[1, 3], 12:] == 0)  # padding
    for other in (drops.draw_scales(2, 2, [16] * 4, 16), drops.draw_scales(1, 3, [16] * 4, 16)):
        assert all(not torch.equal(other[name], scale) for name, scale in scales.items())
    torch.manual_seed(seed_of(1, "step", 1, 2))  # as the loop does for a run alone
    for name, scale in scales.items():
        drawn = torch.nn.functional.dropout(torch.ones(16, scale.shape[2]), 0.5)
        assert torch.equal(scale[2], drawn), name


@pytest.mark.parametrize(
    ("hidden", "dropout", "shared"), [(None, 0.0, True), (64, 0.0, True), (128, 0.0, False), (None, 0.5, False)]
)
def test_narrow_heads_without_dropout_share_windows(hidden: int | None, dropout: float, shared: bool) -> None:
    assert can_share_window(SingleHead(MlpHead(16, 10, hidden, dropout, "input"))) == shared


def test_a_fusion_that_is_not_written_out_is_never_taken_for_another() -> None:
    class GatedFusion(LogitFusion):
        """Of the shapes of a logit fusion, computing something else."""

    gated = GatedFusion([8, 8], 10, HeadSpec(), FusionSpec())
    with pytest.raises(TypeError, match="GatedFusion has no batched form"):
        BatchedHeads([gated], LossSpec(), None)
