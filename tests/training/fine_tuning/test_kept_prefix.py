"""The frozen part of a network whose last blocks are trained: kept, it trains as the plain path does, and is computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_adapted_network import task_of, train

from phoropter.models.fine_tuning.last_blocks import SplitBackbone
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.fine_tuning import kept_prefix
from phoropter.training.fine_tuning.kept_prefix import can_keep_prefix
from phoropter.training.fit import TrainedRun, build_model, predict_rows

torch.set_num_threads(1)
LAST = {"phases": [{"train": "head", "epochs": 1, "lr": 1e-2}, {"train": "last-2", "epochs": 2, "lr": 1e-2}]}
VIEWS = {"augment": [{"random-crop": {"padding": 2}}, "hflip"], "cached_views": 2}


def train_plain(digits: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any], **entry: Any) -> TrainedRun:
    """As trained without keeping anything: the frozen part is computed in every epoch."""
    with monkeypatch.context() as patch:
        patch.setattr(kept_prefix, "MAX_KEPT_BYTES", 0)
        return train(task_of(digits, cache, recipe, **entry))


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet", "test_efficientnet"])
def test_from_what_was_kept_it_trains_as_from_pictures(
    few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    kept = train(task_of(few_digits, tmp_path, LAST, backbone))
    plain = train_plain(few_digits, tmp_path, monkeypatch, LAST, backbone=backbone)
    assert len(kept.learnt_features) == 1 and plain.learnt_features == ()
    for one, other in zip(kept.history, plain.history, strict=True):
        assert one["phase"] == other["phase"] and one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
    rows = kept.task.split.test
    np.testing.assert_allclose(predict_rows(kept, rows)[0], predict_rows(plain, rows)[0], atol=5e-3)
    before, after = build_model(kept.task).state_dict(), kept.model.state_dict()
    frozen = {n for n, p in kept.model.named_parameters() if not p.requires_grad}
    assert frozen and all(torch.equal(before[n], after[n]) for n in frozen)
    assert any(not torch.equal(before[n], after[n]) for n, _ in kept.model.backbone_parameters())


def test_cached_views_are_shown_in_turn(few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many views as epochs, each epoch shows what the plain training of that epoch shows."""
    recipe = {"phases": [{"train": "last-1", "epochs": 2, "lr": 1e-2}], **VIEWS}
    kept = train(task_of(few_digits, tmp_path, recipe))
    assert len(kept.learnt_features) == 2 and not np.array_equal(kept.learnt_features[0][0], kept.learnt_features[1][0])
    plain = train(task_of(few_digits, tmp_path, {"phases": recipe["phases"], "augment": VIEWS["augment"]}))
    assert plain.learnt_features == ()
    assert [row["train_loss"] for row in kept.history] == pytest.approx([row["train_loss"] for row in plain.history], rel=1e-3)


def test_each_picture_goes_through_the_frozen_part_once(few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every branch of a fusion, and by the next run not again."""
    shown: list[int] = []
    forward = SplitBackbone.forward_frozen

    def counting(self: SplitBackbone, x: torch.Tensor) -> torch.Tensor:
        shown.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(SplitBackbone, "forward_frozen", counting)
    fused = {"backbone": None, "weights": None, "size": None}
    members = [{"backbone": n, "weights": "random", "size": 32} for n in ("test_vit", "test_resnet")]
    for _ in range(2):
        run = train(task_of(few_digits, tmp_path, LAST, **fused, fuse=members))
    assert len(run.learnt_features[0]) == 2 and [len(a) for a in run.learnt_features[0]] == [150, 150]
    trials = 2 * 2 * 2  # of each run and branch: two pictures of noise to compare
    assert sum(shown) == 2 * 150 + trials


def test_when_the_frozen_part_is_kept() -> None:
    def can(**changes: Any) -> bool:
        return can_keep_prefix(parse_recipe({**LAST, "preset": "scratch", **changes}))

    assert can() and can(**VIEWS)
    assert not can(augment="hflip") and not can(compile=True) and not can(grad_checkpointing=True)
    assert not can(phases=[{"train": "last-2", "epochs": 1, "lr": 1e-3}, {"train": "all", "epochs": 1, "lr": 1e-3}])


def test_networks_whose_parts_are_not_one_behind_the_other_are_trained_from_pictures(few_digits: Any, tmp_path: Path) -> None:
    run = train(task_of(few_digits, tmp_path, {"phases": [{"train": "last-1", "epochs": 1, "lr": 1e-3}]}, "densenet121"))
    assert run.learnt_features == ()


def test_a_run_that_finds_the_frozen_part_ends_as_the_one_that_computed_it(few_digits: Any, tmp_path: Path) -> None:
    """To the last bit, in either memory layout."""
    for interleaved in (True, False):
        recipe = {"phases": [{"train": "last-1", "epochs": 1, "lr": 1e-2}], "channels_last": interleaved}
        first, second = (train(task_of(few_digits, tmp_path / str(interleaved), recipe, "test_efficientnet")) for _ in range(2))
        for (name, value), other in zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True):
            assert torch.equal(value, other), name
