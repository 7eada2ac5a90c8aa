"""Losses against torch and against NumPy written out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from phoropter.core.errors import SpecError
from phoropter.training.candidates.custom_loss import Loss
from phoropter.training.candidates.recipe import LossSpec
from phoropter.training.loop.losses import (
    LOSSES,
    Criterion,
    DistillationLoss,
    WindowLabels,
    compute_class_weights,
    find_loss,
)

Array = NDArray[np.float64]
B, C = 7, 4


def made(seed: int = 0, spread: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a student and of a teacher, and labels."""
    rng = np.random.default_rng(seed)
    student, teacher = torch.from_numpy(rng.normal(0, spread, (2, B, C)))
    return student, teacher, torch.from_numpy(rng.integers(0, C, B))


def mixing(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.permutation(B)), torch.from_numpy(rng.integers(0, 65, B).astype(np.float32) / 64)


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def by_hand(loss: LossSpec, logits: torch.Tensor, targets: Array, weights: Array) -> float:
    """Σ_i Σ_c w_c q_ic (1 − p_ic)^γ (−log p_ic) over the mixed weights, number by number; targets: (B, C) before smoothing."""
    p = softmax(logits.numpy())
    gamma = loss.gamma if loss.kind == "focal" else 0.0
    total, norm = 0.0, 0.0
    for i in range(len(p)):
        for c in range(p.shape[1]):
            q = (1 - loss.smoothing) * targets[i, c] + loss.smoothing / p.shape[1]
            total += weights[c] * q * (1 - p[i, c]) ** gamma * -np.log(p[i, c])
            norm += weights[c] * targets[i, c]
    return float(total / norm)


def one_hot(labels: torch.Tensor) -> Array:
    return np.eye(C)[labels.numpy()]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 3.0]])
def test_cross_entropy_is_torch_s(smoothing: float, weights: list[float] | None) -> None:
    student, _, labels = made()
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = F.cross_entropy(student, labels, weight, label_smoothing=smoothing)
    torch.testing.assert_close(Criterion(LossSpec(smoothing=smoothing), weight)(student, labels), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 3.0]])
@pytest.mark.parametrize("kind", ["cross-entropy", "focal"])
def test_every_option_together_with_mixed_labels_as_written_out(smoothing: float, weights: list[float] | None, kind: Any) -> None:
    student, _, labels = made()
    partner, share = mixing()
    loss = LossSpec(kind=kind, smoothing=smoothing, **({"gamma": 1.5} if kind == "focal" else {}))
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    own = share.double().numpy()[:, None]
    targets = own * one_hot(labels) + (1 - own) * one_hot(labels[partner])
    expected = by_hand(loss, student, targets, np.array(weights or [1.0] * C))
    assert float(Criterion(loss, weight)(student, labels, partner, share)) == pytest.approx(expected, rel=1e-9)
    plain = by_hand(loss, student, one_hot(labels), np.array(weights or [1.0] * C))
    assert float(Criterion(loss, weight)(student, labels)) == pytest.approx(plain, rel=1e-9)


def test_mixed_labels_are_the_two_losses_by_their_shares() -> None:
    student, _, labels = made()
    partner, _ = mixing()
    mixed = Criterion(LossSpec())(student, labels, partner, torch.full((B,), 0.25))
    torch.testing.assert_close(mixed, 0.25 * F.cross_entropy(student, labels) + 0.75 * F.cross_entropy(student, labels[partner]))


