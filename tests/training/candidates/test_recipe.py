"""Recipes: mistakes are refused in one sentence."""

from __future__ import annotations

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import SourceMap
from phoropter.training.candidates.presets import PRESETS, parse_recipe


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("finetun", r"line 4: unknown recipe 'finetun'; did you mean 'finetune'\?"),
        ({"preset": "nope"}, "unknown recipe 'nope'"),
        ({"batchsize": 3}, "unknown key 'batchsize' in recipe"),
        ({"epochs": 3, "phases": [{"epochs": 1, "lr": 1}]}, "epochs and phases contradict each other"),
        ({"preset": "as-is", "epochs": 3}, "trains nothing"),
        ({"preset": "head-then-all", "epochs": 1}, "at least 2"),
        ({"lr": float("nan")}, "lr is nan, expected a positive number"),
        ({"lr": -1}, "expected a positive number"),
        ({"tta": "ten-crop"}, "ten-crop needs center_crop"),
        ({"schedule": {"kind": "one-cycle", "warmup": 0.1}}, "has a warm-up of its own"),
        ({"imbalance": {"n_bags": 3}}, "belong to undersample"),
        ({"imbalance": {"n_bags": 3, "undersample": 2, "resample_each_epoch": True}}, "contradict each other"),
        ({"augment": "cutmux"}, "cutmix"),
        (7, "a preset's name or a mapping"),
        ({"optimizer": {"momentum": 0.5}}, "momentum belongs to optimizer sgd and has no effect on optimizer adamw; leave"),
        ({"optimizer": {"kind": "adam", "nesterov": True}}, "nesterov belongs to optimizer sgd and has no effect on"),
        ({"optimizer": {"kind": "sgd", "betas": [0.5, 0.9]}}, "betas belongs to optimizer adam or adamw and has no effect on"),
        ({"preset": "cnn-distil", "optimizer": {"betas": [0.5, 0.9]}}, "leave betas out, or choose optimizer adam"),
        ({"optimizer": {"kind": "sgd", "momentum": 0, "nesterov": True}}, "nesterov: true looks ahead along the momentum"),
        ({"schedule": {"kind": "constant", "step_size": 2}}, "step_size belongs to schedule step and has no effect on schedule"),
        ({"schedule": {"gamma": 0.5}}, "gamma belongs to schedule step and has no effect on schedule cosine"),
        ({"schedule": {"kind": "step", "min_lr_ratio": 0.1}}, "min_lr_ratio belongs to schedule cosine"),
        ({"schedule": {"pct_start": 0.1}}, "pct_start belongs to schedule one-cycle"),
        ({"loss": {"gamma": 1}}, "gamma belongs to loss focal and has no effect on loss cross-entropy; leave gamma out"),
    ],
)
def test_a_mistake_is_one_sentence(given: object, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse_recipe(given, None, SourceMap("study.yaml", {(): 1, ("recipe",): 4}), ("recipe",))
    assert "\n" not in str(caught.value) and "study.yaml, line 4" in str(caught.value)


def test_another_kind_leaves_the_options_of_a_preset_behind() -> None:
    sgd = parse_recipe({"preset": "cnn-distil", "optimizer": {"momentum": 0.5, "nesterov": True}})
    assert (sgd.optimizer.kind, sgd.optimizer.momentum, sgd.optimizer.nesterov) == ("sgd", 0.5, True)
    for written in ("adamw", {"kind": "adamw", "betas": (0.5, 0.9)}):
        assert parse_recipe({"optimizer": written}, sgd).optimizer.kind == "adamw"
    assert parse_recipe({"schedule": "constant"}, PRESETS["resnet-two-phase"]).schedule.step_size == 5
    focal = parse_recipe({"loss": {"kind": "focal", "gamma": 1}})
    assert parse_recipe({"loss": "cross-entropy"}, focal).loss == PRESETS["finetune"].loss
