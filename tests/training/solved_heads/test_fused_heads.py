"""Solved heads of fusions are the optima that scikit-learn and SciPy find, and the test rows have no say in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from phoropter.data.dataset import Dataset
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.splits.inner_splits import split_training_rows
from phoropter.data.splits.protocol import Split, make_splits
from phoropter.data.splits.spec import KFold
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.fit import TrainingTask, predict_rows
from phoropter.training.frozen.batched_fit import can_batch, fit_batched
from phoropter.training.solved_heads import fused_heads
from phoropter.training.solved_heads.fused_heads import SolvedHead, solve_heads
from phoropter.training.solved_heads.problem import LogisticProblem

torch.set_num_threads(1)
CPU = torch.device("cpu")
Floats = np.ndarray[Any, np.dtype[np.float32]]


def material() -> tuple[Dataset, list[Floats], list[Split]]:
    """120 digits of four classes, and features of two branches in which their classes overlap."""
    dataset = open_dataset(DataSpec(digits=True, max_samples=120, classes=["0", "1", "2", "3"]))
    random = np.random.default_rng(0)
    features = []
    for width, noise in ((16, 1.5), (6, 2.0)):
        centres = random.normal(size=(4, width))
        features.append((centres[dataset.labels] + noise * random.normal(size=(len(dataset), width))).astype(np.float32))
    return dataset, features, make_splits(dataset, KFold(3, seeds=[0]))


def fit_reference(x: Any, y: Any, rows: Any, penalty: float) -> Any:
    """(N, C) logits of scikit-learn's optimum for these rows."""
    scaler = StandardScaler().fit(x[rows].astype(np.float64))
    model = LogisticRegression(C=1 / (penalty * len(rows)), tol=1e-9, max_iter=5000)
    model.fit(scaler.transform(x[rows].astype(np.float64)), y[rows])
    return model.decision_function(scaler.transform(x.astype(np.float64)))


def head_logits(head: SolvedHead, features: list[Floats]) -> tuple[Any, list[Any]]:
    """(N, C) logits of stacked heads, and those of each branch."""
    state = {k: v.numpy().astype(np.float64) for k, v in head.state.items()}
    branches = [x @ state[f"branches.{i}.last.weight"].T + state[f"branches.{i}.last.bias"] for i, x in enumerate(features)]
    correction = np.concatenate(branches, 1) @ state["fusing.last.weight"].T + state["fusing.last.bias"]
    return np.mean(branches, 0) + correction, branches


def probabilities(logits: Any) -> Any:
    return np.exp(log_softmax(logits, axis=1))


def test_concatenated_features_are_one_logistic_regression() -> None:
    dataset, features, splits = material()
    heads = solve_heads(features, [LogisticProblem(dataset, s) for s in splits], [0.1], 3, CPU, "concat")
    both = np.concatenate(features, 1)
    for split, head in zip(splits, heads, strict=True):
        logits = both @ head.state["fusing.last.weight"].numpy().T + head.state["fusing.last.bias"].numpy()
        expected = fit_reference(both, dataset.labels, split.train, 0.1)
        np.testing.assert_allclose(probabilities(logits), probabilities(expected), atol=5e-3)
        assert head.accuracy == pytest.approx((logits.argmax(1) == dataset.labels)[split.train].mean())


def held_out_reference(dataset: Dataset, x: Floats, problem: LogisticProblem, penalty: float) -> Any:
    """(N, C) logits of the training rows, each by scikit-learn's optimum without its inner fold."""
    logits = np.zeros((len(dataset), 4))
    for fitted, judged in split_training_rows(problem.dataset, problem.split, 3):
        logits[judged] = fit_reference(x, dataset.labels, fitted, penalty)[judged]
    return logits - logits.mean(1, keepdims=True)


def solve_correction(stacked: Any, average: Any, labels: Any, penalty: float) -> Any:
    """(C, n·C + 1) weights and biases for standardised stacked logits, by SciPy."""
    x = np.hstack([StandardScaler().fit_transform(stacked), np.ones((len(stacked), 1))])

    def objective(flat: Any) -> Any:
        theta = flat.reshape(4, -1)
        logp = log_softmax(average + x @ theta.T, axis=1)
        residual = (np.exp(logp) - np.eye(4)[labels]) / len(labels)
        gradient = residual.T @ x
        gradient[:, :-1] += penalty * theta[:, :-1]
        loss = -logp[np.arange(len(labels)), labels].mean() + penalty / 2 * np.square(theta[:, :-1]).sum()
        return loss, gradient.ravel()

    found = minimize(objective, np.zeros(4 * x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-13})
    return found.x.reshape(4, -1)


