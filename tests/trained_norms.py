"""Batch norms as training leaves them, for tests of networks that were not trained."""

from __future__ import annotations

import torch
from torch import nn


def train_statistics(module: nn.Module, seed: int) -> None:
    """Gives every batch norm within a module means, variances, scales and shifts far from 0, 1, 1 and 0."""
    draw = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.normal_(0, 0.3, generator=draw)
            norm.running_var.uniform_(0.2, 3, generator=draw)
            norm.weight.data.uniform_(0.5, 2, generator=draw)
            norm.bias.data.normal_(0, 0.3, generator=draw)
