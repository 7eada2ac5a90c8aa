"""Logits, labels, maybe a teacher's logits → one number; each with its paper.

A label may be mixed from two: share · L(own) + (1 − share) · L(partner's) (MixUp, Zhang et al. 2018; CutMix, Yun et al. 2019).
A loss that is not finite comes back as it is, for the loop to report.

Left out: soft label vectors, of which the two labels and their share are all that is needed here; class weights and smoothing on
the teacher's part, whose answers already say how sure it is.

Letters: B rows of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from phoropter.core.errors import SpecError, did_you_mean, join_words
from phoropter.training.candidates.recipe import LossSpec

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class Criterion:
    """The loss against labels. class_weights: (C,) on the logits' device, or None.

    Cross-entropy, or focal loss (Lin et al. 2017): −(1 − p)^γ log p. With label smoothing ε (Szegedy et al. 2016) a label counts
    1 − ε + ε/C, every other class ε/C. The mean over the batch is weighted by the classes' weights, as in torch.
    """

    loss: LossSpec
    class_weights: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor, partner: Tensor | None = None, share: Tensor | None = None) -> Tensor:
        """(B, C) logits and (B,) labels, with (B,) partners and shares where labels are mixed → a scalar, float32 or wider."""
        logits, weights = _at_least_float32(logits), self.class_weights

        def mix_over_labels(of: Callable[[Tensor], Tensor]) -> Tensor:
            own = of(labels)
            return own if partner is None or share is None else share * own + (1 - share) * of(labels[partner])

        each = mix_over_labels(lambda y: self._loss_per_row(logits, y))
        return each.mean() if weights is None else each.sum() / mix_over_labels(weights.__getitem__).sum()

    def masked_loss(self, logits: Tensor, labels: Tensor, member: Tensor) -> Tensor:
        """The same over those of the rows where `member`, (B,), is 1; elsewhere it is 0."""
        each = self._loss_per_row(_at_least_float32(logits), labels) * member
        return each.sum() / (member if self.class_weights is None else self.class_weights[labels] * member).sum()

    def _loss_per_row(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = self.loss
        if loss.kind == "cross-entropy" or loss.gamma == 0:
            return F.cross_entropy(logits, labels, self.class_weights, reduction="none", label_smoothing=loss.smoothing)
        logp = F.log_softmax(logits, 1)
        # 1 − p without cancellation; kept from 0, where the slope of its power is infinite for γ < 1
        terms = -((-torch.expm1(logp)).clamp_min(1e-12) ** loss.gamma) * logp
        if self.class_weights is not None:
            terms = terms * self.class_weights
        own = terms.gather(1, labels[:, None])[:, 0]
        return own if loss.smoothing == 0 else (1 - loss.smoothing) * own + loss.smoothing * terms.mean(1)


def compute_class_weights(loss: LossSpec, labels: NDArray[np.int64], classes: Sequence[str]) -> Tensor | None:
    """(C,) float32 weights, or None. labels: (n,) of the training rows alone · classes: the C names.

    auto: N / (C · n_c), 1 on average over the rows; a class without rows weighs as one with a single row. By name: classes not
    named weigh 1. Raises SpecError for an unknown name or a weight that is not positive.
    """
    if loss.class_weights == "none":
        return None
    if loss.class_weights == "auto":
        counts = np.bincount(labels, minlength=len(classes))
        return torch.tensor(len(labels) / (len(classes) * np.maximum(counts, 1)), dtype=torch.float32)
    for name, weight in loss.class_weights.items():
        if name not in classes:
            hint = did_you_mean(name, classes) or f"; the classes are {join_words(classes)}"
            raise SpecError(f"class_weights: unknown class '{name}'{hint}")
        if weight <= 0:
            raise SpecError(f"class_weights: the weight of '{name}' is {weight:g}, expected a positive number")
    return torch.tensor([loss.class_weights.get(name, 1.0) for name in classes], dtype=torch.float32)


@dataclass(frozen=True, eq=False)
class DistillationLoss:
    """(1 − α) · the criterion against the labels + α · a teacher's part.

    hard:  cross-entropy with the teacher's first choice (Touvron et al. 2021)
    soft:  T² · KL(teacher ‖ student), both softened by the temperature T (Hinton et al. 2015)
    hard+soft: the mean of hard and soft
    token: hard, learnt by the distillation token while the class head learns the labels (Touvron et al. 2021)

    With α = 0 the teacher is not asked, so that this is plain training to the last bit.
    """

    criterion: Criterion
    kind: Literal["hard", "soft", "hard+soft", "token"]
    alpha: float
    temperature: float = 1.0

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        teacher: Tensor,
        partner: Tensor | None = None,
        share: Tensor | None = None,
        token: Tensor | None = None,
    ) -> Tensor:
        """(B, C) logits of the student (its class head), (B,) labels, the teacher's answers to the very pictures → a scalar.

        teacher: (B, C) logits, or for hard and token (B,) classes · token: (B, C) logits of a distillation token, for `token`
        alone. Partner and share mix the labels; the teacher saw the mixed pictures, so its part is not mixed again.
        """
        if (token is None) == (self.kind == "token"):
            raise ValueError(
                f"distillation {self.kind} {'needs the logits of a' if token is None else 'has no'} distillation token"
            )
        own = self.criterion(logits, labels, partner, share)
        if self.alpha == 0:
            return own
        taught = _TEACHER_LOSSES[self.kind](
            _at_least_float32(logits if token is None else token), teacher.detach(), self.temperature
        )
        return (1 - self.alpha) * own + self.alpha * taught


def _hard_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return F.cross_entropy(student, teacher if teacher.ndim == 1 else teacher.argmax(1))


def _soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    if teacher.ndim == 1:
        raise ValueError("soft distillation needs the teacher's (B, C) logits, not its (B,) classes")
    taught = F.log_softmax(teacher.to(student.dtype) / temperature, 1)
    learnt = F.log_softmax(student / temperature, 1)
    return temperature**2 * F.kl_div(learnt, taught, reduction="batchmean", log_target=True)


def _hard_and_soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return (_hard_loss(student, teacher, temperature) + _soft_loss(student, teacher, temperature)) / 2


_TEACHER_LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "hard": _hard_loss,
    "soft": _soft_loss,
    "hard+soft": _hard_and_soft_loss,
    "token": _hard_loss,
}


def _at_least_float32(logits: Tensor) -> Tensor:
    """Half-precision logits as float32: an exponential sum in bf16 keeps two digits."""
    return logits if logits.dtype == torch.float64 else logits.float()
