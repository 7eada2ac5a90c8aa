"""Classification heads on pooled features, with one interface for single heads, fusions and distilled ViTs.

A head is called with a tuple of (B, D_i) features, one per backbone, and returns Outputs.

Letters: B images, C classes, D_i width of branch i, H width of the layer before the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phoropter.models.spec import DropoutAt, HeadSpec

Features = tuple[Tensor, ...]


@dataclass(frozen=True)
class Outputs:
    """The outputs of a classifier for B images.

    logits: (B, C) float32 · features: (B, H) input of the last layer (of several last layers: concatenated)
    branch_logits: (B, C) of each branch of a fusion by itself; empty where branches have no heads
    class_logits, token_logits: (B, C) of the two heads of a token student, whose mean is `logits`; else None
    """

    logits: Tensor
    features: Tensor
    branch_logits: tuple[Tensor, ...] = ()
    class_logits: Tensor | None = None
    token_logits: Tensor | None = None


@dataclass(frozen=True)
class BranchAblation:
    """Ablates one branch of a fusion, to measure its contribution.

    branch: its index · replacement: (C,) logits or (D,) features that replace it for every image; None: zeros. Use its mean over
    the training rows to keep downstream activations in distribution. An ensemble averages the other branches and needs none.
    """

    branch: int
    replacement: Tensor | None = None

    def replace_branch(self, parts: Features) -> Features:
        """A copy of `parts` (logits or features, one per branch) with the ablated branch replaced."""
        ablated, part = list(parts), parts[self.branch]
        ablated[self.branch] = torch.zeros_like(part) if self.replacement is None else self.replacement.to(part).expand_as(part)
        return tuple(ablated)


class MlpHead(nn.Module):
    """(B, D) → dense-`hidden` → ReLU → (B, C), or one linear layer if `hidden` is None; dropout on the input or the ReLU."""

    def __init__(self, width: int, classes: int, hidden: int | None, dropout: float, dropout_at: DropoutAt) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.at_input = dropout_at == "input" or hidden is None
        self.hidden = nn.Linear(width, hidden) if hidden else None
        self.last = nn.Linear(hidden or width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) → (B, C) logits and the (B, H) input of the last layer, before dropout."""
        if self.hidden is None:
            return self.last(self.dropout(x)), x
        h = torch.relu(self.hidden(self.dropout(x) if self.at_input else x))
        return self.last(h if self.at_input else self.dropout(h)), h


def create_head(spec: HeadSpec, width: int, classes: int) -> MlpHead:
    """Creates a new head of kind `linear` or `dense`."""
    return MlpHead(width, classes, spec.hidden if spec.kind == "dense" else None, spec.dropout, spec.dropout_at)


class PretrainedHead(nn.Module):
    """The pretrained last layer of a network as a head, (B, D) → (B, C)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.last = layer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.last, nn.Conv2d):  # timm writes some classifiers as 1×1 convolutions
            return self.last(x[:, :, None, None]).flatten(1), x
        return self.last(x), x


class SingleHead(nn.Module):
    """The head of a classifier with one backbone."""

    def __init__(self, head: MlpHead | PretrainedHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        if without is not None:
            raise ValueError("a classifier with one backbone has no branch to ablate")
        logits, last = self.head(features[0])
        return Outputs(logits.float(), last)
