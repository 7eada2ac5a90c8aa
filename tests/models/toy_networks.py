"""Custom networks for the tests of ph.Backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 16


class ToyNetwork(nn.Module):
    """(B, 3, s, s) → (B, 16, 4, 4) map for any side s from 8 on; `flat` returns its mean over places, (B, 16)."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTH, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.flat = flat

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(torch.relu(self.norm(self.conv(x))))
        return out.mean((2, 3)) if self.flat else out


def build_toy(flat: bool = False) -> ToyNetwork:
    return ToyNetwork(flat)


def build_wide() -> nn.Module:
    """(B, 3, s, s) → (B, 192): the image at 8 × 8 pixels."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten())
