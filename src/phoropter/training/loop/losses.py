"""Training losses: logits, labels and, for a student, the teacher's logits → one number.

The table `LOSSES` holds one record for each loss: the losses of the rows, and the closed form of their gradient where there is
one. A `Loss` of the user's own becomes such a record in `find_loss`, and is differentiated by torch.

A label may be mixed from two: λ · L(own) + (1 − λ) · L(partner's) (MixUp, Zhang et al. 2018; CutMix, Yun et al. 2019). A loss
that is not finite is returned as it is, for the training loop to report.

Left out: soft label vectors, since two labels and their share are all that mixing needs; class weights and smoothing on the
teacher's part, whose probabilities already express its uncertainty.

Letters: B rows of a batch, C classes; in batched heads R runs, U rows of a window.
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
from phoropter.training.candidates.custom_loss import Loss
from phoropter.training.candidates.recipe import LossSpec
from phoropter.training.loop.label_losses import (
    binary_gradient,
    binary_row_losses,
    compute_answer_weights,
    select_answer_weights,
)

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class WindowLabels:
    """The labels of a window of batched heads: which of its rows are in which run's batch.

    labels: (R, U) int64, or (R, U, C) of several a row
    mask: (R, U) float32, 1 where a row is in the run's batch, else 0 · batch_sizes: (R,) the rows of it
    class_weights: (R, C), or (R, 2, C) of several labels a row, or None
    """

    labels: Tensor
    mask: Tensor
    batch_sizes: Tensor
    class_weights: Tensor | None


RowLosses = Callable[[LossSpec, Tensor, Tensor, Tensor | None], Tensor]
WindowGradient = Callable[[LossSpec, Tensor, WindowLabels], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class LossFunction:
    """A record of the table of losses.

    row_losses:  (B, C) logits, (B,) labels, class weights (C,) or of each row (B, C), or None → (B,) weighted losses
    closed_form: (R, C, U) logits and their labels → (R,) mean losses and (R, C, U) their gradient; None: torch differentiates
                 row_losses
    """

    name: str
    row_losses: RowLosses
    closed_form: WindowGradient | None = None

    def differentiate_window(self, spec: LossSpec, logits: Tensor, window: WindowLabels) -> tuple[Tensor, Tensor]:
        """(R, C, U) logits → (R,) the mean loss of each run over its batch, (R, C, U) its gradient."""
        if self.closed_form is not None:
            return self.closed_form(spec, logits, window)
        runs, classes, rows = logits.shape
        labels, weights = window.labels, window.class_weights
        share = window.mask
        if weights is not None:
            several = labels.ndim == 3
            share = share * (select_answer_weights(weights[:, None], labels).mean(2) if several else weights.gather(1, labels))
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            # Rows of all runs side by side: no vmap, which many a function written for one batch does not survive
            side_by_side = logits.mT.reshape(runs * rows, classes)
            of_rows = None if weights is None else weights.repeat_interleave(rows, 0)
            losses = self.row_losses(spec, side_by_side, labels.flatten(0, 1), of_rows).view(runs, rows) * window.mask
            means = losses.sum(1) / share.sum(1)
            (gradient,) = torch.autograd.grad(means.sum(), logits)
        return means.detach(), gradient.contiguous()


def find_loss(spec: LossSpec, multi_label: bool = False) -> LossFunction:
    """The record of a spec's loss; for rows with several labels that of its name on each label (label_losses.py)."""
    if multi_label:
        return LossFunction(str(spec.kind), binary_row_losses, _binary_gradient if spec.kind == "cross-entropy" else None)
    if isinstance(spec.kind, Loss):
        return LossFunction(spec.kind.name, _custom_row_losses)
    return LOSSES[spec.kind]


def _cross_entropy_row_losses(spec: LossSpec, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    return F.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=spec.smoothing)


def _cross_entropy_gradient(spec: LossSpec, logits: Tensor, window: WindowLabels) -> tuple[Tensor, Tensor]:
    """softmax − target (Bishop 2006, eq. 4.109), each row by its share of the mean."""
    logp = torch.log_softmax(logits, 1)
    labels, mask, weights = window.labels[:, None], window.mask, window.class_weights
    if spec.smoothing == 0 and weights is None:
        losses = (logp.gather(1, labels)[:, 0] * mask).sum(1) / -window.batch_sizes
        share = (mask / window.batch_sizes[:, None])[:, None]  # (R, 1, U)
        # In place, so that a step writes the (R, C, U) logits twice and no more
        return losses, logp.exp_().mul_(share).scatter_add_(1, labels, -share)
    class_weights = torch.ones_like(logits[..., 0]) if weights is None else weights  # (R, C)
    own = class_weights.gather(1, window.labels)  # (R, U)
    target = (class_weights * (spec.smoothing / logits.shape[1]))[..., None].expand_as(logits).clone()
    target.scatter_add_(1, labels, ((1 - spec.smoothing) * own)[:, None])
    share = mask / (own * mask).sum(1, keepdim=True)
    losses = -((target * logp).sum(1) * share).sum(1)
    return losses, (logp.exp_() * target.sum(1, keepdim=True) - target) * share[:, None]


