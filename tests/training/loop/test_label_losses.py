"""Losses of rows with several labels against torch's own and plain sums; the closed form of batched heads against autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from phoropter.training.candidates.recipe import LossSpec
from phoropter.training.loop.history import validation_metrics
from phoropter.training.loop.label_losses import binary_row_losses, count_hits
from phoropter.training.loop.losses import (
    Criterion,
    DistillationLoss,
    LossFunction,
    WindowLabels,
    compute_class_weights,
    find_loss,
)

CLASSES = ("edema", "mass", "nodule")


def batch(rows: int = 20, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = (torch.rand(rows, 3, generator=draw) < torch.tensor([0.5, 0.3, 0.1])).long()
    return 2 * torch.randn(rows, 3, generator=draw), labels


def test_the_loss_is_that_of_torch() -> None:
    logits, labels = batch()
    expected = F.binary_cross_entropy_with_logits(logits, labels.float())
    torch.testing.assert_close(Criterion(LossSpec())(logits, labels), expected)
    assert validation_metrics(logits.numpy(), labels.numpy())["validation_loss"] == pytest.approx(float(expected))


def test_smoothing_is_a_target_between_the_answers() -> None:
    logits, labels = batch()
    expected = F.binary_cross_entropy_with_logits(logits, labels.float() * 0.8 + 0.1)
    torch.testing.assert_close(Criterion(LossSpec(smoothing=0.2))(logits, labels), expected)


def test_focal_loss_is_that_of_one_object_against_none() -> None:
    logits, labels = batch()
    p = torch.where(labels == 1, torch.sigmoid(logits), 1 - torch.sigmoid(logits))
    torch.testing.assert_close(Criterion(LossSpec(kind="focal", gamma=1.5))(logits, labels), (-((1 - p) ** 1.5) * p.log()).mean())
    torch.testing.assert_close(Criterion(LossSpec(kind="focal", gamma=0))(logits, labels), Criterion(LossSpec())(logits, labels))


def test_mixed_labels_are_the_mean_of_both_and_so_of_the_mixed_targets() -> None:
    logits, labels = batch()
    partner, share = torch.arange(20).flip(0), torch.linspace(0, 1, 20)
    target = share[:, None] * labels + (1 - share[:, None]) * labels[partner]
    expected = F.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(Criterion(LossSpec())(logits, labels, partner, share), expected)


def test_auto_weights_make_both_answers_of_every_label_weigh_the_same() -> None:
    _, labels = batch(200)
    weights = compute_class_weights(LossSpec(class_weights="auto"), labels.numpy(), CLASSES)
    assert weights is not None and weights.shape == (2, 3)
    for k in range(3):
        yes = int(labels[:, k].sum())
        assert weights[1, k] * yes == pytest.approx(100) and weights[0, k] * (200 - yes) == pytest.approx(100)
    named = compute_class_weights(LossSpec(class_weights={"mass": 4}), labels.numpy(), CLASSES)
    assert named is not None and named.tolist() == [[1, 1, 1], [1, 4, 1]]


def test_weights_count_in_the_loss_and_in_its_denominator() -> None:
    logits, labels = batch()
    weights = torch.tensor([[1.0, 0.5, 2.0], [3.0, 1.0, 4.0]])
    of_answers = torch.where(labels == 1, weights[1], weights[0])
    losses = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    torch.testing.assert_close(Criterion(LossSpec(), weights)(logits, labels), (losses * of_answers).sum() / of_answers.sum())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("spec", [LossSpec(), LossSpec(smoothing=0.1), LossSpec(kind="focal")])
def test_windows_of_batched_heads_have_the_loss_and_gradient_of_a_batch(spec: LossSpec, weighted: bool) -> None:
    made = [batch(12, seed) for seed in (1, 2)]
    logits = torch.stack([z.T for z, _ in made]).double()  # (R, C, U)
    labels = torch.stack([y for _, y in made])
    mask = torch.ones(2, 12).double()
    mask[1, 9:] = 0
    weights = (
        torch.tensor([[[1.0, 2.0, 0.5], [3.0, 1.0, 2.0]], [[1.0, 1.0, 1.0], [2.0, 2.0, 5.0]]]).double() if weighted else None
    )
    window = WindowLabels(labels, mask, mask.sum(1), weights)
    found = find_loss(spec, multi_label=True)
    loss, gradient = found.differentiate_window(spec, logits, window)
    for run in range(2):
        kept = mask[run] == 1
        z = logits[run].T[kept].clone().requires_grad_()
        expected = Criterion(spec, None if weights is None else weights[run])(z, labels[run][kept])
        (slope,) = torch.autograd.grad(expected, z)
        torch.testing.assert_close(loss[run], expected.detach())
        torch.testing.assert_close(gradient[run].T[kept], slope)
        assert not gradient[run].T[~kept].any()
    plain = LossFunction("plain", binary_row_losses).differentiate_window(spec, logits, window)
    torch.testing.assert_close((loss, gradient), plain)


def test_a_student_learns_the_probability_of_each_label() -> None:
    logits, labels = batch()
    teacher, _ = batch(seed=5)
    spec = DistillationLoss(Criterion(LossSpec()), "soft", 0.4, 2.0)

    def entropy(z: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(z / 2, torch.sigmoid(teacher / 2))

    soft = 4 * (entropy(logits) - entropy(teacher))
    expected = 0.6 * F.binary_cross_entropy_with_logits(logits, labels.float()) + 0.4 * soft
    torch.testing.assert_close(spec(logits, labels, teacher), expected)
    assert float(DistillationLoss(Criterion(LossSpec()), "soft", 1.0)(teacher, labels, teacher)) == pytest.approx(0, abs=1e-6)


def test_hits_are_the_share_of_right_answers() -> None:
    logits, labels = torch.tensor([[3.0, -1.0, 0.5], [-1.0, -1.0, -1.0]]), torch.tensor([[1, 1, 1], [0, 0, 1]])
    assert float(count_hits(logits, labels)) == pytest.approx(4 / 3)
    assert int(count_hits(logits, torch.tensor([0, 1]))) == 1 + int(logits[1].argmax() == 1)
    accuracy: Any = validation_metrics(logits.numpy(), labels.numpy())["validation_accuracy"]
    assert accuracy == pytest.approx(np.mean([1, 0, 1, 1, 1, 0]))
