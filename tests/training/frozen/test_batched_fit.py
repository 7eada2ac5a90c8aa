"""Many heads at once end where each would have ended alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.core.errors import DivergedError
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.custom_loss import Loss
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.fit import TrainedRun, TrainingTask, fit
from phoropter.training.frozen.batched_fit import batch_group_key, can_batch, fit_batched

torch.set_num_threads(1)

MEMBER = {"weights": "random", "size": 32}
FUSION: dict[str, Any] = {
    "fuse": [{"name": "test_resnet", **MEMBER}, {"name": "test_vit", **MEMBER}],
    "recipe": {"preset": "probe", "epochs": 2},
}


def quadratic(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The Brier score of each row."""
    return (logits.softmax(1) - torch.nn.functional.one_hot(labels, logits.shape[1])).square().sum(1)


QUADRATIC = Loss("quadratic", compute=quadratic)
CANDIDATES: dict[str, dict[str, Any]] = {
    "linear, adamw, cosine": {},
    "dense, sgd, one-cycle": {
        "head": "dense",
        "recipe": {"preset": "probe", "optimizer": "sgd", "schedule": "one-cycle", "lr": 0.5},
    },
    "weights, smoothing, clip": {
        "recipe": {"preset": "probe", "loss": {"class_weights": "auto", "smoothing": 0.1}, "grad_clip": 0.05, "lr": 0.05}
    },
    "focal, two phases": {
        "recipe": {
            "phases": [{"train": "head", "epochs": 1, "lr": 0.05}, {"train": "head", "epochs": 2, "lr": 0.01}],
            "loss": "focal",
        }
    },
    "linear, dropout": {"head": {"kind": "linear", "dropout": 0.5}, "recipe": {"preset": "probe", "epochs": 2, "lr": 0.05}},
    "dense, dropout before": {"head": {"kind": "dense", "dropout": 0.5}, "recipe": {"preset": "probe", "epochs": 2, "lr": 0.05}},
    "dense, dropout within": {
        "head": {"kind": "dense", "dropout": 0.3, "dropout_at": "hidden"},
        "recipe": {
            "preset": "probe",
            "epochs": 2,
            "optimizer": "sgd",
            "lr": 0.5,
            "loss": {"class_weights": "auto", "smoothing": 0.1},
        },
    },
    "a loss of the user's own": {"recipe": {"preset": "probe", "loss": {"kind": QUADRATIC, "class_weights": "auto"}, "lr": 0.05}},
    "its fusion, auxiliary": {**FUSION, "aux_loss_weight": 0.3, "recipe": {"preset": "probe", "epochs": 2, "loss": QUADRATIC}},
    "frozen fusion": FUSION,
    "frozen fusion of the paper": {
        **FUSION,
        **{"start": "random", "hidden": 12, "dropout": 0.5, "head": {"kind": "dense", "dropout": 0.5}},
    },
    "frozen fusion, a small net beside the average": {**FUSION, "hidden": 12, "dropout": 0.5, "aux_loss_weight": 0.3},
    "fused features, auxiliary": {**FUSION, "mode": "concat", "aux_loss_weight": 0.3},
    "pretended rare class": {
        "recipe": {"preset": "probe", "imbalance": {"undersample": 1.2, "stratified_batches": True}, "lr": 0.05}
    },
}


def tasks(
    few_digits: Any, cache: Path, entry: dict[str, Any], seeds: tuple[int, ...] = (0, 1), device: str = "cpu"
) -> list[TrainingTask]:
    dataset, pixels = few_digits
    lone = {} if "fuse" in entry else {"backbone": "test_resnet", **MEMBER}
    written = {**lone, "frozen": True, "recipe": "probe", **entry}
    (candidate,) = parse_candidates([written], PRESETS["scratch"])
    candidate = candidate.model_copy(update={"recipe": parse_recipe({"batch_size": 16}, candidate.recipe)})
    if candidate.recipe.total_epochs > 4:
        candidate = candidate.model_copy(update={"recipe": parse_recipe({"epochs": 4}, candidate.recipe)})
    made = make_splits(dataset, KFold(2 if candidate.fusion else 4, seeds=list(seeds)))
    return [TrainingTask(candidate, split, dataset, pixels, torch.device(device), cache) for split in made]


def alone(task: TrainingTask) -> TrainedRun:
    training = fit(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CANDIDATES)