@pytest.mark.parametrize("penalty", [0.1, 1.0])
def test_stacked_logits_are_fitted_to_rows_that_the_branches_have_not_seen(
    monkeypatch: pytest.MonkeyPatch, penalty: float
) -> None:
    monkeypatch.setattr(fused_heads, "STACKING_PENALTIES", (penalty,))
    dataset, features, splits = material()
    problem = LogisticProblem(dataset, splits[0])
    (head,) = solve_heads(features, [problem], [0.1], 3, CPU, "logits")
    train = splits[0].train
    held_out = [held_out_reference(dataset, x, problem, 0.1) for x in features]
    for x, own in zip(features, head_logits(head, features)[1], strict=True):  # the branches' heads have seen all training rows
        expected = fit_reference(x, dataset.labels, train, 0.1)
        np.testing.assert_allclose(probabilities(own), probabilities(expected), atol=5e-3)
    stacked, average = np.concatenate(held_out, 1)[train], np.mean(held_out, 0)[train]
    theta = solve_correction(stacked, average, dataset.labels[train], penalty)
    scaler = StandardScaler().fit(stacked)
    _, branches = head_logits(head, features)
    centred = [b - b.mean(1, keepdims=True) for b in branches]
    both = scaler.transform(np.concatenate(centred, 1))
    expected = np.mean(centred, 0) + both @ theta[:, :-1].T + theta[:, -1]
    np.testing.assert_allclose(probabilities(head_logits(head, features)[0]), probabilities(expected), atol=1e-2)
    in_sample = probabilities(head_logits(head, features)[0])[train]
    assert head.loss == pytest.approx(-np.log(in_sample[np.arange(len(train)), dataset.labels[train]]).mean(), rel=1e-3)


def test_under_the_largest_penalty_the_stack_is_the_average() -> None:
    dataset, features, splits = material()
    (head,) = solve_heads(features, [LogisticProblem(dataset, splits[0])], [0.1], 3, CPU, "logits")
    assert head.info["penalty"] in fused_heads.STACKING_PENALTIES and len(head.info["branches"]) == 2
    (held,) = _solve_under(dataset, features, splits[:1], 1e6)
    logits, branches = head_logits(held, features)
    bias = held.state["fusing.last.bias"].numpy()
    np.testing.assert_allclose(logits - bias, np.mean(branches, 0), atol=1e-3)


def _solve_under(dataset: Dataset, features: list[Floats], splits: list[Split], penalty: float) -> list[SolvedHead]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_heads, "STACKING_PENALTIES", (penalty,))
        return solve_heads(features, [LogisticProblem(dataset, s) for s in splits], [0.1], 3, CPU, "logits")


def test_the_test_rows_have_no_say_in_a_stack() -> None:
    dataset, features, splits = material()
    problems = [LogisticProblem(dataset, splits[0])]
    (head,) = solve_heads(features, problems, [1.0, 0.1], 3, CPU, "logits")
    spoiled = [x.copy() for x in features]
    for x in spoiled:
        x[splits[0].test] = 1e3
    (again,) = solve_heads(spoiled, problems, [1.0, 0.1], 3, CPU, "logits")
    assert again.info == head.info
    assert all(torch.equal(again.state[name], tensor) for name, tensor in head.state.items())


def test_without_inner_folds_the_average_stays() -> None:
    """Training rows of one person: none of them can be held out from the others."""
    dataset, features, splits = material()
    groups = np.where(np.isin(np.arange(len(dataset)), splits[0].train), "one", "other")
    problem = LogisticProblem(replace(dataset, groups=groups), splits[0])
    (head,) = solve_heads(features, [problem], [0.1, 0.01], 3, CPU, "logits")
    logits, branches = head_logits(head, features)
    np.testing.assert_allclose(logits, np.mean(branches, 0))
    assert head.info["penalty"] is None


@pytest.mark.parametrize("mode", ["logits", "concat"])
def test_as_a_user_writes_it(few_digits: Any, tmp_path: Path, mode: str) -> None:
    dataset, pixels = few_digits
    members = [{"name": name, "weights": "random", "size": 32} for name in ("test_resnet", "test_vit")]
    (candidate,) = parse_candidates([{"fuse": members, "mode": mode, "frozen": True}], PRESETS["scratch"])
    assert can_batch(candidate) and "logistic regression" in candidate.description
    splits = make_splits(dataset, KFold(3, seeds=[0]))
    made = [TrainingTask(candidate, s, dataset, pixels, CPU, tmp_path) for s in splits]
    for task, fitted in zip(made, fit_batched(made), strict=True):
        assert not isinstance(fitted, Exception) and fitted.logistic_info is not None
        answers = predict_rows(fitted, task.split.train)[0].argmax(1)
        assert fitted.history[0]["train_accuracy"] == pytest.approx((answers == dataset.labels[task.split.train]).mean())
        right = fitted.predict_held_out(task.split.test)[0].argmax(1) == dataset.labels[task.split.test]
        assert right.mean() > 0.5
