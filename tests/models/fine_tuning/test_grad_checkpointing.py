"""Activations computed again: the gradients, statistics and weights of plain training, to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from phoropter.core.errors import SpecError
from phoropter.models.backbones import BackboneModule, build_backbone
from phoropter.models.fine_tuning.grad_checkpointing import GradCheckpointing
from phoropter.models.spec import BackboneSpec

torch.set_num_threads(1)


def build(name: str) -> BackboneModule:
    options = {"drop_path_rate": 0.3}
    return build_backbone(BackboneSpec(name=name, weights="random", size=64, options=options), seed=0)


def step_once(backbone: BackboneModule, checkpointing: GradCheckpointing | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients and buffers after a pass forward and backward."""
    backbone.train()
    torch.manual_seed(3)
    x = torch.randn(4, 3, 64, 64)
    if checkpointing is None:
        features = backbone(x)
    else:
        with checkpointing.record_statistics():
            features = backbone(x)
    features.square().sum().backward()
    return {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}, dict(backbone.named_buffers())


@pytest.mark.parametrize(
    ("name", "block"), [("test_resnet", "layer2.0"), ("test_efficientnet", "blocks.1.0"), ("test_vit", "blocks.1")]
)
def test_gradients_and_statistics_are_those_of_plain_training(name: str, block: str) -> None:
    plain, again = build(name), build(name)
    expected = step_once(plain, None)
    checkpointing = GradCheckpointing([again])
    calls: list[int] = []
    again.body.get_submodule(block).register_forward_pre_hook(lambda *_: calls.append(1))
    came = step_once(again, checkpointing)
    assert len(calls) == 2  # forward, and again in the backward pass
    for one, other in zip(expected, came, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value, other[key]), key


def test_after_its_end_norms_record_and_activations_are_kept() -> None:
    backbone = build("test_resnet")
    checkpointing = GradCheckpointing([backbone])
    step_once(backbone, checkpointing)
    checkpointing.end()
    assert not backbone.body.grad_checkpointing
    before = backbone.body.bn1.running_mean.clone()
    backbone(torch.randn(4, 3, 64, 64))
    assert not torch.equal(before, backbone.body.bn1.running_mean)


def test_a_network_that_cannot_is_refused() -> None:
    aggregated = build_backbone(BackboneSpec(name="dla46x_c", weights="random", size=64), seed=0)
    with pytest.raises(SpecError, match="grad_checkpointing: backbone 'dla46x_c' cannot compute activations again"):
        GradCheckpointing([aggregated])
