"""Folded batch norms: the same features up to rounding, the original as it was, and left alone where folding would be wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phoropter.models.backbones import BackboneModule, build_backbone
from phoropter.models.catalog import BuildRecord, Preprocessing
from phoropter.models.classifier import build_classifier
from phoropter.models.inference.folded_norms import fold_batch_norms, fold_norms
from phoropter.models.spec import BackboneSpec, ClassifierSpec
from trained_norms import train_statistics

PREPROCESSING = Preprocessing(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def count_norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())


def images(side: int) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "test_byobnet", "mobilenetv3_small_050", "tf_mobilenetv3_small_075"]
)
def test_features_are_as_near_to_those_of_double_precision_as_before(name: str) -> None:
    """Which is computed by the network itself, unfolded, in float64."""
    backbone = build_backbone(BackboneSpec(name=name, weights="random", size=64), seed=0)
    train_statistics(backbone, seed=1)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with torch.inference_mode():
        plain = backbone(images(64))
    folded = fold_batch_norms(backbone)
    assert folded is not backbone and count_norms(backbone) > 4 and count_norms(folded) == 0
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(backbone(images(64)), plain), "the original is as it was"
        came = folded(images(64)).double()
        truth = backbone.double()(images(64).double())
    largest = truth.abs().max()
    assert (came - truth).abs().max() < 1e-5 * largest and (plain - truth).abs().max() < 1e-5 * largest
    assert not torch.equal(came, plain.double()), "or nothing was folded"


class Body(nn.Module):
    """A convolution, its norm, and a way around the norm where `forward` takes one."""

    def __init__(self, convolution: type[nn.Conv2d] = nn.Conv2d, way: str = "plain") -> None:
        super().__init__()
        self.conv, self.bn, self.way = convolution(3, 3, 3, padding=1), nn.BatchNorm2d(3), way

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(x)
        x = self.bn(made)
        if self.way == "around":
            x = x + made
        if self.way == "twice":
            x = self.bn(self.conv(x))
        return x.mean((2, 3))


class Standardised(nn.Conv2d):
    """Its output is not linear in its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


def by_hand(body: nn.Module) -> BackboneModule:
    backbone = BackboneModule("by-hand", body, BuildRecord(PREPROCESSING, 0, {}), "pooled")
    train_statistics(backbone, seed=1)
    return backbone.eval()


@pytest.mark.parametrize(
    "body", [Body(way="around"), Body(way="twice"), Body(Standardised)], ids=["around", "twice", "standardised"]
)
def test_what_cannot_be_folded_is_left_as_it_is(body: nn.Module) -> None:
    backbone = by_hand(body)
    assert fold_batch_norms(backbone) is backbone
    assert not backbone.body.conv._forward_hooks and not backbone.body.bn._forward_pre_hooks


def test_a_norm_without_scale_and_a_convolution_without_bias_fold_too() -> None:
    body: Any = Body()
    body.conv, body.bn = nn.Conv2d(3, 3, 3, bias=False), nn.BatchNorm2d(3, affine=False)
    backbone = BackboneModule("by-hand", body, BuildRecord(PREPROCESSING, 0, {}), "pooled").eval()
    body.bn.running_mean += 0.4
    body.bn.running_var *= 2.5
    folded = fold_batch_norms(backbone)
    assert count_norms(folded) == 0
    with torch.no_grad():
        torch.testing.assert_close(folded(images(16)), backbone(images(16)))


def test_a_classifier_shares_its_head_and_every_other_tensor() -> None:
    names = ("test_resnet", "test_vit", "test_efficientnet")
    spec = ClassifierSpec.model_validate(
        {
            "backbones": [{"name": name, "weights": "random", "size": 32} for name in names],
            "classes": ("a", "b"),
            "picture": 32,
            "fusion": {"mode": "concat"},
        }
    )
    model = build_classifier(spec, seed=0)
    one = fold_norms(model, only=1)
    assert one is model, "a ViT has no batch norm"
    folded = fold_norms(model)
    assert folded.head is model.head and folded.branches[1] is model.branches[1] and not folded.training
    last = folded.branches[0].body.conv1  # folded, and its neighbours are not copies
    assert last is not model.branches[0].body.conv1
    kept = {tensor.data_ptr() for tensor in model.parameters()}
    copied = [name for name, tensor in folded.branches[2].named_parameters() if tensor.data_ptr() not in kept]
    assert copied and all(name.split(".")[-2].startswith("conv") for name in copied)
    squares = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(folded(squares), model(squares), rtol=1e-5, atol=1e-5)
