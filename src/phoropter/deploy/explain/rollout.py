"""Maps of ViTs from the attention of all their blocks: what each patch carries to what the answer is read off.

Attention rollout (Abnar & Zuidema 2020, arXiv 2005.00928, section 3): with A the attention of a block averaged over its heads,
the product of all (A + I) / 2, rows adding up to 1; the identity stands for the residual connection. The same for every class.

Gradient rollout (Chefer, Gur & Wolf 2021, arXiv 2103.15679, equations 5 and 6, for self-attention): A is the mean over the heads
of the positive part of attention × the gradient of the class's logit, and R grows by A R from block to block, from the identity,
which is taken off in the end.

    B pictures    N tokens, those before the patches included    h, w places
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from phoropter.core.errors import SpecError
from phoropter.deploy.explain.feature_tap import reads_class_token
from phoropter.models.backbones import BackboneModule

# timm's classes of attention between all tokens whose weights pass `attn_drop`; others have one that mixes channels or heads.
_ATTENDS_TO_ALL = ("Attention", "AttentionRope", "EvaAttention", "RelPosAttention")


@contextmanager
def record_attention(backbone: BackboneModule) -> Iterator[list[Tensor]]:
    """Within the block, each forward pass adds the (B, heads, N, N) attention of every block to the list, in order.

    Gradients reach all of them where gradients are computed. The fused attention of torch never makes these matrices, so it is
    off meanwhile. Raises SpecError for a network that is no sequence of blocks that attend to all tokens.
    """
    layers = find_attention_layers(backbone)
    if not layers:
        raise SpecError(
            f"method rollout: {backbone.name} is no sequence of blocks that each attend to all tokens, as a ViT is; "
            "choose grad-cam, or auto"
        )
    recorded: list[Tensor] = []

    def keep(_: nn.Module, given: Any, out: Tensor) -> Tensor:
        kept = out if out.requires_grad or not torch.is_grad_enabled() else out.detach().requires_grad_()
        recorded.append(kept)
        return kept

    with ExitStack() as undo:
        for layer in layers:
            if hasattr(layer, "fused_attn"):
                undo.callback(setattr, layer, "fused_attn", layer.fused_attn)
                layer.fused_attn = False
            undo.callback(layer.attn_drop.register_forward_hook(keep).remove)
        yield recorded


def find_attention_layers(backbone: BackboneModule) -> list[Any]:
    """The attention of each block of a ViT, in order; empty where some block does not attend from all tokens to all."""
    blocks: Any = getattr(backbone.body, "blocks", None)
    if blocks is None or not hasattr(backbone.body, "num_prefix_tokens"):
        return []
    layers: list[Any] = [getattr(block, "attn", None) for block in blocks]
    complete = all(type(x).__name__ in _ATTENDS_TO_ALL and isinstance(x.attn_drop, nn.Module) for x in layers)
    return layers if complete else []


def compute_rollout(backbone: BackboneModule, attention: Sequence[Tensor], score: Tensor | None = None) -> Tensor:
    """Recorded (B, heads, N, N) of every block → (B, h, w), not negative.

    score: sum of the logits that are explained, for gradient rollout; None: attention rollout
    Rows: of the class token, of class and distillation token averaged, or of all patches averaged, as the answer is read.
    Raises SpecError for attention that is not between all tokens, or not between a square of patches.
    """
    count, prefix = attention[0].shape[-1] if attention else 0, int(getattr(backbone.body, "num_prefix_tokens", 0))
    side = math.isqrt(max(count - prefix, 0))
    if side * side + prefix != count or any(a.shape[-2:] != (count, count) for a in attention):
        raise SpecError(
            f"method rollout: {backbone.name} does not attend from each token of a square of patches to all; choose grad-cam"
        )
    if score is None:
        carried = roll_out([a.detach().mean(1) for a in attention])
    else:
        gradients = torch.autograd.grad(score, list(attention), retain_graph=True)
        carried = roll_out_gradients([a.detach() for a in attention], gradients)
    if reads_class_token(backbone):
        rows = carried[:, : 2 if backbone.pooling == "tokens" else 1].mean(1)
    else:
        rows = carried[:, prefix:].mean(1)
    return rows[:, prefix:].reshape(-1, side, side)


def roll_out(attention: Sequence[Tensor]) -> Tensor:
    """(B, N, N) of every block, from the first → (B, N, N): row i says what token i is made of."""
    identity = torch.eye(attention[0].shape[-1]).to(attention[0])
    product = identity.expand_as(attention[0])
    for matrix in attention:
        mixed = (matrix + identity) / 2
        product = mixed / mixed.sum(-1, keepdim=True) @ product
    return product


def roll_out_gradients(attention: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """(B, heads, N, N) of every block, and the gradient of each → (B, N, N), not negative: what each token gives to token i."""
    identity = torch.eye(attention[0].shape[-1]).to(attention[0])
    relevance = identity.expand_as(attention[0][:, 0])
    for matrix, gradient in zip(attention, gradients, strict=True):
        relevance = relevance + (matrix * gradient).relu().mean(1) @ relevance
    return relevance - identity
