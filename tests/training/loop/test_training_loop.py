"""The loop: rates against torch's own schedulers, accumulation, averages, divergence, and going on bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.core.errors import DivergedError
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.training.augmentation.custom_step import AugmentationStep
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.candidates.recipe import ScheduleSpec
from phoropter.training.fit import TrainedRun, TrainingTask, fit
from phoropter.training.loop import precision as loop_precision
from phoropter.training.loop.checkpoint import Checkpoints, TrainingState
from phoropter.training.loop.schedule import cycled_momentum, learning_rate_factor
from phoropter.training.loop.training_loop import StepProgress

torch.set_num_threads(1)


def rates(schedule: ScheduleSpec, per_epoch: int, epochs: int) -> list[float]:
    return [learning_rate_factor(schedule, s, per_epoch, epochs) for s in range(per_epoch * epochs)]


def torch_rates(make: Any, steps: int) -> tuple[list[float], list[float]]:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found, betas = [], []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        betas.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        scheduler.step()
    return found, betas


def test_one_cycle_is_torch_s_momentum_and_all() -> None:
    schedule = ScheduleSpec(kind="one-cycle")
    made = lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=40)  # noqa: E731
    expected, betas = torch_rates(made, 40)
    np.testing.assert_allclose(rates(schedule, 10, 4), expected, atol=1e-7)
    np.testing.assert_allclose([cycled_momentum(schedule, s, 40) for s in range(40)], betas, atol=1e-7)


def test_cosine_is_torch_s() -> None:
    expected, _ = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.1), 40)
    np.testing.assert_allclose(rates(ScheduleSpec(min_lr_ratio=0.1), 10, 4), expected, atol=1e-7)


def test_step_is_torch_s_and_warm_up_climbs_from_nothing() -> None:
    expected, _ = torch_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, 20, gamma=0.5), 40)
    np.testing.assert_allclose(rates(ScheduleSpec(kind="step", step_size=2, gamma=0.5), 10, 4), expected, atol=1e-7)
    warm = rates(ScheduleSpec(kind="constant", warmup=0.1), 10, 4)
    assert warm == [0.25, 0.5, 0.75, 1.0, *[1.0] * 36]


def task_of(
    few_digits: Any, tmp_path: Path, recipe: Any, *, every_s: float = 1e9, frozen: bool = False, **entry: Any
) -> TrainingTask:
    dataset, pixels = few_digits
    split = make_splits(dataset, KFold(3))[0]
    written = {"backbone": "test_resnet", "weights": "random", "size": 32, **entry}
    if frozen:
        written |= {"frozen": True, "recipe": recipe}
    (candidate,) = parse_candidates([written], parse_recipe({"batch_size": 32, **recipe}, PRESETS["scratch"]))
    folder = tmp_path / "work"
    folder.mkdir(exist_ok=True)
    checkpoints = Checkpoints(folder, every_s)
    return TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), tmp_path / "cache", checkpoints=checkpoints)


def finish(task: TrainingTask, stop_after: int | None = None) -> TrainedRun | None:
    """Runs a fit to its end, or lets go of it after so many checkpoints, as a kill would."""
    training = fit(task)
    saved: list[int] = []
    save = task.checkpoints.save

    class Killed(Exception):
        pass

    def counting(state: TrainingState) -> None:
        save(state)
        saved.append(1)
        if stop_after is not None and len(saved) >= stop_after:
            raise Killed

    task.checkpoints.save = counting  # type: ignore[method-assign]
    try:
        while True:
            next(training)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except Killed:
        return None


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"epochs": 2},
    "accumulated and clipped": {"epochs": 2, "grad_accum_steps": 2, "grad_clip": 0.5, "batch_size": 16},
    "averaged, augmented": {"epochs": 2, "ema": 0.9, "augment": [{"crop": {"padding": 2}}, "hflip", "cutmix"]},
    "two phases, dropout": {"phases": [{"train": "head", "epochs": 1, "lr": 1e-2}, {"epochs": 1, "lr": 1e-3}]},
    "one-cycle sgd": {"epochs": 2, "optimizer": "sgd", "schedule": "one-cycle"},
    "bf16": {"epochs": 1, "precision": "bf16"},
    "augmented by a step of the user's own": {
        "epochs": 2,
        "augment": [AugmentationStep("shade", apply=lambda x, u: (x * torch.from_numpy(u)[:, :, None, None]).to(torch.uint8))],
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_killed_run_goes_on_bit_for_bit(few_digits: Any, tmp_path: Path, name: str) -> None:
    head = {"head": {"kind": "dense", "dropout": 0.5}} if "dropout" in name else {}
    (tmp_path / "a").mkdir()
    whole = finish(task_of(few_digits, tmp_path / "a", RECIPES[name], **head))
    assert whole is not None
    for stop_after in (1, 3):
        folder = tmp_path / f"killed-{stop_after}"
        folder.mkdir()
        assert finish(task_of(few_digits, folder, RECIPES[name], every_s=0, **head), stop_after) is None
        resumed = finish(task_of(few_digits, folder, RECIPES[name], every_s=0, **head))
        assert resumed is not None
        for (key, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
            assert torch.equal(a, b), key
        rows = whole.task.split.test
        np.testing.assert_array_equal(whole.predict_held_out(rows)[0], resumed.predict_held_out(rows)[0])
        kept = ("epoch", "phase", "learning_rate", "train_loss", "train_accuracy")
        assert [[r[k] for k in kept] for r in whole.history] == [[r[k] for k in kept] for r in resumed.history]


def test_a_frozen_candidate_goes_on_bit_for_bit_from_features(few_digits: Any, tmp_path: Path) -> None:
    recipe = {"phases": [{"train": "head", "epochs": 3, "lr": 1e-2}]}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = finish(task_of(few_digits, tmp_path / "a", recipe, frozen=True))
    assert finish(task_of(few_digits, tmp_path / "b", recipe, every_s=0, frozen=True), 4) is None
    resumed = finish(task_of(few_digits, tmp_path / "b", recipe, every_s=0, frozen=True))
    assert whole is not None and resumed is not None and whole.features is not None
    np.testing.assert_array_equal(
        whole.predict_held_out(whole.task.split.test)[0], resumed.predict_held_out(whole.task.split.test)[0]
    )


def test_an_epoch_that_was_told_is_not_told_again(few_digits: Any, tmp_path: Path) -> None:
    """Whoever watches is killed right after a row: the next one goes on behind it, also where a phase ends or all do."""
    recipe = {"phases": [{"train": "head", "epochs": 1, "lr": 1e-2}, {"epochs": 2, "lr": 1e-3}]}
    (tmp_path / "a").mkdir()
    whole = finish(task_of(few_digits, tmp_path / "a", recipe))
    assert whole is not None
    told: list[int] = []
    resumed: TrainedRun | None = None
    while resumed is None:
        training = fit(task_of(few_digits, tmp_path, recipe, every_s=0))
        try:
            row = next(row for row in training if isinstance(row, dict))
            told.append(row["epoch"])
        except StopIteration:
            resumed = finish(task_of(few_digits, tmp_path, recipe, every_s=0))
    assert told == [1, 2, 3]
    for (key, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\nflags\t\t: fpu amx_bf16\n", True),
        ("flags\t\t: fpu amx_bf16\nflags\t\t: fpu avx2\n", False),  # a core that has none
        ("flags\t\t: fpu avx2 avx512f\nbugs\t\t: avx512_bf16\n", False),
        ("", False),
    ],
)
def test_auto_asks_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert loop_precision.has_bf16_units(tmp_path / "cpuinfo") is (expected and torch.backends.mkldnn.is_available())
    assert loop_precision.has_bf16_units(tmp_path / "nothing") is False
    monkeypatch.setattr(loop_precision, "has_bf16_units", lambda: expected)
    auto, plain = (parse_recipe({"precision": p}, PRESETS["scratch"]) for p in ("auto", "float32"))
    assert loop_precision.resolve_autocast_dtype(auto, torch.device("cpu")) is (torch.bfloat16 if expected else torch.float32)
    assert (
        loop_precision.resolve_autocast_dtype(plain, torch.device("cpu"))
        is loop_precision.resolve_autocast_dtype(auto, torch.device("meta"))
        is torch.float32
    )


def test_a_fitted_classifier_says_what_it_computed_in(few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_precision, "has_bf16_units", lambda: True)
    for precision, expected in (("auto", "bfloat16"), ("float32", "float32")):
        recipe = {"phases": [{"train": "head", "epochs": 1, "lr": 1e-2}], "precision": precision}
        (tmp_path / precision).mkdir()
        made = finish(task_of(few_digits, tmp_path / precision, recipe))
        assert made is not None and made.precision == expected


def test_a_torn_checkpoint_costs_a_restart_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    assert Checkpoints(tmp_path).load() == TrainingState()


def test_a_checkpoint_that_would_run_code_is_not_unpickled(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps(Evil()))
    torch.save(Evil(), tmp_path / "zip.pt")
    assert Checkpoints(tmp_path).load() == TrainingState()
    (tmp_path / "zip.pt").replace(tmp_path / "checkpoint.pt")
    assert Checkpoints(tmp_path).load() == TrainingState() and not (tmp_path / "ran").exists()


def test_accumulated_batches_equal_one_large_batch(few_digits: Any, tmp_path: Path) -> None:
    """On stored features (no batch norm) two batches of 16 are one of 32, up to rounding."""
    phases = [{"train": "head", "epochs": 2, "lr": 1e-2}]
    models = []
    for name, batch, accumulate in (("a", 50, 1), ("b", 25, 2)):
        (tmp_path / name).mkdir()
        recipe = {"phases": phases, "batch_size": batch, "grad_accum_steps": accumulate}
        fitted = finish(task_of(few_digits, tmp_path / name, recipe, frozen=True))
        assert fitted is not None
        models.append(fitted.predict_held_out(fitted.task.split.test)[0])
    np.testing.assert_allclose(*models, rtol=1e-4, atol=1e-5)


def test_a_run_that_diverges_says_so(few_digits: Any, tmp_path: Path) -> None:
    recipe = {"phases": [{"epochs": 3, "lr": 1e18}], "optimizer": {"kind": "sgd", "weight_decay": 0}}
    with pytest.raises(DivergedError, match=r"the training loss became .* in epoch . of 3: lower the learning rate"):
        finish(task_of(few_digits, tmp_path, recipe))


def test_training_leaves_torch_s_generator_alone(few_digits: Any, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    finish(task_of(few_digits, tmp_path, {"epochs": 1}))
    assert torch.equal(before, torch.get_rng_state())


def test_the_best_epoch_by_validation_is_kept(few_digits: Any, tmp_path: Path) -> None:
    dataset, pixels = few_digits
    split = make_splits(dataset, KFold(3, val_size=0.2))[0]
    recipe = parse_recipe({"epochs": 4, "checkpoint": "best_val", "lr": 0.05, "batch_size": 16}, PRESETS["scratch"])
    (candidate,) = parse_candidates([{"backbone": "test_resnet", "weights": "random", "size": 32}], recipe)
    fitted = finish(TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), tmp_path))
    assert fitted is not None and split.val is not None
    losses = [row["validation_loss"] for row in fitted.history]
    assert fitted.best_epoch == int(np.argmin(losses)) + 1
    logits, labels = torch.from_numpy(fitted.predict_held_out(split.val)[0]), torch.from_numpy(dataset.labels[split.val])
    assert float(torch.nn.functional.cross_entropy(logits, labels)) == pytest.approx(min(losses))


def test_a_tick_says_where_a_long_epoch_is() -> None:
    assert vars(StepProgress(1, 3, 5, 10, 99.0)) == {"epoch": 1, "epochs": 3, "step": 5, "steps": 10, "images_per_s": 99.0}
