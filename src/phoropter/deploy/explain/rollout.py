"""Attention rollout: how much of each patch the attention of all blocks together carries to what the answer is read off.

Abnar & Zuidema 2020 (arXiv 2005.00928), section 3: with A_l the attention of block l averaged over its heads, the rollout is the
product of all (A_l + I) / 2, rows adding up to 1; the identity stands for the residual connection. It is the same for every
class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from phoropter.core.errors import SpecError
from phoropter.deploy.explain.feature_tap import reads_class_token
from phoropter.models.backbones import BackboneModule


@contextmanager
def record_attention(backbone: BackboneModule) -> Iterator[list[Tensor]]:
    """Within the block, each forward pass adds the (B, heads, N, N) attention of every block to the list, in order.

    The fused attention of torch never makes these matrices, so it is off meanwhile. Raises SpecError for a network without a
    sequence of blocks that attend to all tokens.
    """
    blocks: Any = getattr(backbone.body, "blocks", None)
    layers = [m for b in blocks if (m := _find_attention(b)) is not None] if blocks is not None else []
    if not layers or len(layers) != len(blocks):
        raise SpecError(
            f"method 'rollout': {backbone.name} is no sequence of blocks that each attend to all tokens, as a ViT is; "
            "choose grad-cam, or auto"
        )
    recorded: list[Tensor] = []
    with ExitStack() as undo:
        for layer in layers:
            if hasattr(layer, "fused_attn"):
                undo.callback(setattr, layer, "fused_attn", layer.fused_attn)
                layer.fused_attn = False
            handle = layer.attn_drop.register_forward_hook(lambda _, given, out: recorded.append(out.detach()))
            undo.callback(handle.remove)
        yield recorded


def compute_rollout(backbone: BackboneModule, attention: list[Tensor]) -> Tensor:
    """Recorded (B, heads, N, N) of every block → (B, h, w), the share of each patch, from 0 to 1.

    Rows: of the class token, of class and distillation token averaged, or of all patches averaged, as the answer is read.
    """
    prefix = int(getattr(backbone.body, "num_prefix_tokens", 0))
    carried = roll_out([a.mean(1) for a in attention])  # (B, N, N)
    side = math.isqrt(carried.shape[1] - prefix)
    if side * side + prefix != carried.shape[1]:
        raise SpecError(f"method 'rollout': {backbone.name} has {carried.shape[1]} tokens, which are no square of patches")
    if reads_class_token(backbone):
        rows = carried[:, : 2 if backbone.pooling == "tokens" else 1].mean(1)
    else:
        rows = carried[:, prefix:].mean(1)
    return rows[:, prefix:].reshape(-1, side, side)


def roll_out(attention: list[Tensor]) -> Tensor:
    """(B, N, N) of every block, from the first → (B, N, N): row i says what token i is made of."""
    product = torch.eye(attention[0].shape[-1]).to(attention[0]).expand_as(attention[0])
    for matrix in attention:
        mixed = matrix / 2 + torch.eye(matrix.shape[-1]).to(matrix) / 2
        product = mixed / mixed.sum(-1, keepdim=True) @ product
    return product


def _find_attention(block: nn.Module) -> Any:
    """The attention layer of a block whose weights pass a dropout layer; None where there is none."""
    layer = getattr(block, "attn", None)
    return layer if isinstance(getattr(layer, "attn_drop", None), nn.Module) else None