@pytest.mark.parametrize("class_weights", [None, [1.0, 2.0, 0.5, 3.0]])
def test_a_row_s_weight_multiplies_its_loss_wherever_its_label_goes(class_weights: list[float] | None) -> None:
    student, _, labels = made()
    partner, share = mixing()
    weight = torch.ones(C, dtype=torch.float64) if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
    rows = torch.linspace(0.2, 3.0, B, dtype=torch.float64)
    criterion = Criterion(LossSpec(), None if class_weights is None else weight)
    total = below = mixed_total = mixed_below = 0.0
    for row in range(B):
        other, part = int(partner[row]), float(share[row])
        own, lent = (float(-weight[label] * student[row].log_softmax(0)[label]) for label in (labels[row], labels[other]))
        total, below = total + own * float(rows[row]), below + float(weight[labels[row]])
        mixed_total += part * own * float(rows[row]) + (1 - part) * lent * float(rows[other])
        mixed_below += part * float(weight[labels[row]]) + (1 - part) * float(weight[labels[other]])
    assert float(criterion(student, labels, row_weights=rows)) == pytest.approx(total / below)
    assert float(criterion(student, labels, partner, share, row_weights=rows)) == pytest.approx(
        mixed_total / mixed_below, rel=1e-6
    )
    torch.testing.assert_close(criterion(student, labels, row_weights=torch.ones(B)), criterion(student, labels))


def test_focal_with_gamma_0_is_cross_entropy() -> None:
    student, _, labels = made()
    assert torch.equal(Criterion(LossSpec(kind="focal", gamma=0))(student, labels), Criterion(LossSpec())(student, labels))


def test_focal_of_a_certain_answer_has_a_finite_slope_even_below_gamma_1() -> None:
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    Criterion(LossSpec(kind="focal", gamma=0.5, smoothing=0.1))(logits, torch.tensor([0, 0])).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_half_precision_logits_are_summed_in_float32() -> None:
    student, _, labels = made()
    half = student.to(torch.bfloat16)
    loss = Criterion(LossSpec())(half, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(half.float(), labels))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["cross-entropy", "focal"])
def test_a_loss_that_is_not_finite_is_not_hidden(bad: float, kind: Any) -> None:
    student, _, labels = made()
    student[2, 1] = bad
    assert not torch.isfinite(Criterion(LossSpec(kind=kind))(student, labels))


# ---- class weights

CLASSES = ["cat", "dog", "owl"]


def test_no_weights_unless_asked() -> None:
    assert compute_class_weights(LossSpec(), np.array([0, 1, 1]), CLASSES) is None


def test_auto_weights_make_every_class_count_the_same() -> None:
    labels = np.repeat([0, 1, 2], [10, 5, 1])
    weights = compute_class_weights(LossSpec(class_weights="auto"), labels, CLASSES)
    assert weights is not None
    np.testing.assert_allclose(weights, [16 / 30, 16 / 15, 16 / 3], rtol=1e-6)
    assert float(weights[labels].mean()) == pytest.approx(1)


def test_auto_weights_of_a_class_without_rows_are_finite() -> None:
    weights = compute_class_weights(LossSpec(class_weights="auto"), np.array([0, 1]), CLASSES)
    assert weights is not None and torch.isfinite(weights).all()


def test_weights_by_name_are_in_the_order_of_the_classes_and_1_for_the_rest() -> None:
    weights = compute_class_weights(LossSpec(class_weights={"owl": 4, "cat": 0.5}), np.array([0]), CLASSES)
    assert weights is not None and weights.tolist() == [0.5, 1, 4]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dgo": 2.0}, "class_weights: unknown class 'dgo'; did you mean 'dog'?"),
        ({"zebra": 2.0}, "class_weights: unknown class 'zebra'; the classes are cat, dog or owl"),
        ({"dog": 0.0}, "class_weights: the weight of 'dog' is 0, expected a positive number"),
    ],
)
def test_wrong_weights_are_one_sentence(given: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError) as raised:
        compute_class_weights(LossSpec(class_weights=given), np.array([0]), CLASSES)
    assert str(raised.value) == message


# ---- distillation


