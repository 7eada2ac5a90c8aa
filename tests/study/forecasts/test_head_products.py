from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from phoropter.models.fusion import FUSION_MODES
from phoropter.models.heads import create_head
from phoropter.study.forecasts.head_products import count_head_products
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS


@pytest.mark.parametrize(
    "entry",
    [
        {"backbone": "test_vit"},
        {"backbone": "test_vit", "head": {"kind": "dense", "hidden": 7}},
        {"fuse": ["test_vit", "test_resnet"], "mode": "concat"},
        {"fuse": ["test_vit", "test_resnet"], "mode": "concat", "hidden": 5, "aux_loss_weight": 0.3},
        {"fuse": ["test_vit", "test_resnet"], "mode": "logits"},
        {"fuse": ["test_vit", "test_resnet"], "mode": "logits", "hidden": 6, "head": {"kind": "dense", "hidden": 3}},
    ],
)
def test_products_are_the_weights_of_the_layers_that_are_built(entry: dict[str, Any]) -> None:
    (candidate,) = parse_candidates([{**entry, "frozen": True}], PRESETS["probe"])
    widths = [64, 96][: len(candidate.backbones)]
    if candidate.fusion is None:
        built: nn.Module = create_head(candidate.head, widths[0], 4)
    else:
        built = FUSION_MODES[candidate.fusion.mode](widths, 4, candidate.head, candidate.fusion)
    weights = sum(layer.weight.numel() for layer in built.modules() if isinstance(layer, nn.Linear))
    assert count_head_products(candidate, widths, 4) == weights
