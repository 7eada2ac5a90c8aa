"""A head that is solved is the optimum scikit-learn finds, and its penalty is chosen without the test rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from made_label_sets import make_marks
from phoropter.core.errors import SpecError
from phoropter.data.dataset import Dataset
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.splits.inner_splits import split_training_rows
from phoropter.data.splits.protocol import Split, make_splits
from phoropter.data.splits.spec import KFold
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.candidates.recipe import LossSpec
from phoropter.training.fit import TrainingTask
from phoropter.training.frozen.batched_fit import can_batch, fit_batched
from phoropter.training.loop.losses import compute_class_weights
from phoropter.training.solved_heads.logistic_regression import fit_logistic
from phoropter.training.solved_heads.problem import LogisticProblem

torch.set_num_threads(1)
CPU = torch.device("cpu")


def material(width: int = 24) -> tuple[Dataset, np.ndarray[Any, np.dtype[np.float32]], list[Split]]:
    """150 digits, and features in which their classes overlap, on scales that differ a thousandfold."""
    dataset = open_dataset(DataSpec(digits=True, max_samples=150))
    random = np.random.default_rng(0)
    centres = random.normal(size=(10, width))
    features = (centres[dataset.labels] + 1.5 * random.normal(size=(150, width))) * np.geomspace(0.01, 10, width) + 3
    return dataset, features.astype(np.float32), make_splits(dataset, KFold(3, seeds=[0, 1]))


def reference(features: Any, dataset: Dataset, rows: Any, penalty: float) -> Any:
    scaler = StandardScaler().fit(features[rows].astype(np.float64))
    model = LogisticRegression(C=1 / (penalty * len(rows)), tol=1e-9, max_iter=5000)
    model.fit(scaler.transform(features[rows].astype(np.float64)), dataset.labels[rows])
    return lambda some: model.predict_proba(scaler.transform(features[some].astype(np.float64)))


@pytest.mark.parametrize("penalty", [0.3, 0.01])
def test_every_fold_is_the_optimum_scikit_learn_finds(penalty: float) -> None:
    dataset, features, made = material()
    found = fit_logistic(features, [LogisticProblem(dataset, s) for s in made], [penalty], 3, CPU, tolerance=1e-6)
    for split, one in zip(made, found, strict=True):
        logits = torch.from_numpy(features[split.test]) @ one.weight.T + one.bias
        expected = reference(features, dataset, split.train, penalty)(split.test)
        np.testing.assert_allclose(logits.softmax(1).numpy(), expected, atol=2e-3)
        assert one.info["penalty"] == penalty and one.info["inner_folds"] is None


def test_features_that_are_constant_on_the_training_rows_do_not_spoil_the_test_rows() -> None:
    """As of a ReLU that answers a few images alone: its variance on the other rows is what rounding left of it."""
    dataset, features, splits = material()
    random, rare = np.random.default_rng(1), np.zeros((len(dataset), 40), dtype=np.float32)
    for column in rare.T:
        column[random.choice(splits[0].test, random.integers(1, 5))] = random.uniform(0.001, 10)
    features = np.concatenate([features, rare], 1)
    found = fit_logistic(features, [LogisticProblem(dataset, s) for s in splits], [0.1], 3, CPU, tolerance=1e-6)
    logits = torch.from_numpy(features[splits[0].test]) @ found[0].weight.T + found[0].bias
    expected = reference(features, dataset, splits[0].train, 0.1)(splits[0].test)
    np.testing.assert_allclose(logits.softmax(1).numpy(), expected, atol=2e-3)


def test_class_weights_weigh_rows() -> None:
    dataset, features, made = material()
    weights = torch.linspace(0.5, 3, 10)
    (one,) = fit_logistic(features, [LogisticProblem(dataset, made[0], weights)], [0.05], 3, CPU, tolerance=1e-6)
    rows = made[0].train
    mass = weights.numpy()[dataset.labels[rows]]
    scaler = StandardScaler().fit(features[rows])
    model = LogisticRegression(C=1 / (0.05 * mass.sum()), tol=1e-9, max_iter=5000)
    model.fit(scaler.transform(features[rows]), dataset.labels[rows], sample_weight=mass)
    logits = torch.from_numpy(features[made[0].test]) @ one.weight.T + one.bias
    expected = model.predict_proba(scaler.transform(features[made[0].test]))
    np.testing.assert_allclose(logits.softmax(1).numpy(), expected, atol=2e-3)


def test_the_penalty_is_the_best_of_the_inner_folds_and_the_test_rows_have_no_say() -> None:
    dataset, features, made = material()
    problem, penalties = LogisticProblem(dataset, made[0]), [3.0, 1.0, 0.05]
    (one,) = fit_logistic(features, [problem], penalties, 3, CPU)
    rows = made[0].train
    expected = {}
    for penalty in penalties:
        each = [
            (len(judge), log_loss(dataset.labels[judge], reference(features, dataset, fit, penalty)(judge), labels=range(10)))
            for fit, judge in split_training_rows(dataset, made[0], 3)
        ]
        expected[f"{penalty:g}"] = sum(n * loss for n, loss in each) / len(rows)
    assert one.info["inner_loss"] == pytest.approx(expected, rel=0.05)
    assert one.info["penalty"] == float(min(expected, key=expected.__getitem__))
    spoiled = features.copy()
    spoiled[made[0].test] = 1e3
    (again,) = fit_logistic(spoiled, [problem], penalties, 3, CPU)
    torch.testing.assert_close(again.weight, one.weight, rtol=0, atol=0)
    assert again.info == one.info


def test_inner_folds_keep_groups_together_where_the_split_does() -> None:
    dataset, _, made = material()
    groups = np.array([f"person {i % 12}" for i in range(len(dataset))])
    grouped = replace(dataset, groups=groups)
    apart = np.isin(groups, ["person 0", "person 1"])
    split = replace(made[0], train=np.flatnonzero(~apart), test=np.flatnonzero(apart))
    folds = list(split_training_rows(grouped, split, 3))
    assert np.array_equal(np.sort(np.concatenate([judge for _, judge in folds])), split.train)
    assert all(not set(groups[fit]) & set(groups[judge]) for fit, judge in folds)
    mixed = list(split_training_rows(grouped, made[0], 3))
    assert any(set(groups[fit]) & set(groups[judge]) for fit, judge in mixed)


def test_as_a_user_writes_it(few_digits: Any, tmp_path: Path) -> None:
    dataset, pixels = few_digits
    written = {"backbone": "test_resnet", "weights": "random", "size": 32, "frozen": True}
    recipe = {"preset": "logistic", "l2_penalties": [0.1, 0.01], "inner_folds": 2}
    (candidate,) = parse_candidates([{**written, "recipe": recipe}], PRESETS["scratch"])
    assert can_batch(candidate) and "logistic regression" in candidate.description
    made = [TrainingTask(candidate, s, dataset, pixels, CPU, tmp_path) for s in make_splits(dataset, KFold(3, seeds=[0]))]
    for task, fitted in zip(made, fit_batched(made), strict=True):
        assert not isinstance(fitted, Exception) and fitted.logistic_info is not None
        right = fitted.predict_held_out(task.split.test)[0].argmax(1) == dataset.labels[task.split.test]
        assert right.mean() > 0.5 and fitted.logistic_info["penalty"] in (0.1, 0.01) and len(fitted.history) == 1


@pytest.mark.parametrize("change", [{"frozen": False}, {"head": "dense"}, {"recipe": {"preset": "logistic", "augment": "hflip"}}])
def test_what_cannot_be_solved_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="penalties"):
        parse_candidates([{"backbone": "test_resnet", "frozen": True, "recipe": "logistic", **change}], PRESETS["scratch"])


@pytest.mark.parametrize("class_weights", ["none", "auto"])
def test_several_labels_are_logistic_regressions_of_their_own(class_weights: str) -> None:
    """Each label's head is scikit-learn's, and the penalty has the least mean loss of all labels on the inner folds."""
    made = make_marks(240, groups=80, shares=(0.5, 0.3, 0.1))
    random = np.random.default_rng(0)
    features = (made.labels @ random.normal(size=(3, 16)) + 2 * random.normal(size=(240, 16))).astype(np.float32)
    splits = make_splits(made, KFold(2))
    loss = LossSpec(class_weights=class_weights)
    problems = [LogisticProblem(made, s, compute_class_weights(loss, made.labels[s.train], made.classes)) for s in splits]
    found = fit_logistic(features, problems, [1.0, 0.1, 0.01], 3, CPU, tolerance=1e-6, held_out=True)
    for split, one in zip(splits, found, strict=True):
        scaler = StandardScaler().fit(features[split.train].astype(np.float64))
        x, logits = scaler.transform(features.astype(np.float64)), features[split.test] @ one.weight.T.numpy() + one.bias.numpy()
        strength = 1 / (one.info["penalty"] * len(split.train))
        for label in range(3):
            model = LogisticRegression(
                C=strength, tol=1e-9, max_iter=5000, class_weight="balanced" if class_weights == "auto" else None
            )
            model.fit(x[split.train], made.labels[split.train, label])
            np.testing.assert_allclose(logits[:, label], model.decision_function(x[split.test]), atol=5e-3)
        assert float(min(one.info["inner_loss"], key=one.info["inner_loss"].get)) == one.info["penalty"]
        assert one.held_out_logits is not None and one.held_out_logits.shape == (len(split.train), 3)
        assert made.groups is not None
    folds = list(split_training_rows(made, splits[0], 3))
    assert not any(set(made.groups[fit]) & set(made.groups[validate]) for fit, validate in folds)


def test_hessians_are_inverted_to_the_same_bits_by_any_number_of_threads() -> None:
    """By several threads a factorisation of 257 × 257 has other last bits."""
    from phoropter.training.solved_heads.solver import _invert_hessians

    drawn = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 257)).astype(np.float32))
    before = torch.get_num_threads()
    try:
        inverses = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            inverses.append(_invert_hessians((drawn.T @ drawn / 300)[None], 1e-3))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*inverses)