def _binary_gradient(spec: LossSpec, logits: Tensor, window: WindowLabels) -> tuple[Tensor, Tensor]:
    return binary_gradient(spec.smoothing, logits, window.labels, window.mask, window.class_weights)


def _focal_row_losses(spec: LossSpec, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    if spec.gamma == 0 and (weights is None or weights.ndim == 1):
        return _cross_entropy_row_losses(spec, logits, labels, weights)
    logp = F.log_softmax(logits, 1)
    # 1 − p without cancellation; kept from 0, where the slope of its power is infinite for γ < 1
    terms = -((-torch.expm1(logp)).clamp_min(1e-12) ** spec.gamma) * logp
    if weights is not None:
        terms = terms * weights
    own = terms.gather(1, labels[:, None])[:, 0]
    return own if spec.smoothing == 0 else (1 - spec.smoothing) * own + spec.smoothing * terms.mean(1)


def _custom_row_losses(spec: LossSpec, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    assert isinstance(spec.kind, Loss)
    _check_custom_loss(spec.kind, logits)
    losses: Tensor = spec.kind.compute(logits, labels)
    if weights is None:
        return losses
    return losses * (weights[labels] if weights.ndim == 1 else weights.gather(1, labels[:, None])[:, 0])


LOSSES = {
    "cross-entropy": LossFunction("cross-entropy", _cross_entropy_row_losses, _cross_entropy_gradient),
    "focal": LossFunction("focal", _focal_row_losses),
}

_checked_losses: set[tuple[int, int, torch.device]] = set()


@torch.no_grad()
def _check_custom_loss(loss: Loss, logits: Tensor) -> None:
    """Once for each loss, number of classes and device: (B,) finite losses, and each row's from that row alone."""
    classes = logits.shape[1]
    key = (id(loss.compute), classes, logits.device)
    if key in _checked_losses:
        return
    # Irregular numbers without a random draw, which would shift those of the training step
    rows = 2 * torch.sin(1.7 * torch.arange(3 * classes, device=logits.device, dtype=logits.dtype) ** 2).view(3, classes)
    labels = torch.arange(3, device=logits.device) % classes
    losses = loss.compute(rows, labels)
    if not isinstance(losses, Tensor) or losses.shape != labels.shape or not losses.is_floating_point():
        came = f"a {type(losses).__name__}"
        if isinstance(losses, Tensor):
            came = f"a tensor of shape {tuple(losses.shape)}" + f" of {losses.dtype}" * (not losses.is_floating_point())
        raise SpecError(
            f"compute of the loss '{loss.name}' returned {came} for 3 rows, expected 3 losses: take no mean, as with "
            'reduction="none" in torch'
        )
    single = torch.cat([loss.compute(rows[i : i + 1], labels[i : i + 1]) for i in range(3)])
    if not torch.allclose(losses, single, rtol=1e-3, atol=1e-5):
        raise SpecError(
            f"compute of the loss '{loss.name}' gives a row another loss when other rows stand beside it, expected the loss of a "
            "row from its own logits and label: take no statistics over the batch"
        )
    _checked_losses.add(key)


@dataclass(frozen=True, eq=False)
class Criterion:
    """The mean loss over a batch. class_weights: (C,), or (2, C) of several labels a row, on the logits' device; or None.

    Cross-entropy, focal loss (Lin et al. 2017): −(1 − p)^γ log p, or a Loss of the user's own. With label smoothing ε (Szegedy et
    al. 2016) a label counts 1 − ε + ε/C, every other class ε/C. The mean is weighted by the classes' weights, as in torch.
    """

    loss: LossSpec
    class_weights: Tensor | None = None

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        mix_index: Tensor | None = None,
        mix_lambda: Tensor | None = None,
        row_weights: Tensor | None = None,
        part: slice | None = None,
    ) -> Tensor:
        """(B, C) logits and (B,) labels, or (B, C) of several a row → a scalar, float32 or wider.

        Where labels are mixed: (B,) row of each one's partner, (B,) share of its own label.
        row_weights: (B,) factors of the rows' losses, not of the mean's denominator, so that a batch of light rows counts less
        part: the rows whose logits are given, all else being of the whole batch: what they add to its mean loss
        """
        logits, weights = _at_least_float32(logits), self.class_weights
        row_losses = find_loss(self.loss, labels.ndim == 2).row_losses

        def mix_over_labels(of: Callable[[Tensor], Tensor], rows: slice, factors: Tensor | None = None) -> Tensor:
            own = of(labels[rows]) if factors is None else of(labels[rows]) * factors[rows]
            if mix_index is None or mix_lambda is None:
                return own
            index, share = mix_index[rows], mix_lambda[rows]
            partner = of(labels[index]) if factors is None else of(labels[index]) * factors[index]
            return share * own + (1 - share) * partner

        losses = mix_over_labels(lambda y: row_losses(self.loss, logits, y, weights), part or slice(None), row_weights)
        if weights is None:
            return losses.mean() if part is None else losses.sum() / len(labels)
        return losses.sum() / mix_over_labels(lambda y: weigh_rows(weights, y), slice(None)).sum()


def weigh_rows(weights: Tensor, labels: Tensor) -> Tensor:
    """(C,) class weights and (B,) labels → (B,); (2, C) and (B, C) → (B,) means over the labels."""
    return weights[labels] if labels.ndim == 1 else select_answer_weights(weights, labels).mean(1)


def compute_class_weights(loss: LossSpec, labels: NDArray[np.int64], classes: Sequence[str]) -> Tensor | None:
    """(C,) float32 class weights on the CPU, or None. labels: (n,) of the training rows alone · classes: the C names.

    auto: N / (C · n_c), 1 on average over the rows; a class without rows weighs as much as one with a single row. By name:
    classes not named weigh 1. Of (n, C) labels: (2, C) weights of no and yes (compute_answer_weights).
    Raises SpecError for an unknown name or a weight that is not positive.
    """
    if loss.class_weights == "none":
        return None
    if loss.class_weights == "auto" and labels.ndim == 1:
        counts = np.bincount(labels, minlength=len(classes))
        return torch.tensor(len(labels) / (len(classes) * np.maximum(counts, 1)), dtype=torch.float32)
    by_name = {} if loss.class_weights == "auto" else loss.class_weights
    for name, weight in by_name.items():
        if name not in classes:
            hint = did_you_mean(name, classes) or f"; the classes are {join_words(classes)}"
            raise SpecError(f"class_weights: unknown class '{name}'{hint}")
        if weight <= 0:
            raise SpecError(f"class_weights: the weight of '{name}' is {weight:g}, expected a positive number")
    named = torch.tensor([by_name.get(name, 1.0) for name in classes], dtype=torch.float32)
    return compute_answer_weights(loss, labels, named.numpy()) if labels.ndim == 2 else named


@dataclass(frozen=True, eq=False)
class DistillationLoss:
    """(1 − α) · the criterion against the labels + α · a teacher's part.

    hard:      cross-entropy with the teacher's most probable class (Touvron et al. 2021)
    soft:      T² · KL(teacher ‖ student), both softened by the temperature T (Hinton et al. 2015);
               of several labels a row the mean of that of each
    hard+soft: the mean of hard and soft
    token:     hard, for the distillation token, while the class head learns the labels (Touvron et al. 2021)

    With α = 0 the teacher's part is not computed, so that this is plain training to the last bit.
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
        mix_index: Tensor | None = None,
        mix_lambda: Tensor | None = None,
        token: Tensor | None = None,
        part: slice | None = None,
    ) -> Tensor:
        """(B, C) logits of the student (its class head), (B,) labels, the teacher's logits for the same images → a scalar.

        teacher: (B, C) logits, or for hard and token (B,) classes · token: (B, C) logits of a distillation token, for the kind
        `token` only. The labels are mixed; the teacher has seen the mixed images, so its part is not mixed again.
        part: as of the criterion, of logits, teacher and token
        """
        if (token is None) == (self.kind == "token"):
            raise ValueError(
                f"distillation {self.kind} {'needs the logits of a' if token is None else 'has no'} distillation token"
            )
        own = self.criterion(logits, labels, mix_index, mix_lambda, part=part)
        if self.alpha == 0:
            return own
        teacher_loss = _soft_label_loss if labels.ndim == 2 else _TEACHER_LOSSES[self.kind]
        distilled = teacher_loss(_at_least_float32(logits if token is None else token), teacher.detach(), self.temperature)
        if part is not None:
            distilled = distilled * (len(logits) / len(labels))
        return (1 - self.alpha) * own + self.alpha * distilled


def _hard_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return F.cross_entropy(student, teacher if teacher.ndim == 1 else teacher.argmax(1))


def _soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    if teacher.ndim == 1:
        raise ValueError("soft distillation needs the teacher's (B, C) logits, not its (B,) classes")
    target = F.log_softmax(teacher.to(student.dtype) / temperature, 1)
    predicted = F.log_softmax(student / temperature, 1)
    return temperature**2 * F.kl_div(predicted, target, reduction="batchmean", log_target=True)


def _soft_label_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL of the two answers of each label, softened, times T²; the mean over rows and labels."""
    z, t = student / temperature, teacher.to(student.dtype) / temperature
    yes = torch.sigmoid(t)
    divergence = yes * (F.logsigmoid(t) - F.logsigmoid(z)) + (1 - yes) * (F.logsigmoid(-t) - F.logsigmoid(-z))
    return temperature**2 * divergence.mean()


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
