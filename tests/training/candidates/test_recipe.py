"""Recipes: mistakes are refused in one sentence."""

from __future__ import annotations

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import SourceMap
from phoropter.training.candidates.presets import parse_recipe


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
        ({"tta": "ten-crop"}, "ten-crop needs crop"),
        ({"schedule": {"kind": "one-cycle", "warmup": 0.1}}, "has a warm-up of its own"),
        ({"imbalance": {"n_bags": 3}}, "belong to undersample"),
        ({"imbalance": {"n_bags": 3, "undersample": 2, "resample_each_epoch": True}}, "contradict each other"),
        ({"augment": "cutmux"}, "cutmix"),
        (7, "a preset's name or a mapping"),
    ],
)
def test_a_mistake_is_one_sentence(given: object, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse_recipe(given, None, SourceMap("study.yaml", {(): 1, ("recipe",): 4}), ("recipe",))
    assert "\n" not in str(caught.value) and "study.yaml, line 4" in str(caught.value)
