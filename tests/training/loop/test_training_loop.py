"""The training loop: accumulation, divergence, the best epoch, and resuming bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killed_runs import finish, task_of

from phoropter.core.errors import DivergedError
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.models import timm_compat
from phoropter.training.augmentation.custom_step import AugmentationStep
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.fit import TrainedRun, TrainingTask, build_model, fit
from phoropter.training.loop import precision as loop_precision
from phoropter.training.loop.training_loop import StepProgress, update_ema_weights

torch.set_num_threads(1)


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"epochs": 2},
    "accumulated and clipped": {"epochs": 2, "grad_accum_steps": 2, "grad_clip": 0.5, "batch_size": 16},
    "averaged, augmented": {"epochs": 2, "ema": 0.9, "augment": [{"random-crop": {"padding": 2}}, "hflip", "cutmix"]},
    "two phases, dropout": {"phases": [{"train": "head", "epochs": 1, "lr": 1e-2}, {"epochs": 1, "lr": 1e-3}]},
    "one-cycle sgd": {"epochs": 2, "optimizer": "sgd", "schedule": "one-cycle"},
    "bf16": {"epochs": 1, "precision": "bf16"},
    "augmented by a step of the user's own": {
        "epochs": 2,
        "augment": [AugmentationStep("shade", apply=lambda x, u: (x * torch.from_numpy(u)[:, :, None, None]).to(torch.uint8))],
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_killed_run_resumes_bit_for_bit(few_digits: Any, tmp_path: Path, name: str) -> None:
    head = {"head": {"kind": "dense", "dropout": 0.5}} if "dropout" in name else {}
    (tmp_path / "a").mkdir()
    unbroken = finish(task_of(few_digits, tmp_path / "a", RECIPES[name], **head))
    assert unbroken is not None
    for stop_after in (1, 3):
        folder = tmp_path / f"killed-{stop_after}"
        folder.mkdir()
        assert finish(task_of(few_digits, folder, RECIPES[name], every_s=0, **head), stop_after) is None
        resumed = finish(task_of(few_digits, folder, RECIPES[name], every_s=0, **head))
        assert resumed is not None
        for (key, a), b in zip(unbroken.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
            assert torch.equal(a, b), key
        rows = unbroken.task.split.test
        np.testing.assert_array_equal(unbroken.predict_held_out(rows)[0], resumed.predict_held_out(rows)[0])
        kept = ("epoch", "phase", "learning_rate", "train_loss", "train_accuracy")
        assert [[r[k] for k in kept] for r in unbroken.history] == [[r[k] for k in kept] for r in resumed.history]


def test_a_frozen_candidate_resumes_bit_for_bit_from_features(few_digits: Any, tmp_path: Path) -> None:
    recipe = {"phases": [{"train": "head", "epochs": 3, "lr": 1e-2}]}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    unbroken = finish(task_of(few_digits, tmp_path / "a", recipe, frozen=True))
    assert finish(task_of(few_digits, tmp_path / "b", recipe, every_s=0, frozen=True), 4) is None
    resumed = finish(task_of(few_digits, tmp_path / "b", recipe, every_s=0, frozen=True))
    assert unbroken is not None and resumed is not None and unbroken.features is not None
    np.testing.assert_array_equal(
        unbroken.predict_held_out(unbroken.task.split.test)[0], resumed.predict_held_out(unbroken.task.split.test)[0]
    )


def test_a_resumed_run_does_not_report_an_epoch_again(few_digits: Any, tmp_path: Path) -> None:
    """Killed right after every row, also at the end of a phase and of the run."""
    recipe = {"phases": [{"train": "head", "epochs": 1, "lr": 1e-2}, {"epochs": 2, "lr": 1e-3}]}
    (tmp_path / "a").mkdir()
    unbroken = finish(task_of(few_digits, tmp_path / "a", recipe))
    assert unbroken is not None
    reported: list[int] = []
    resumed: TrainedRun | None = None
    while resumed is None:
        training = fit(task_of(few_digits, tmp_path, recipe, every_s=0))
        try:
            row = next(row for row in training if isinstance(row, dict))
            reported.append(row["epoch"])
        except StopIteration:
            resumed = finish(task_of(few_digits, tmp_path, recipe, every_s=0))
    assert reported == [1, 2, 3]
    for (key, a), b in zip(unbroken.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_a_trained_run_names_the_type_it_computed_in(few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_precision, "has_bf16_units", lambda: True)
    for precision, expected in (("auto", "bfloat16"), ("float32", "float32")):
        recipe = {"phases": [{"train": "head", "epochs": 1, "lr": 1e-2}], "precision": precision}
        (tmp_path / precision).mkdir()
        made = finish(task_of(few_digits, tmp_path / precision, recipe))
        assert made is not None and made.precision == expected


def test_accumulated_batches_equal_one_large_batch(few_digits: Any, tmp_path: Path) -> None:
    """On cached features (no batch norm) two batches of 16 are one of 32, up to rounding."""
    phases = [{"train": "head", "epochs": 2, "lr": 1e-2}]
    models = []
    for name, batch, accumulate in (("a", 50, 1), ("b", 25, 2)):
        (tmp_path / name).mkdir()
        recipe = {"phases": phases, "batch_size": batch, "grad_accum_steps": accumulate}
        fitted = finish(task_of(few_digits, tmp_path / name, recipe, frozen=True))
        assert fitted is not None
        models.append(fitted.predict_held_out(fitted.task.split.test)[0])
    np.testing.assert_allclose(*models, rtol=1e-4, atol=1e-5)


def test_a_diverging_run_is_one_sentence(few_digits: Any, tmp_path: Path) -> None:
    recipe = {"phases": [{"epochs": 3, "lr": 1e18}], "optimizer": {"kind": "sgd", "weight_decay": 0}}
    with pytest.raises(DivergedError, match=r"the training loss became .* in epoch . of 3: lower the learning rate"):
        finish(task_of(few_digits, tmp_path, recipe))


def test_training_leaves_torch_s_generator_unchanged(few_digits: Any, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    finish(task_of(few_digits, tmp_path, {"epochs": 1}))
    assert torch.equal(before, torch.get_rng_state())


def test_the_best_epoch_by_validation_is_kept(few_digits: Any, tmp_path: Path) -> None:
    dataset, pixels = few_digits
    split = make_splits(dataset, KFold(3, val_size=0.2))[0]
    recipe = parse_recipe({"epochs": 4, "checkpoint": "best-val", "lr": 0.05, "batch_size": 16}, PRESETS["scratch"])
    (candidate,) = parse_candidates([{"backbone": "test_resnet", "weights": "random", "size": 32}], recipe)
    fitted = finish(TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), tmp_path))
    assert fitted is not None and split.val is not None
    losses = [row["validation_loss"] for row in fitted.history]
    assert fitted.best_epoch == int(np.argmin(losses)) + 1
    logits, labels = torch.from_numpy(fitted.predict_held_out(split.val)[0]), torch.from_numpy(dataset.labels[split.val])
    assert float(torch.nn.functional.cross_entropy(logits, labels)) == pytest.approx(min(losses))


def test_averaged_weights_are_those_of_timm(few_digits: Any, tmp_path: Path) -> None:
    """As its training script has them: `ModelEmaV3`, told the number of the step."""
    model = build_model(task_of(few_digits, tmp_path, {}))
    reference = timm_compat.import_timm("utils").ModelEmaV3(model, decay=0.8)
    average = None
    for step in range(1, 6):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(step if not value.is_floating_point() else torch.randn_like(value))
        average = update_ema_weights(average, model, 0.8)
        reference.update(model, step=step)
    assert average is not None
    for name, value in reference.module.state_dict().items():
        torch.testing.assert_close(average[name], value)


def test_progress_counts_from_one() -> None:
    assert vars(StepProgress(1, 3, 5, 10, 99.0)) == {"epoch": 1, "epochs": 3, "step": 5, "steps": 10, "images_per_s": 99.0}
