"""Low-rank adapters beside the linear layers of a network (LoRA, Hu et al. 2021, arXiv 2106.09685).

A layer keeps its weight and bias under timm's names; an adapter adds the parameters `lora_a` (r, I) and `lora_b` (O, r) to it and
its answer (alpha / r) · B A x to the layer's. `merge` adds the product to the weight and takes the parameters away, so that what
is stored, exported and explained is an ordinary network.

Left out: convolutions, and dropout before the adapter.

Letters: r rank, I inputs and O outputs of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phoropter.core.errors import SpecError
from phoropter.models.backbones import BackboneModule, seeded_rng

_PARTS = {"attention": ("attn",), "mlp": ("mlp",), "both": ("attn", "mlp")}  # beginnings of timm's names of the modules
_ALL_PARTS = _PARTS["both"]


class LoraAdapter:
    """The adapter of one layer. B begins at 0, so that the network begins as it was."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        self.layer, self.scale, self.was_called = layer, alpha / rank, False
        drawn = nn.init.kaiming_uniform_(torch.empty(rank, layer.in_features), a=math.sqrt(5))  # on the CPU, whatever the device
        layer.lora_a = nn.Parameter(drawn.to(layer.weight.device))
        layer.lora_b = nn.Parameter(torch.zeros(layer.out_features, rank, device=layer.weight.device))
        self._hook = layer.register_forward_hook(self._add_answer)

    @property
    def parameter_count(self) -> int:
        """Numbers in A and B."""
        return sum(p.numel() for p in list_adapter_parameters(self.layer))

    def _add_answer(self, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self.was_called = True
        return output + self.scale * F.linear(F.linear(inputs[0], layer.lora_a), layer.lora_b)

    @torch.no_grad()
    def merge(self) -> None:
        """Adds the adapter to the weight and removes it."""
        layer: Any = self.layer
        layer.weight += self.scale * (layer.lora_b @ layer.lora_a)
        self._hook.remove()
        del layer.lora_a, layer.lora_b


def attach_adapters(backbone: BackboneModule, rank: int, alpha: float, part: str, seed: int) -> list[LoraAdapter]:
    """An adapter for each linear layer of a part (attention, mlp, both) of a backbone, initialised from the seed.

    rank, alpha: of each: r, and the weight of its answer as a multiple of 1 / r
    One picture is shown to the network, since a layer whose weight is read without calling it has no use for an adapter.
    Raises SpecError where there is no such layer, or where one is not called.
    """
    layers = _find_linear_layers(backbone.body, _PARTS[part])
    if not layers:
        kinds = "attention or mlp" if part == "both" else part
        raise SpecError(
            f"lora: backbone '{backbone.name}' has no linear layer in a module of {kinds}, as vision transformers have; choose "
            "other layers, or leave lora out"
        )
    with seeded_rng(seed):
        adapters = {name: LoraAdapter(layer, rank, alpha) for name, layer in layers.items()}
    backbone.eval()
    with torch.no_grad():
        backbone(torch.zeros(1, 3, backbone.side, backbone.side, device=backbone.scale.device))
    for name, adapter in adapters.items():
        if not adapter.was_called:
            raise SpecError(
                f"lora: backbone '{backbone.name}' reads the weight of {name} without calling the layer, so that it can have no "
                "adapter; choose other layers, or leave lora out"
            )
    return list(adapters.values())


def _find_linear_layers(body: nn.Module, parts: Sequence[str]) -> dict[str, nn.Linear]:
    """Name → linear layer of these parts. `blocks.0.attn_block.mlp.fc1` is one of the mlp, the innermost part that is named."""

    def is_wanted(name: str) -> bool:
        inner = (part for word in reversed(name.split(".")[:-1]) for part in _ALL_PARTS if word.startswith(part))
        return next(inner, None) in parts

    return {name: module for name, module in body.named_modules() if type(module) is nn.Linear and is_wanted(name)}


def list_adapter_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of the adapters within a module."""
    return [p for name, p in module.named_parameters() if name.rpartition(".")[2] in ("lora_a", "lora_b")]
