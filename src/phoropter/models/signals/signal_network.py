"""SignalNetwork: a small residual network on the samples of a window, of one dimension (baseline `signal-1d`).

After the ResNet of Wang, Yan & Oates 2017 (arXiv 1611.06455): three blocks of three convolutions, a mean over time, one linear
layer. Their kernels of 8, 5 and 3 samples are 7, 5 and 3 here, which keep a window centred; their widths of 64, 128 and 128 are
24, 48 and 64, and a stem and strides shorten the window by 32, so that about 100,000 parameters see some seconds of a heart and
train on hundreds of windows in seconds.

Letters: B windows, K channels, T samples, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from phoropter.models.classifier import TrainablePart

WIDTHS = (24, 48, 64)


class SignalNetwork(nn.Module):
    """(B, K, T) standardised samples → (B, C) logits. Its weights depend on the seed alone."""

    def __init__(self, n_channels: int, n_classes: int, *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            stem = [_make_convolution(n_channels, WIDTHS[0], 7, stride=2), nn.ReLU(), nn.MaxPool2d((1, 2), ceil_mode=True)]
            blocks = [_ResidualBlock(a, b) for a, b in zip((WIDTHS[0], *WIDTHS[:-1]), WIDTHS, strict=True)]
            self.body = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(WIDTHS[-1], n_classes)
        # Two dimensions of which one is 1, channels last: a third less time than one-dimensional convolutions on a CPU
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, samples: Tensor) -> Tensor:
        rows = samples.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.head(self.body(rows))
        return logits

    def head_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of the linear layer."""
        return self.head.named_parameters(prefix="head")

    def backbone_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of the convolutions and norms."""
        return self.body.named_parameters(prefix="body")

    def uses_weight_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay applies: not to biases and norms."""
        return parameter.ndim > 1

    def freeze(self, part: TrainablePart) -> None:
        """Nothing is frozen: the recipes of this network train all of it (training/candidates/table_spec.py)."""
        assert part == "all"


class _ResidualBlock(nn.Module):
    """(B, a, 1, T) → (B, b, 1, T / 2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            _make_convolution(inputs, outputs, 7, stride=2),
            nn.ReLU(),
            _make_convolution(outputs, outputs, 5),
            nn.ReLU(),
            _make_convolution(outputs, outputs, 3),
        )
        self.shortcut = _make_convolution(inputs, outputs, 1, stride=2)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.relu(self.convolutions(rows) + self.shortcut(rows))


def _make_convolution(inputs: int, outputs: int, width: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, (1, width), (1, stride), (0, width // 2), bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
