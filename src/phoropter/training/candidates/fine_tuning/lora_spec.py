"""LoraSpec: low-rank adapters that are trained in the place of a network's weights (no torch)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from phoropter.core.spec import Spec


class LoraSpec(Spec):
    """Low-rank adapters (LoRA, Hu et al. 2021): W x becomes W x + (alpha / rank) · B A x, of which A and B are trained.

    After the training they are added to W, so that the network is one like any other.

    rank:   rows of A, columns of B
    alpha:  weight of the adapters, as a multiple of 1 / rank
    layers: linear layers that have one: attention (query, key, value and projection) · mlp · both
    """

    rank: int = Field(default=8, ge=1, le=1024)
    alpha: float = Field(default=16.0, gt=0)
    layers: Literal["attention", "mlp", "both"] = "attention"
