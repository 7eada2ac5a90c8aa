"""Unfinished trainings are told from finished ones: on made curves with a known course, and on real heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.study.records.convergence_record import describe_convergence
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.fit import TrainedRun, TrainingTask, fit
from phoropter.training.loop.convergence import TrainingAnswers, judge_convergence, measure_last_quarter

torch.set_num_threads(1)
ANSWERS = TrainingAnswers(accuracy=0.8, n_classes=10, n_silent=0)


def decaying_curve(rate: float, epochs: int = 20, noise: float = 0.0, schedule: str = "constant", seed: int = 0) -> list[Any]:
    """Losses exp(−rate · c) after the share c of the learning, and accuracies that rise as they fall."""
    lr = np.ones(epochs) if schedule == "constant" else (1 + np.cos(np.pi * np.arange(1, epochs + 1) / epochs)) / 2
    done = np.cumsum((lr + np.concatenate([lr[:1], lr[:-1]])) / 2)
    loss = np.exp(-rate * done / done[-1]) + np.random.default_rng(seed).normal(scale=noise, size=epochs)
    rows = zip(lr, loss, 1 - 0.5 * np.exp(-rate * done / done[-1]), strict=True)
    return [{"learning_rate": r, "train_loss": v, "train_accuracy": a} for r, v, a in rows]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_share_of_the_fall_is_that_of_the_curve(schedule: str) -> None:
    """exp(−kc) from c = 0.75 to 1, of its fall since the first epoch; a line through a convex course is a little off."""
    for rate in (0.5, 1.0, 2.0):
        rows = decaying_curve(rate, 200, schedule=schedule)
        quarter = measure_last_quarter(rows)
        assert quarter is not None
        known = (np.exp(-0.75 * rate) - np.exp(-rate)) / (rows[0]["train_loss"] - np.exp(-rate))
        assert quarter.fall_share == pytest.approx(known, rel=0.12)
        assert quarter.accuracy_rise == pytest.approx(0.5 * (np.exp(-0.75 * rate) - np.exp(-rate)), rel=0.12)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(("rate", "unfinished"), [(0.3, True), (1.0, True), (3.0, False), (8.0, False)])
def test_a_curve_that_goes_on_falling_is_unfinished(schedule: str, rate: float, unfinished: bool) -> None:
    found = judge_convergence(decaying_curve(rate, schedule=schedule), ANSWERS, 0, None)
    assert bool(found.not_converged) == unfinished
    assert not unfinished or found.not_converged == "accuracy on the training rows was still rising"


def test_noise_on_a_flat_curve_is_no_alarm() -> None:
    """Losses that stand still around a value, under noise of a fifth of their whole fall: 200 of them."""
    alarms = sum(
        bool(judge_convergence(decaying_curve(12.0, 24, noise=0.2, seed=s), ANSWERS, 0, None).not_converged) for s in range(200)
    )
    assert alarms <= 10
    found = sum(
        bool(judge_convergence(decaying_curve(0.8, 24, noise=0.01, seed=s), ANSWERS, 0, None).not_converged) for s in range(50)
    )
    assert found >= 48


def test_what_was_learnt_or_stopped_early_is_finished() -> None:
    rising = decaying_curve(0.5)
    assert judge_convergence(rising, ANSWERS, 0, None).not_converged
    assert judge_convergence(rising, TrainingAnswers(1.0, 10, 0), 0, None).not_converged is None
    assert judge_convergence(rising, ANSWERS, 12, None).not_converged is None  # chosen on validation rows
    assert judge_convergence(rising, ANSWERS, 20, None).not_converged  # the last epoch was the best
    assert judge_convergence(rising[:2], ANSWERS, 0, None).loss_fall_share is None  # two epochs tell nothing


@pytest.mark.parametrize(
    ("answers", "slope", "words"),
    [
        (TrainingAnswers(0.1, 10, 5), None, "it never answers most of its classes"),
        (TrainingAnswers(0.1, 10, 4), None, None),
        (TrainingAnswers(0.97, 2, 1), None, None),  # a rare class of two may rightly never be answered
        (TrainingAnswers(0.9, 10, 0, 12, 6), None, "most hidden units of its head are dead"),
        (TrainingAnswers(0.9, 10, 0, 12, 5), None, None),
        (TrainingAnswers(0.9, 10, 0), 1e-2, "its solver stopped before the optimum"),
        (TrainingAnswers(0.9, 10, 0), 9e-5, None),
        (TrainingAnswers(0.9, 10, 0), float("nan"), "its solver stopped before the optimum"),
    ],
)
def test_silent_classes_dead_units_and_a_solver_that_stopped(answers: TrainingAnswers, slope: float | None, words: Any) -> None:
    assert judge_convergence(decaying_curve(8.0), answers, 0, slope).not_converged == words


def trained_head(few_digits: Any, cache: Path, **entry: Any) -> TrainedRun:
    dataset, pixels = few_digits
    written = {"backbone": "test_resnet", "weights": "random", "size": 32, "frozen": True, **entry}
    (candidate,) = parse_candidates([written], PRESETS["probe"])
    split = make_splits(dataset, KFold(3, seeds=[0]))[0]
    training = fit(TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), cache))
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def test_real_heads_trained_briefly_long_and_solved(few_digits: Any, tmp_path: Path) -> None:
    short = describe_convergence(trained_head(few_digits, tmp_path, recipe={"preset": "probe", "epochs": 20, "lr": 0.02}))
    long = describe_convergence(trained_head(few_digits, tmp_path, recipe={"preset": "probe", "epochs": 150, "lr": 5.0}))
    solved = trained_head(few_digits, tmp_path, recipe="logistic")
    assert short is not None and short["not_converged"] and short["accuracy_rise"] > 0.01
    assert long is not None and long["not_converged"] is None and long["train_accuracy"] > short["train_accuracy"]
    told = describe_convergence(solved)
    assert told is not None and told["not_converged"] is None and told["loss_fall_share"] is None
    # What it answers on its training rows is what the fit counted
    assert told["train_accuracy"] == pytest.approx(solved.history[0]["train_accuracy"], abs=1e-6)


def test_dead_units_and_silent_classes_of_a_real_head(few_digits: Any, tmp_path: Path) -> None:
    run = trained_head(few_digits, tmp_path, head={"kind": "dense", "hidden": 10}, recipe={"preset": "probe", "epochs": 3})
    head: Any = run.model.head.get_submodule("head")
    with torch.no_grad():
        head.hidden.weight[:7] = 0
        head.hidden.bias[:7] = -1
        head.last.bias[0] = 1e3
    told = describe_convergence(run)
    assert told is not None and told["silent_classes"] == pytest.approx(0.9) and told["dead_units"] >= 0.7
    assert "never answers most of its classes" in told["not_converged"] and "are dead" in told["not_converged"]
