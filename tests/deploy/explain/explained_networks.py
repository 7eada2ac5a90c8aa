"""Small classifiers and pictures for the tests of explanations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from phoropter.models.classifier import Classifier, build_classifier
from phoropter.models.spec import Backbone, BackboneSpec, ClassifierSpec

CLASSES = ("a", "b", "c")


def make_classifier(*names: str | BackboneSpec, side: int = 64, seed: int = 0, **fields: Any) -> Classifier:
    """A classifier of random networks by their names, or of BackboneSpecs, shown pictures of `side` pixels."""
    backbones = tuple(n if isinstance(n, BackboneSpec) else BackboneSpec(name=n, weights="random", size=side) for n in names)
    return build_classifier(ClassifierSpec(**{"classes": CLASSES, "picture": side, "backbones": backbones, **fields}), seed=seed)


def make_pictures(side: int = 64, count: int = 3, seed: int = 1) -> Tensor:
    """(count, 3, side, side) uint8 of noise with coarse structure."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    fine = torch.rand(count, 3, side, side, generator=generator)
    smooth = nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return ((0.7 * smooth + 0.3 * fine) * 255).byte()


class MapNetwork(nn.Module):
    """(B, 3, s, s) → (B, 16): one map of s / 4 places a side, read at its mean; its map is stored in either order of axes."""

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.output_fmt = "NHWC" if channels_last else "NCHW"

    def forward_features(self, x: Tensor) -> Tensor:
        out = torch.relu(self.second(torch.relu(self.first(x))))
        return out.permute(0, 2, 3, 1) if self.output_fmt == "NHWC" else out

    def forward(self, x: Tensor) -> Tensor:
        out = self.forward_features(x)
        return out.mean((1, 2) if self.output_fmt == "NHWC" else (2, 3)).tanh()


def build_map_network(channels_last: bool) -> MapNetwork:
    return MapNetwork(channels_last)


def map_network_spec(channels_last: bool) -> BackboneSpec:
    mine = Backbone("mine", build=build_map_network, width=16, input_size=64)
    return BackboneSpec(name="mine", custom=mine, weights="built", options={"channels_last": channels_last})
