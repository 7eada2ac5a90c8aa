"""Several branches → one: by their logits, by their features, or by the average of their probabilities.

`logits` is SONIC (arXiv 2404.00827): each branch has a head of its own, and a small network reads all their logits side by side.
Everything is trained end to end unless the backbones are frozen.

Left out: attention between branches and gating, which the paper has not and which small data sets do not feed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from phoropter.models.heads import BranchAblation, Features, MlpHead, Outputs, create_head
from phoropter.models.spec import FusionSpec, HeadSpec


class LogitFusion(nn.Module):
    """Branch i: (B, D_i) → (B, C) by its own head; (B, n·C) side by side → dense-`hidden` → (B, C)."""

    def __init__(self, widths: Sequence[int], classes: int, head: HeadSpec, fusion: FusionSpec) -> None:
        super().__init__()
        self.branches = nn.ModuleList(create_head(head, width, classes) for width in widths)
        self.fusing = MlpHead(len(widths) * classes, classes, fusion.hidden, fusion.dropout, fusion.dropout_at)

    def forward(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        own = tuple(branch(x)[0] for branch, x in zip(self.branches, features, strict=True))
        logits, last = self.fusing(torch.cat(without.replace_branch(own) if without else own, dim=1))
        return Outputs(logits.float(), last, tuple(o.float() for o in own))


class FeatureFusion(nn.Module):
    """(B, D_1 + … + D_n) → dense-`hidden` → (B, C). Branches get heads of their own only for an auxiliary loss."""

    def __init__(self, widths: Sequence[int], classes: int, head: HeadSpec, fusion: FusionSpec) -> None:
        super().__init__()
        beside = widths if fusion.aux_loss_weight else ()
        self.branches = nn.ModuleList(create_head(head, width, classes) for width in beside)
        self.fusing = MlpHead(sum(widths), classes, fusion.hidden, fusion.dropout, fusion.dropout_at)

    def forward(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        own = tuple(branch(x)[0].float() for branch, x in zip(self.branches, features, strict=True)) if self.branches else ()
        logits, last = self.fusing(torch.cat(without.replace_branch(features) if without else features, dim=1))
        return Outputs(logits.float(), last, own)


class AverageFusion(nn.Module):
    """Branches with heads of their own, trained apart; the logits are the log of their averaged probabilities."""

    def __init__(self, widths: Sequence[int], classes: int, head: HeadSpec, fusion: FusionSpec) -> None:
        super().__init__()
        self.branches = nn.ModuleList(create_head(head, width, classes) for width in widths)

    def forward(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        said = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        own = tuple(logits.float() for logits, _ in said)
        heard = [o for i, o in enumerate(own) if without is None or i != without.branch]
        return Outputs(_log_mean_probability(heard), torch.cat([last for _, last in said], dim=1), own)


def _log_mean_probability(logits: list[Tensor]) -> Tensor:
    """log of the mean of the softmaxes, without leaving the logarithms."""
    return torch.stack([o.log_softmax(1) for o in logits]).logsumexp(0) - math.log(len(logits))


FUSION_MODES: dict[str, type[LogitFusion] | type[FeatureFusion] | type[AverageFusion]] = {
    "logits": LogitFusion,
    "concat": FeatureFusion,
    "ensemble": AverageFusion,
}
