"""What stands on pooled features, and what every head answers with: one interface for a lone head, a fusion and a token student.

A head is called with a tuple of (B, D_i) features, one for each backbone, and returns Outputs.

Letters: B pictures, C classes, D_i width of branch i, H width of the layer before the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phoropter.models.spec import DropoutAt, HeadSpec

Features = tuple[Tensor, ...]


@dataclass(frozen=True)
class Outputs:
    """What a classifier says of B pictures.

    logits: (B, C) float32 · features: (B, H) what the last layer reads (several last layers: side by side)
    branch_logits: (B, C) of each branch of a fusion alone; empty where branches have no heads of their own
    class_logits, token_logits: (B, C) of a token student's two heads, whose mean the logits are; else None
    """

    logits: Tensor
    features: Tensor
    branch_logits: tuple[Tensor, ...] = ()
    class_logits: Tensor | None = None
    token_logits: Tensor | None = None


@dataclass(frozen=True)
class BranchAblation:
    """A branch left out, to see what a fusion owes to it.

    instead: (C,) logits or (D,) features put in its place for every picture; None: zeros, which say nothing. Its mean over the
    training rows keeps the layers behind it where they are at home. An average is taken over the other branches and needs none.
    """

    branch: int
    replacement: Tensor | None = None

    def replace_branch(self, parts: Features) -> Features:
        """The parts with this branch's replaced."""
        kept = list(parts)
        own = parts[self.branch]
        kept[self.branch] = torch.zeros_like(own) if self.replacement is None else self.replacement.to(own).expand_as(own)
        return tuple(kept)


class MlpHead(nn.Module):
    """(B, D) → dense-`hidden` → ReLU → (B, C), or one linear layer where `hidden` is None; dropout before or within."""

    def __init__(self, width: int, classes: int, hidden: int | None, dropout: float, dropout_at: DropoutAt) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.at_input = dropout_at == "input" or hidden is None
        self.hidden = nn.Linear(width, hidden) if hidden else None
        self.last = nn.Linear(hidden or width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """→ (B, C) logits, (B, H) what the last layer reads, before dropout."""
        if self.hidden is None:
            return self.last(self.dropout(x)), x
        h = torch.relu(self.hidden(self.dropout(x) if self.at_input else x))
        return self.last(h if self.at_input else self.dropout(h)), h


def create_head(spec: HeadSpec, width: int, classes: int) -> MlpHead:
    """A new head of the kind `linear` or `dense`."""
    return MlpHead(width, classes, spec.hidden if spec.kind == "dense" else None, spec.dropout, spec.dropout_at)


class PretrainedHead(nn.Module):
    """A network's pretrained last layer, as a head: (B, D) → (B, C)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.last = layer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.last, nn.Conv2d):  # timm writes some classifiers as 1×1 convolutions
            return self.last(x[:, :, None, None]).flatten(1), x
        return self.last(x), x


class SingleHead(nn.Module):
    """One branch, one head."""

    def __init__(self, head: MlpHead | PretrainedHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        if without is not None:
            raise ValueError("a classifier with one backbone has no branch to leave out")
        logits, last = self.head(features[0])
        return Outputs(logits.float(), last)