def taught_by_hand(kind: str, student: Array, teacher: Array, temperature: float) -> float:
    """The teacher's part, one row at a time."""
    hard, soft = 0.0, 0.0
    for s, t in zip(student, teacher, strict=True):
        p = softmax(s[None])[0]
        hard += -np.log(p[int(np.argmax(t))])
        ps, pt = softmax(s[None] / temperature)[0], softmax(t[None] / temperature)[0]
        soft += temperature**2 * sum(b * (np.log(b) - np.log(a)) for a, b in zip(ps, pt, strict=True))
    parts = {"hard": hard, "token": hard, "soft": soft, "hard+soft": (hard + soft) / 2}
    return float(parts[kind] / len(student))


@pytest.mark.parametrize("temperature", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["hard", "soft", "hard+soft", "token"])
def test_distillation_as_written_out(kind: Any, alpha: float, temperature: float) -> None:
    student, teacher, labels = made()
    token = made(1)[0] if kind == "token" else None
    partner, share = mixing()
    learner = (student if token is None else token).numpy()
    own = share.double().numpy()[:, None]
    for mixed in (False, True):
        targets = own * one_hot(labels) + (1 - own) * one_hot(labels[partner]) if mixed else one_hot(labels)
        expected = (1 - alpha) * by_hand(LossSpec(), student, targets, np.ones(C))
        expected += alpha * taught_by_hand(kind, learner, teacher.numpy(), temperature)
        distil = DistillationLoss(Criterion(LossSpec()), kind, alpha, temperature)
        found = distil(student, labels, teacher, *((partner, share) if mixed else (None, None)), token=token)
        assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["hard", "soft", "hard+soft", "token"])
def test_alpha_0_is_plain_training_bit_for_bit(kind: Any) -> None:
    student, teacher, labels = (x.float() if x.is_floating_point() else x for x in made())
    partner, share = mixing()
    criterion = Criterion(LossSpec(smoothing=0.1))
    plain, taught = student.clone().requires_grad_(), student.clone().requires_grad_()
    criterion(plain, labels, partner, share).backward()
    token = student.clone() if kind == "token" else None
    loss = DistillationLoss(criterion, kind, 0.0, 3.0)(taught, labels, teacher, partner, share, token=token)
    loss.backward()
    assert torch.equal(loss.detach(), criterion(student, labels, partner, share))
    assert plain.grad is not None and taught.grad is not None and torch.equal(plain.grad, taught.grad)


def test_the_teacher_gets_no_gradient_and_the_token_gets_the_teacher_s_part_alone() -> None:
    student, teacher, labels = made()
    token = made(1)[0]
    for tensor in (student, teacher, token):
        tensor.requires_grad_()
    DistillationLoss(Criterion(LossSpec()), "token", 0.5)(student, labels, teacher, token=token).backward()
    assert teacher.grad is None and student.grad is not None and token.grad is not None
    own, taught = student.detach().clone().requires_grad_(), token.detach().clone().requires_grad_()
    (0.5 * F.cross_entropy(own, labels) + 0.5 * F.cross_entropy(taught, teacher.detach().argmax(1))).backward()
    assert own.grad is not None and taught.grad is not None
    torch.testing.assert_close(student.grad, own.grad)
    torch.testing.assert_close(token.grad, taught.grad)


def test_a_hard_teacher_may_answer_with_classes() -> None:
    student, teacher, labels = made()
    distil = DistillationLoss(Criterion(LossSpec()), "hard", 0.5)
    assert torch.equal(distil(student, labels, teacher.argmax(1)), distil(student, labels, teacher))


def test_a_teacher_s_answers_kept_in_half_precision_are_read() -> None:
    student, teacher, labels = made()
    kept = teacher.half()
    distil = DistillationLoss(Criterion(LossSpec()), "hard+soft", 0.5, 3.0)
    torch.testing.assert_close(distil(student, labels, kept), distil(student, labels, kept.double()))


def test_a_student_that_answers_as_its_teacher_has_no_soft_loss() -> None:
    student, _, labels = made()
    assert float(DistillationLoss(Criterion(LossSpec()), "soft", 1.0, 4.0)(student, labels, student)) == pytest.approx(
        0, abs=1e-12
    )