def test_each_equals_the_one_trained_alone(few_digits: Any, tmp_path: Path, name: str) -> None:
    made = tasks(few_digits, tmp_path, CANDIDATES[name])
    assert can_batch(made[0].candidate)
    for task, outcome in zip(made, fit_batched(made), strict=True):
        single = alone(task)
        assert isinstance(outcome, TrainedRun)
        rows = task.split.test
        np.testing.assert_allclose(outcome.predict_held_out(rows)[0], single.predict_held_out(rows)[0], rtol=1e-3, atol=1e-4)
        for row, expected in zip(outcome.history, single.history, strict=True):
            assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)
            assert row["train_accuracy"] == pytest.approx(expected["train_accuracy"], abs=0.02)
            assert row["learning_rate"] == pytest.approx(expected["learning_rate"])


@pytest.mark.gpu
@pytest.mark.parametrize("name", CANDIDATES)
def test_on_a_gpu_each_equals_the_one_trained_alone(few_digits: Any, tmp_path: Path, name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    made = tasks(few_digits, tmp_path, CANDIDATES[name], device="cuda")
    for task, outcome in zip(made, fit_batched(made), strict=True):
        single = alone(task)
        assert isinstance(outcome, TrainedRun)
        rows = task.split.test
        np.testing.assert_allclose(outcome.predict_held_out(rows)[0], single.predict_held_out(rows)[0], rtol=1e-2, atol=1e-3)


def test_another_loss_gives_other_heads(few_digits: Any, tmp_path: Path) -> None:
    """Were a loss of the user's own trained as cross-entropy, these would be equal."""
    recipe = {"preset": "probe", "lr": 0.05}
    plain, other = (
        fit_batched(tasks(few_digits, tmp_path, {"recipe": {**recipe, "loss": loss}}, seeds=(0,)))
        for loss in ("cross-entropy", QUADRATIC)
    )
    for a, b in zip(plain, other, strict=True):
        assert isinstance(a, TrainedRun) and isinstance(b, TrainedRun)
        assert not torch.allclose(a.model.head.state_dict()["head.last.weight"], b.model.head.state_dict()["head.last.weight"])


def test_folds_and_seeds_differ_from_one_another(few_digits: Any, tmp_path: Path) -> None:
    outcomes = fit_batched(tasks(few_digits, tmp_path, {}))
    heads = [o.model.head.state_dict() for o in outcomes if isinstance(o, TrainedRun)]
    flat = [torch.cat([v.flatten() for v in h.values()]) for h in heads]
    assert len(flat) == 8
    assert all(not torch.equal(a, b) for i, a in enumerate(flat) for b in flat[:i])


def test_diverging_heads_fail_without_the_others_folder(few_digits: Any, tmp_path: Path) -> None:
    outcomes = fit_batched(tasks(few_digits, tmp_path, {"recipe": {"preset": "probe", "optimizer": "sgd", "lr": 1e30}}))
    assert all(isinstance(o, DivergedError) for o in outcomes)


@pytest.mark.parametrize(
    "entry",
    [
        {"frozen": False, "recipe": "scratch"},
        {"recipe": {"preset": "probe", "augment": "hflip"}},
        {"recipe": {"preset": "probe", "ema": 0.9}},
        {"recipe": {"preset": "probe", "grad_accum_steps": 2}},
    ],
)
def test_what_cannot_be_batched_is_left_to_fit(few_digits: Any, tmp_path: Path, entry: dict[str, Any]) -> None:
    assert not can_batch(tasks(few_digits, tmp_path, entry)[0].candidate)


@pytest.mark.parametrize(
    "entry",
    [
        {"head": "dense"},
        {"head": {"kind": "dense", "dropout": 0.5, "dropout_at": "hidden"}},
        {**FUSION, "aux_loss_weight": 0.3},
    ],
    ids=["dense", "dropout within", "fusion"],
)
def test_rates_and_decays_of_a_sweep_share_a_program(few_digits: Any, tmp_path: Path, entry: dict[str, Any]) -> None:
    made = []
    for lr, decay in ((0.01, 0.0), (0.002, 0.1)):
        recipe = {"preset": "probe", "epochs": 2, "lr": lr, "optimizer": {"weight_decay": decay}}
        made += tasks(few_digits, tmp_path, {**entry, "recipe": recipe}, seeds=(0,))
    assert batch_group_key(made[0].candidate) == batch_group_key(made[-1].candidate)
    for task, outcome in zip(made, fit_batched(made), strict=True):
        single = alone(task)
        assert isinstance(outcome, TrainedRun)
        np.testing.assert_allclose(
            outcome.predict_held_out(task.split.test)[0], single.predict_held_out(task.split.test)[0], rtol=1e-3, atol=1e-4
        )
        assert [r["learning_rate"] for r in outcome.history] == pytest.approx([r["learning_rate"] for r in single.history])


def test_nothing_is_dropped_from_what_is_predicted(few_digits: Any, tmp_path: Path) -> None:
    made = tasks(few_digits, tmp_path, CANDIDATES["dense, dropout before"], seeds=(0,))
    first, again = fit_batched(made), fit_batched(made)
    for task, outcome, other in zip(made, first, again, strict=True):
        assert isinstance(outcome, TrainedRun) and isinstance(other, TrainedRun) and outcome.features is not None
        rows = task.split.test
        head = {name: value.double().numpy() for name, value in outcome.model.head.state_dict().items()}
        x = np.asarray(outcome.features[0][rows], dtype=np.float64)
        h = np.maximum(x @ head["head.hidden.weight"].T + head["head.hidden.bias"], 0)
        expected = h @ head["head.last.weight"].T + head["head.last.bias"]
        np.testing.assert_allclose(outcome.predict_held_out(rows)[0], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(
            other.predict_held_out(rows)[0], outcome.predict_held_out(rows)[0]
        )  # trained again, to the same bits


def test_the_best_epoch_is_chosen_on_the_inner_part_as_alone(few_digits: Any, tmp_path: Path) -> None:
    entry = {"recipe": {"preset": "probe", "checkpoint": "best-val", "lr": 0.5}}
    made = tasks(few_digits, tmp_path, entry, seeds=(0,))
    dataset = few_digits[0]
    inner = [replace(s, train=s.train[:-30], val=s.train[-30:]) for s in (t.split for t in made)]
    made = [replace(t, split=s) for t, s in zip(made, inner, strict=True)]
    assert dataset is made[0].dataset
    for task, outcome in zip(made, fit_batched(made), strict=True):
        single = alone(task)
        assert isinstance(outcome, TrainedRun) and outcome.best_epoch == single.best_epoch
        assert [r["validation_loss"] for r in outcome.history] == pytest.approx(
            [r["validation_loss"] for r in single.history], rel=1e-3
        )
        np.testing.assert_allclose(
            outcome.predict_held_out(task.split.test)[0], single.predict_held_out(task.split.test)[0], rtol=1e-3, atol=1e-3
        )


def test_a_backbone_runs_once_for_all_folds_of_a_seed(few_digits: Any, tmp_path: Path) -> None:
    fit_batched(tasks(few_digits, tmp_path, {}))
    assert len([p for p in (tmp_path / "features").iterdir() if p.is_dir()]) == 2  # random weights: one a seed


def test_float16_features_take_half_the_disk(few_digits: Any, tmp_path: Path) -> None:
    whole, half = (
        tasks(few_digits, tmp_path / name, {"recipe": {"preset": "probe", "feature_dtype": name}}, seeds=(0,))
        for name in ("float32", "float16")
    )
    sizes = [sum(f.stat().st_size for f in (tmp_path / name).rglob("features.npy")) for name in ("float32", "float16")]
    assert sizes == [0, 0]
    outcomes = [fit_batched(made) for made in (whole, half)]
    sizes = [sum(f.stat().st_size for f in (tmp_path / name).rglob("features.npy")) for name in ("float32", "float16")]
    assert sizes[1] < 0.52 * sizes[0]
    for task, a, b in zip(whole, *outcomes, strict=True):
        assert isinstance(a, TrainedRun) and isinstance(b, TrainedRun)
        np.testing.assert_allclose(b.predict_held_out(task.split.test)[0], a.predict_held_out(task.split.test)[0], atol=2e-2)
    assert whole[0].candidate.identity() != half[0].candidate.identity()


def test_training_leaves_the_random_state_of_torch_alone(few_digits: Any, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    fit_batched(tasks(few_digits, tmp_path, CANDIDATES["frozen fusion"])[:1])
    assert torch.equal(torch.get_rng_state(), before)
