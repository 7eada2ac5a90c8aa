"""Schedules against torch's own; optimizers and schedules of the user's own: their contracts, and resuming bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killed_runs import finish, task_of

from phoropter.core.errors import RunError, SpecError
from phoropter.core.extensions import read_recorded_extensions, trust_code
from phoropter.core.spec import validate_as
from phoropter.training.candidates.custom_optimizer import Optimizer, Schedule
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.candidates.recipe import Recipe, ScheduleSpec
from phoropter.training.fit import TrainedRun
from phoropter.training.frozen.batched_fit import can_batch, fit_batched
from phoropter.training.loop.checkpoint import Checkpoints
from phoropter.training.loop.schedule import cycled_momentum, learning_rate_factor, set_learning_rate

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


def test_one_cycle_equals_torch_s_with_its_momentum() -> None:
    schedule = ScheduleSpec(kind="one-cycle")
    made = lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=40)  # noqa: E731
    expected, betas = torch_rates(made, 40)
    np.testing.assert_allclose(rates(schedule, 10, 4), expected, atol=1e-7)
    np.testing.assert_allclose([cycled_momentum(schedule, s, 40) for s in range(40)], betas, atol=1e-7)


def test_cosine_equals_torch_s() -> None:
    expected, _ = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.1), 40)
    np.testing.assert_allclose(rates(ScheduleSpec(min_lr_ratio=0.1), 10, 4), expected, atol=1e-7)


def test_a_schedule_for_more_epochs_than_are_trained_is_left_on_its_way() -> None:
    """As torch's cosine over 80 steps, of which 40 are taken; a plan shorter than the training is refused."""
    expected, _ = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 80), 40)
    np.testing.assert_allclose(rates(ScheduleSpec(planned_epochs=8), 10, 4), expected, atol=1e-7)
    with pytest.raises(ValueError, match="planned_epochs is 3, and a phase trains 4"):
        Recipe.model_validate({"phases": [{"epochs": 4, "lr": 1e-3}], "schedule": {"planned_epochs": 3}})
    with pytest.raises(ValueError, match="planned_epochs"):
        ScheduleSpec(kind="step", planned_epochs=8)


def test_step_equals_torch_s_and_warm_up_climbs_from_zero() -> None:
    expected, _ = torch_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, 20, gamma=0.5), 40)
    np.testing.assert_allclose(rates(ScheduleSpec(kind="step", step_size=2, gamma=0.5), 10, 4), expected, atol=1e-7)
    warm = rates(ScheduleSpec(kind="constant", warmup=0.1), 10, 4)
    assert warm == [0.25, 0.5, 0.75, 1.0, *[1.0] * 36]
    assert rates(ScheduleSpec(kind="constant", warmup_steps=4), 10, 4) == warm
    assert rates(ScheduleSpec(warmup_steps=8), 10, 4) == rates(ScheduleSpec(warmup=0.2), 10, 4)
    assert rates(ScheduleSpec(warmup_steps=80), 10, 4)[-1] == 0.5  # a phase of fewer steps ends on the way up


def rmsprop(groups: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, lr=lr, weight_decay=weight_decay, momentum=0.5)


def adamw(groups: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True)


def sawtooth(step: int, steps_per_epoch: int, epochs: int) -> float:
    return 1 - (step % steps_per_epoch) / (2 * steps_per_epoch) / epochs


RMSPROP, ADAMW, SAWTOOTH = (
    Optimizer("rmsprop", build=rmsprop),
    Optimizer("my-adamw", build=adamw),
    Schedule("saw", factor=sawtooth),
)


def weights_of(run: TrainedRun | None) -> dict[str, Any]:
    assert run is not None
    return dict(run.model.state_dict())


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("frozen", [False, True])
def test_a_killed_run_resumes_bit_for_bit(few_digits: Any, tmp_path: Path, frozen: bool) -> None:
    recipe = {"preset": "scratch", "epochs": 2, "optimizer": RMSPROP, "schedule": SAWTOOTH}
    unbroken = finish(task_of(few_digits, tmp_path / "unbroken", recipe, frozen=frozen))
    assert finish(task_of(few_digits, tmp_path / "killed", recipe, every_s=0, frozen=frozen), 3) is None
    assert Checkpoints(tmp_path / "killed" / "work").load().optimizer is not None
    resumed = finish(task_of(few_digits, tmp_path / "killed", recipe, frozen=frozen))
    assert_equal(weights_of(unbroken), weights_of(resumed))


def test_one_like_a_built_in_trains_the_same_weights(few_digits: Any, tmp_path: Path) -> None:
    """With the groups, rates and decays of the built-in one: AdamW, a cosine written out."""
    cosine = Schedule("my-cosine", factor=lambda s, n, e: learning_rate_factor(ScheduleSpec(), s, n, e))
    one = {"preset": "scratch", "epochs": 1, "optimizer": {"weight_decay": 0.3}, "schedule": "cosine"}
    other = {**one, "optimizer": {"kind": ADAMW, "weight_decay": 0.3}, "schedule": cosine}
    made = [weights_of(finish(task_of(few_digits, tmp_path / str(i), recipe))) for i, recipe in enumerate((one, other))]
    assert_equal(*made)


