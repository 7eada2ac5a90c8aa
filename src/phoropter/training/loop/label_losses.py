"""Losses of rows with several labels: each label is a question of its own, answered by the sigmoid of its logit.

The loss of a row is the mean over its labels, as of torch's BCEWithLogitsLoss. Focal loss is that of Lin et al. 2017 for one
object against none: −(1 − p)^γ log p, p the probability of the answer that is true. With label smoothing ε each answer counts
1 − ε/2, the opposite one ε/2 (Szegedy et al. 2016 for two classes). Class weights are of the answer: (2, C), no and yes.

Letters: B rows of a batch, C labels; in batched heads R runs, U rows of a window.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from phoropter.training.candidates.recipe import LossSpec

Tensor = torch.Tensor


def binary_row_losses(spec: LossSpec, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """(B, C) logits, (B, C) 0 and 1, class weights (2, C) or of each row (B, 2, C) → (B,) weighted means over the labels."""
    gamma = spec.gamma if spec.kind == "focal" else 0.0
    side = labels.to(logits.dtype) * 2 - 1  # +1 where the label is there
    losses = (1 - spec.smoothing / 2) * _answer_losses(side * logits, gamma)
    if spec.smoothing:
        losses = losses + spec.smoothing / 2 * _answer_losses(-side * logits, gamma)
    return (losses if weights is None else losses * select_answer_weights(weights, labels)).mean(1)


def _answer_losses(logits: Tensor, gamma: float) -> Tensor:
    """Logits of the answers → −(1 − p)^γ log p."""
    losses = -F.logsigmoid(logits)
    # 1 − p is kept from 0, where the slope of its power is infinite for γ < 1
    return losses if gamma == 0 else torch.sigmoid(-logits).clamp_min(1e-12) ** gamma * losses


def select_answer_weights(weights: Tensor, labels: Tensor) -> Tensor:
    """(2, C) or (…, 2, C) class weights and (…, C) labels → (…, C) the weight of each answer."""
    return torch.where(labels == 1, weights[..., 1, :], weights[..., 0, :])


def binary_gradient(
    smoothing: float, logits: Tensor, labels: Tensor, mask: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(R, C, U) logits, (R, U, C) labels, (R, U) 1 where a row counts, (R, 2, C) class weights or None → (R,) mean losses,
    (R, C, U) their gradient, σ − target (Bishop 2006, eq. 4.91)."""
    target = labels.mT.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    losses, residual, total = F.softplus(logits) - target * logits, torch.sigmoid(logits) - target, mask
    if weights is not None:
        of_answers = select_answer_weights(weights[:, None], labels)  # (R, U, C)
        losses, residual, total = losses * of_answers.mT, residual * of_answers.mT, of_answers.mean(2) * mask
    share = mask / total.sum(1, keepdim=True)  # (R, U)
    return (losses.mean(1) * share).sum(1), residual * (share / logits.shape[1])[:, None]


def compute_answer_weights(loss: LossSpec, labels: NDArray[np.int64], named: NDArray[np.float32]) -> Tensor:
    """(n, C) 0 and 1 → (2, C) float32 weights of no and yes, for `class_weights` that are not `none`.

    auto: N / 2n of each answer of a label, so that both weigh the same and rows weigh 1 on average; an answer without rows weighs
    as much as one with a single row. By name: (C,) `named` is the weight of yes.
    """
    if loss.class_weights == "auto":
        yes = labels.sum(axis=0)
        answers = np.stack([len(labels) - yes, yes])
        return torch.tensor(len(labels) / (2 * np.maximum(answers, 1)), dtype=torch.float32)
    return torch.from_numpy(np.stack([np.ones_like(named), named]))


def count_hits(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, C) logits and (B,) labels → how many rows are right; of (B, C) labels the sum of the share of right answers."""
    if labels.ndim == 2:
        return ((logits > 0) == (labels == 1)).float().mean(1).sum()
    return (logits.argmax(1) == labels).sum()