def test_what_does_not_fit_is_refused() -> None:
    student, teacher, labels = made()
    with pytest.raises(ValueError, match="token needs the logits of a distillation token"):
        DistillationLoss(Criterion(LossSpec()), "token", 0.5)(student, labels, teacher)
    with pytest.raises(ValueError, match="hard has no distillation token"):
        DistillationLoss(Criterion(LossSpec()), "hard", 0.5)(student, labels, teacher, token=student)
    with pytest.raises(ValueError, match="soft distillation needs the teacher's"):
        DistillationLoss(Criterion(LossSpec()), "soft", 0.5)(student, labels, teacher.argmax(1))


# ---- losses of the user's own


def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.multi_margin_loss(logits, labels, reduction="none")


MARGIN = LossSpec(kind=Loss("margin", compute=margin))


def test_a_custom_loss_has_class_weights_mixed_labels_and_a_teacher() -> None:
    student, teacher, labels = made()
    partner, share = mixing()
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    own, other = margin(student, labels), margin(student, labels[partner])
    assert torch.equal(Criterion(MARGIN)(student, labels), own.mean())
    weighted = (own * weights[labels]).sum() / weights[labels].sum()
    torch.testing.assert_close(Criterion(MARGIN, weights)(student, labels), weighted)
    torch.testing.assert_close(Criterion(MARGIN)(student, labels, partner, share), (share * own + (1 - share) * other).mean())
    distil = DistillationLoss(Criterion(MARGIN), "hard", 0.25)
    expected = 0.75 * own.mean() + 0.25 * F.cross_entropy(student, teacher.argmax(1))
    torch.testing.assert_close(distil(student, labels, teacher), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_closed_form_of_cross_entropy_is_what_torch_differentiates(weighted: bool) -> None:
    """Of three runs, each with a batch of its own in a window of seven rows."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(3, C, B, generator=random)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0, 0], [1] * 7], dtype=torch.float32)
    weights = torch.rand(3, C, generator=random) + 0.5 if weighted else None
    window = WindowLabels(torch.randint(0, C, (3, B), generator=random), mask, mask.sum(1), weights)
    for spec in (LossSpec(), LossSpec(smoothing=0.1)):
        losses, gradient = LOSSES["cross-entropy"].differentiate_window(spec, logits.clone(), window)
        for run in range(3):
            rows = mask[run] == 1
            z = logits[run].T[rows].clone().requires_grad_()
            weight = None if weights is None else weights[run]
            expected = F.cross_entropy(z, window.labels[run][rows], weight, label_smoothing=spec.smoothing)
            expected.backward()
            torch.testing.assert_close(losses[run], expected.detach())
            torch.testing.assert_close(gradient[run].T[rows], z.grad)
            assert not gradient[run].T[~rows].any()


def test_only_cross_entropy_has_a_closed_form() -> None:
    assert [name for name, loss in LOSSES.items() if loss.closed_form is not None] == ["cross-entropy"]
    assert find_loss(MARGIN).closed_form is None


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda z, y: margin(z, y).mean(), r"returned a tensor of shape \(\) for 3 rows, expected 3 losses"),
        (lambda z, y: 0.0, "returned a float for 3 rows"),
        (lambda z, y: z.argmax(1), r"returned a tensor of shape \(3,\) of torch.int64 for 3 rows"),
        (lambda z, y: margin(z - z.mean(0), y), "gives a row another loss when other rows stand beside it"),
    ],
    ids=["a mean", "no tensor", "integers", "batch statistics"],
)
def test_a_custom_loss_that_is_none_is_refused_at_its_first_use(compute: Any, message: str) -> None:
    student, _, labels = made()
    with pytest.raises(SpecError, match=f"compute of the loss 'bad' {message}"):
        Criterion(LossSpec(kind=Loss("bad", compute=compute)))(student, labels)
