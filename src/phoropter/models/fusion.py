"""Fusion of several branches: of their logits, of their features, or by averaging their probabilities.

`logits`: each branch has its own head, and a small network reads the concatenated logits. By default it adds to their mean, and
its last layer begins at 0, so that the fusion begins as the average of its branches; with `start: random` it is SONIC
(arXiv 2404.00827), whose network alone answers. Everything is trained end to end unless the backbones are frozen.

Left out: attention between branches and gating, which the paper does not use and small datasets cannot train.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phoropter.models.heads import BranchAblation, Features, MlpHead, Outputs, create_head
from phoropter.models.spec import FusionSpec, HeadSpec


class LogitFusion(nn.Module):
    """Branch i: (B, D_i) → (B, C) by its own head; the concatenated (B, n·C) → fusing layer → (B, C).

    averages: whether the mean of the branches' logits is added to the fusing layer's, whose last layer then begins at 0
    """

    def __init__(self, widths: Sequence[int], classes: int, head: HeadSpec, fusion: FusionSpec) -> None:
        super().__init__()
        self.branches = nn.ModuleList(create_head(head, width, classes) for width in widths)
        self.fusing = MlpHead(len(widths) * classes, classes, fusion.hidden, fusion.dropout, fusion.dropout_at)
        self.averages = fusion.start == "average"
        if self.averages:
            nn.init.zeros_(self.fusing.last.weight)
            nn.init.zeros_(self.fusing.last.bias)

    def forward(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        branch_logits = tuple(branch(x)[0] for branch, x in zip(self.branches, features, strict=True))
        read = without.replace_branch(branch_logits) if without else branch_logits
        logits, last = self.fusing(torch.cat(read, dim=1))
        if self.averages:
            logits = logits + torch.stack(read).mean(0)
        return Outputs(logits.float(), last, tuple(o.float() for o in branch_logits))


class FeatureFusion(nn.Module):
    """(B, D_1 + … + D_n) → fusing layer → (B, C). Branches have their own heads only for an auxiliary loss."""

    def __init__(self, widths: Sequence[int], classes: int, head: HeadSpec, fusion: FusionSpec) -> None:
        super().__init__()
        head_widths = widths if fusion.aux_loss_weight else ()
        self.branches = nn.ModuleList(create_head(head, width, classes) for width in head_widths)
        self.fusing = MlpHead(sum(widths), classes, fusion.hidden, fusion.dropout, fusion.dropout_at)

    def forward(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        heads = zip(self.branches, features, strict=True) if self.branches else ()
        branch_logits = tuple(branch(x)[0].float() for branch, x in heads)
        logits, last = self.fusing(torch.cat(without.replace_branch(features) if without else features, dim=1))
        return Outputs(logits.float(), last, branch_logits)


class AverageFusion(nn.Module):
    """An ensemble: branches with their own, separately trained heads; its logits are the log of their mean probabilities.

    multi_label: whether its logits are of several labels, each with a probability of its own
    """

    multi_label = False

    def __init__(self, widths: Sequence[int], classes: int, head: HeadSpec, fusion: FusionSpec) -> None:
        super().__init__()
        self.branches = nn.ModuleList(create_head(head, width, classes) for width in widths)

    def forward(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        outputs = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        branch_logits = tuple(logits.float() for logits, _ in outputs)
        kept = [o for i, o in enumerate(branch_logits) if without is None or i != without.branch]
        mean = log_mean_probability(kept, multi_label=self.multi_label)
        return Outputs(mean, torch.cat([last for _, last in outputs], dim=1), branch_logits)


class MemberAverage(nn.Module):
    """Finished classifiers of any kind as one: each head reads the features of its own branches, and probabilities are averaged.

    members: the heads · counts: branches of each, in order · weights: of each member's probabilities, empty where all are equal
    multi_label: whether logits are of several labels, each with a probability of its own
    `without` leaves out a member, whose number is its `branch`.
    """

    def __init__(
        self, heads: Sequence[nn.Module], counts: Sequence[int], weights: Sequence[float] = (), multi_label: bool = False
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(heads)
        self.counts = tuple(counts)
        self.weights = tuple(weights)
        self.multi_label = multi_label

    def forward(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        starts = accumulate(self.counts, initial=0)
        parts = [features[start : start + count] for start, count in zip(starts, self.counts, strict=False)]
        outputs: list[Outputs] = [head(part) for head, part in zip(self.members, parts, strict=True)]
        member_logits = tuple(o.logits for o in outputs)
        kept = [i for i in range(len(member_logits)) if without is None or i != without.branch]
        weights = [self.weights[i] for i in kept] if self.weights else ()
        mean = log_mean_probability([member_logits[i] for i in kept], weights, self.multi_label)
        return Outputs(mean, torch.cat([o.features for o in outputs], dim=1), member_logits)


def log_mean_probability(logits: list[Tensor], weights: Sequence[float] = (), multi_label: bool = False) -> Tensor:
    """(B, C) logits of each of several → (B, C) log of the mean of their softmax, in log space for numerical stability.

    weights: above 0, of each; empty: all are equal
    multi_label: the logit of the mean of their sigmoids instead, label by label
    """
    if multi_label:
        shares = torch.tensor(weights or [1.0] * len(logits), dtype=logits[0].dtype, device=logits[0].device).log()
        stacked = torch.stack(logits)
        yes, no = (F.logsigmoid(side * stacked) + shares[:, None, None] for side in (1, -1))
        return yes.logsumexp(0) - no.logsumexp(0)
    each = [o.log_softmax(1) for o in logits]
    if weights:
        each = [o + math.log(weight / sum(weights)) for o, weight in zip(each, weights, strict=True)]
    return torch.stack(each).logsumexp(0) - (0.0 if weights else math.log(len(logits)))


FUSION_MODES: dict[str, type[LogitFusion] | type[FeatureFusion] | type[AverageFusion]] = {
    "logits": LogitFusion,
    "concat": FeatureFusion,
    "ensemble": AverageFusion,
}
