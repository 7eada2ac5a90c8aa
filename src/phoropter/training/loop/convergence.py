"""Whether a training had finished learning when it ended: the rule on its history, and what the trained network answers.

The stretch that is judged is the last quarter of the learning: of the sum of the learning rate over the epochs, not of the
epochs, because a schedule that ends near zero flattens every curve. A training counts as unfinished where more than FALL_SHARE of
all that the training loss fell came in that quarter, where the fall is beyond the noise of the curve, and where the training
accuracy rose with it. FALL_SHARE was chosen by 36 heads on three sets of real pictures (docs/fusion-and-distillation.md).

Left out: validation curves, which say when to stop and not whether the training rows were learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.training.loop.history import HistoryRow

FALL_SHARE = 0.12  # of the whole fall of the loss: more than that in the last quarter is unfinished
MIN_RISE = 0.005  # of the training accuracy in that quarter
LEARNT = 0.995  # training accuracy above which nothing is left to rise
NOISE_FACTOR = 2.5  # standard errors
MIN_EPOCHS = 3  # fewer have no last quarter that could be compared with the rest
MIN_NOISE_EPOCHS = 5  # fewer leave no difference from which the noise could be read
MAX_SILENT = 0.5  # share of classes never answered, and of hidden units never active, from which the network counts as unfinished
SOLVER_TOLERANCE = 1e-4


@dataclass(frozen=True)
class LastQuarter:
    """The last quarter of the learning. fall_share: of all that the loss fell · standard_error: of it · accuracy_rise: in 0..1"""

    fall_share: float
    standard_error: float
    accuracy_rise: float

    @property
    def still_rising(self) -> bool:
        beyond_noise = self.fall_share > NOISE_FACTOR * self.standard_error
        return self.fall_share > FALL_SHARE and beyond_noise and self.accuracy_rise > MIN_RISE


@dataclass(frozen=True)
class TrainingAnswers:
    """What a trained network answers on rows it was trained on, unaugmented.

    accuracy: on them · n_classes: classes that occur among them, of which `n_silent` are never answered
    n_hidden: hidden units of its head, of which `n_dead` are 0 on every row
    """

    accuracy: float
    n_classes: int
    n_silent: int
    n_hidden: int = 0
    n_dead: int = 0


@dataclass(frozen=True)
class Convergence:
    """For the record of a run. All but the words are in 0..1, None where there is nothing to tell them from.

    loss_fall_share, accuracy_rise: of the last quarter of its learning · train_accuracy: of the trained network
    silent_classes: share of the classes that are never answered on training rows · dead_units: share of hidden units of its head
    not_converged: why it was not trained to the end, in words; None: nothing speaks for that
    """

    loss_fall_share: float | None
    accuracy_rise: float | None
    train_accuracy: float
    silent_classes: float
    dead_units: float | None
    not_converged: str | None

    def plain(self) -> dict[str, Any]:
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


def judge_convergence(
    history: Sequence[HistoryRow], answers: TrainingAnswers, best_epoch: int, solver_slope: float | None
) -> Convergence:
    """The judgement of a run.

    best_epoch: chosen on validation rows; 0: the last · solver_slope: largest gradient entry left of a solved head, else None
    """
    quarter = None if solver_slope is not None else measure_last_quarter(history)
    stopped_early = 0 < best_epoch < len(history)  # later epochs were no better on the validation rows
    reasons = []
    if quarter and quarter.still_rising and answers.accuracy < LEARNT and not stopped_early:
        reasons.append("accuracy on the training rows was still rising")
    if answers.n_classes > 2 and answers.n_silent >= MAX_SILENT * answers.n_classes:
        reasons.append("it never answers most of its classes")
    if answers.n_hidden and answers.n_dead >= MAX_SILENT * answers.n_hidden:
        reasons.append("most hidden units of its head are dead")
    if solver_slope is not None and not solver_slope <= SOLVER_TOLERANCE:
        reasons.append("its solver stopped before the optimum")
    return Convergence(
        loss_fall_share=quarter.fall_share if quarter else None,
        accuracy_rise=quarter.accuracy_rise if quarter else None,
        train_accuracy=answers.accuracy,
        silent_classes=answers.n_silent / max(answers.n_classes, 1),
        dead_units=answers.n_dead / answers.n_hidden if answers.n_hidden else None,
        not_converged="; ".join(reasons) or None,
    )


def measure_last_quarter(history: Sequence[HistoryRow]) -> LastQuarter | None:
    """The fall of the loss and the rise of the accuracy by regression lines over the last quarter, of at least two epochs.

    None of fewer than MIN_EPOCHS, and where the loss did not fall at all.
    """
    if len(history) < MIN_EPOCHS:
        return None
    loss, accuracy, rate = (np.array([row[k] for row in history]) for k in ("train_loss", "train_accuracy", "learning_rate"))
    of_epoch = (rate + np.concatenate([rate[:1], rate[:-1]])) / 2  # a row has the rate at the end of its epoch
    done = np.cumsum(of_epoch) / of_epoch.sum() if of_epoch.sum() > 0 else np.arange(1, len(loss) + 1) / len(loss)
    first = min(int(np.searchsorted(done, 0.75)), len(loss) - 2)
    x, y = done[first:], loss[first:]
    spread = float(np.square(x - x.mean()).sum())
    if not spread:
        return None
    fall = -0.25 * float(((x - x.mean()) * y).sum()) / spread
    rise = 0.25 * float(((x - x.mean()) * accuracy[first:]).sum()) / spread
    in_all = float(loss[0] - y.mean()) + fall / 0.25 * float(done[-1] - x.mean())
    if in_all <= 0:
        return None
    error = 0.25 * _estimate_noise(loss) / np.sqrt(spread)
    return LastQuarter(fall / in_all, float(error) / in_all, rise)


def _estimate_noise(loss: NDArray[np.float64]) -> float:
    """Standard deviation of the loss around its course, from third differences of the later half, in which that cancels."""
    late = loss[min(len(loss) // 2, len(loss) - MIN_NOISE_EPOCHS) :] if len(loss) >= MIN_NOISE_EPOCHS else loss[:0]
    return float(np.sqrt(np.square(np.diff(late, 3)).mean() / 20)) if len(late) else 0.0
