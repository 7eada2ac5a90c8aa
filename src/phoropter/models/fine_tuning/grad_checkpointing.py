"""Gradient checkpointing: activations within a block are not kept but computed again in the backward pass (Chen et al. 2016).

timm's networks do it block by block. Their batch norms would then see each batch twice and count it twice into their running
statistics, so these are recorded in the first pass alone: weights, statistics and gradients are those of plain training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from phoropter.core.errors import SpecError
from phoropter.models.backbones import BackboneModule


class GradCheckpointing:
    """The backbones of a classifier while their activations are computed again; `end` makes them as they were."""

    def __init__(self, branches: Sequence[BackboneModule]) -> None:
        """Raises SpecError for a network that cannot."""
        self.branches = branches
        for backbone in branches:
            _set_checkpointing(backbone, True)
        self._is_recording = False
        self._aside: dict[nn.Module, dict[str, Tensor]] = {}  # norm → its statistics while it computes a batch again
        self._hooks: list[RemovableHandle] = []
        for norm in (m for b in branches for m in b.body.modules() if isinstance(m, _BatchNorm)):
            self._hooks.append(norm.register_forward_pre_hook(self._lend_copies))
            # Always: torch leaves the second pass by an exception as soon as it has what it needs
            self._hooks.append(norm.register_forward_hook(self._take_back, always_call=True))

    @contextmanager
    def record_statistics(self) -> Iterator[None]:
        """Around a forward pass: its batch norms record their statistics, which they do not outside it."""
        self._is_recording = True
        try:
            yield
        finally:
            self._is_recording = False

    def end(self) -> None:
        """Lets the networks keep their activations again."""
        for hook in self._hooks:
            hook.remove()
        for backbone in self.branches:
            _set_checkpointing(backbone, False)

    def _lend_copies(self, norm: nn.Module, inputs: Any) -> None:
        if self._is_recording or not norm.training:
            return
        self._aside[norm] = dict(norm.named_buffers(recurse=False))
        for name, statistic in self._aside[norm].items():
            setattr(norm, name, statistic.clone())

    def _take_back(self, norm: nn.Module, inputs: Any, output: Any) -> None:
        for name, statistic in self._aside.pop(norm, {}).items():
            setattr(norm, name, statistic)


def _set_checkpointing(backbone: BackboneModule, on: bool) -> None:
    body: Any = backbone.body
    try:
        body.set_grad_checkpointing(on)
    except (AttributeError, AssertionError):
        if on:
            raise SpecError(
                f"grad_checkpointing: backbone '{backbone.name}' cannot compute activations again in the backward pass; leave it "
                "out, or lower batch_size"
            ) from None