def test_heads_are_batched_under_a_schedule_but_not_under_an_optimizer_of_the_user_s_own(few_digits: Any, tmp_path: Path) -> None:
    recipe = {"preset": "probe", "epochs": 2}
    scheduled = task_of(few_digits, tmp_path / "one", {**recipe, "schedule": SAWTOOTH}, frozen=True)
    assert can_batch(scheduled.candidate)
    assert not can_batch(task_of(few_digits, tmp_path / "two", {**recipe, "optimizer": ADAMW}, frozen=True).candidate)
    (batched,) = fit_batched([scheduled])
    assert isinstance(batched, TrainedRun)
    alone = weights_of(finish(scheduled))
    for name, value in weights_of(batched).items():
        torch.testing.assert_close(value, alone[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), -0.1, "fast", None])
def test_a_factor_that_is_no_share_is_one_sentence(value: Any) -> None:
    spec = ScheduleSpec(kind=Schedule("odd", factor=lambda *_: value))
    with pytest.raises(RunError, match=r"the schedule 'odd' returned .* at step 3 of 20, expected the share of the peak rate"):
        learning_rate_factor(spec, 3, 10, 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda groups, lr, weight_decay: "adam", "built a str, expected a torch.optim.Optimizer"),
        (lambda groups, lr, weight_decay: torch.optim.SGD([p for g in groups for p in g["params"]], lr), "give it the groups as"),
    ],
)
def test_an_optimizer_that_breaks_its_contract_is_one_sentence(few_digits: Any, tmp_path: Path, build: Any, message: str) -> None:
    recipe = {"preset": "scratch", "epochs": 1, "optimizer": Optimizer("odd", build=build)}
    with pytest.raises(RunError, match=message):
        finish(task_of(few_digits, tmp_path, recipe))


def test_one_cycle_sets_the_momentum_only_where_there_is_one() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizers = [torch.optim.SGD([parameter], 1.0), torch.optim.AdamW([parameter], 1.0), torch.optim.Adagrad([parameter], 1.0)]
    for optimizer in optimizers:
        optimizer.param_groups[0]["peak"] = 1.0
        set_learning_rate(optimizer, ScheduleSpec(kind="one-cycle"), 0, 10, 1)
    assert optimizers[0].param_groups[0]["momentum"] == optimizers[1].param_groups[0]["betas"][0] == 0.95
    assert "momentum" not in optimizers[2].param_groups[0]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"optimizer": {"kind": RMSPROP, "momentum": 0.5}}, "momentum has no effect on the optimizer 'rmsprop' of your own"),
        ({"schedule": {"kind": SAWTOOTH, "warmup": 0.1}}, "warmup has no effect on the schedule 'saw' of your own"),
        ({"preset": "logistic", "optimizer": RMSPROP}, "l2_penalties and optimizer contradict each other"),
        ({"preset": "logistic", "schedule": SAWTOOTH}, "l2_penalties and schedule contradict each other"),
        ({"optimizer": "mine:OPTIMIZER"}, "is run only where it is trusted"),
        ({"optimizer": "adamq"}, "did you mean 'adam'"),
        ({"schedule": RMSPROP}, "recipe.schedule.kind"),
    ],
)
def test_options_without_effect_and_other_objects_are_refused(recipe: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_recipe(recipe, PRESETS["finetune"], None, ("recipe",))


def test_a_study_file_names_them_where_code_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "my_training.py").write_text(
        "import phoropter as ph\n"
        "def build(groups, lr, weight_decay):\n    import torch\n    return torch.optim.Adagrad(groups, lr)\n"
        "ADAGRAD = ph.Optimizer('adagrad', build=build)\nHALF = ph.Schedule('half', factor=lambda step, steps, epochs: 0.5)\n"
    )
    with trust_code(tmp_path):
        recipe = parse_recipe({"optimizer": "my_training:ADAGRAD", "schedule": "my_training:HALF"}, PRESETS["scratch"])
        changed = parse_recipe({"optimizer": {"weight_decay": 0.2}}, recipe)
    assert isinstance(changed.optimizer.kind, Optimizer) and changed.optimizer.kind is recipe.optimizer.kind
    assert changed.optimizer.weight_decay == 0.2 and learning_rate_factor(changed.schedule, 7, 10, 2) == 0.5


def test_records_hold_name_and_version_and_are_read_without_the_code() -> None:
    recipe = parse_recipe({"optimizer": RMSPROP, "schedule": SAWTOOTH}, PRESETS["scratch"])
    plain = recipe.plain()
    assert plain["optimizer"]["kind"] == {"name": "rmsprop", "version": "1"}
    with read_recorded_extensions():
        read = validate_as(Recipe, plain)
    assert read == recipe
    with pytest.raises(RunError, match=r"the Schedule 'saw' .* is not at hand"):
        learning_rate_factor(read.schedule, 0, 10, 1)
