"""Head of a distilled ViT: one linear layer on the class token and one on the distillation token.

DeiT (Touvron et al. 2021, arXiv 2012.12877, section 4 and figure 2): the class token's head learns the labels, the distillation
token's head learns the teacher, and the prediction is the mean of the two. The losses are in training/loop/losses.py.
"""

from __future__ import annotations

import torch
from torch import nn

from phoropter.models.heads import BranchAblation, Features, MlpHead, Outputs, PretrainedHead


class DistilledVitHead(nn.Module):
    """(B, 2·D), class and distillation token concatenated → the (B, C) logits of each, and their mean."""

    def __init__(self, class_head: MlpHead | PretrainedHead, token_head: MlpHead | PretrainedHead) -> None:
        super().__init__()
        self.class_head = class_head
        self.token_head = token_head

    def forward(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        if without is not None:
            raise ValueError("a classifier with one backbone has no branch to ablate")
        class_token, distillation_token = features[0].chunk(2, dim=1)
        class_logits, class_last = self.class_head(class_token)
        token_logits, token_last = self.token_head(distillation_token)
        class_logits, token_logits = class_logits.float(), token_logits.float()
        last = torch.cat([class_last, token_last], dim=1)
        return Outputs((class_logits + token_logits) / 2, last, (), class_logits, token_logits)
