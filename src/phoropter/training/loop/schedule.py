"""Learning-rate schedules as functions of the step, and the optimizer they drive.

A schedule keeps no state, so a resumed run continues at the right rate and heads trained in one program share its values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from phoropter.core.errors import RunError
from phoropter.models.classifier import Classifier
from phoropter.models.fine_tuning.layer_groups import scale_layers
from phoropter.models.signals.signal_network import SignalNetwork
from phoropter.training.candidates.custom_optimizer import Optimizer, Schedule
from phoropter.training.candidates.fine_tuning.phase import Phase
from phoropter.training.candidates.recipe import OptimizerSpec, Recipe, ScheduleSpec
from phoropter.training.loop.plain_optimizers import SGD, Adam, AdamW

TrainedNetwork = Classifier | SignalNetwork  # what the loop trains


def learning_rate_factor(schedule: ScheduleSpec, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The rate as a share of its peak at optimizer step `step` (from 0) of a phase. Raises RunError as `_custom_factor`."""
    if isinstance(schedule.kind, Schedule):
        return _custom_factor(schedule.kind, step, steps_per_epoch, epochs)
    total = steps_per_epoch * (schedule.planned_epochs or epochs)
    warmup_steps = _count_warmup_steps(schedule, total)
    if step < warmup_steps:
        return (step + 1) / warmup_steps  # + 1: a first step at rate 0 would learn nothing
    return SCHEDULES[schedule.kind](schedule, step, steps_per_epoch, total)


def _count_warmup_steps(schedule: ScheduleSpec, total: int) -> int:
    return schedule.warmup_steps or round(schedule.warmup * total)


def _constant_factor(schedule: ScheduleSpec, step: int, steps_per_epoch: int, total: int) -> float:
    return 1.0


def _cosine_factor(schedule: ScheduleSpec, step: int, steps_per_epoch: int, total: int) -> float:
    warmup_steps = _count_warmup_steps(schedule, total)
    progress = (step - warmup_steps) / max(1, total - warmup_steps)  # warm-up may take all steps of a short phase
    return schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2


def _one_cycle_factor(schedule: ScheduleSpec, step: int, steps_per_epoch: int, total: int) -> float:
    """Starts and ends as torch's OneCycleLR: at 1/25 of the peak, and at 1/10⁴ of that start."""
    return _one_cycle_value(step, total, schedule.pct_start, 1 / 25, 1.0, 1 / 25e4)


def _step_factor(schedule: ScheduleSpec, step: int, steps_per_epoch: int, total: int) -> float:
    return schedule.gamma ** (step // steps_per_epoch // schedule.step_size)


# kind → (schedule, step, steps per epoch, steps of the phase) → share of the peak, after the warm-up
SCHEDULES: dict[str, Callable[[ScheduleSpec, int, int, int], float]] = {
    "constant": _constant_factor,
    "cosine": _cosine_factor,
    "one-cycle": _one_cycle_factor,
    "step": _step_factor,
}


def _custom_factor(schedule: Schedule, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Raises RunError for a factor that is not a finite number of at least 0."""
    factor = schedule.factor(step, steps_per_epoch, epochs)
    try:
        value = float(factor)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise RunError(
            f"the schedule '{schedule.name}' returned {factor!r} at step {step} of {steps_per_epoch * epochs}, expected "
            "the share of the peak rate, a number of at least 0"
        )
    return value


def cycled_momentum(schedule: ScheduleSpec, step: int, total: int) -> float | None:
    """Under one-cycle the momentum (or Adam's first beta) mirrors the rate, 0.95 → 0.85 → 0.95 (Smith & Topin 2018)."""
    return _one_cycle_value(step, total, schedule.pct_start, 0.95, 0.85, 0.95) if schedule.kind == "one-cycle" else None


def _one_cycle_value(step: int, total: int, pct_start: float, start: float, top: float, end: float) -> float:
    """Cosine from `start` to `top` over the first `pct_start` of the steps, then to `end`."""
    peak = pct_start * total - 1  # torch counts so: the last step of the rise is the peak
    if step <= peak or total == 1:
        low, high, progress = start, top, step / peak if peak > 0 else 1.0
    else:
        low, high, progress = top, end, (step - peak) / max(1e-12, total - 1 - peak)
    return high + (low - high) * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(
    optimizer: torch.optim.Optimizer, schedule: ScheduleSpec, step: int, steps_per_epoch: int, epochs: int
) -> None:
    """Sets every group to its share of its peak rate, and under one-cycle its momentum, at a step of a phase."""
    share = learning_rate_factor(schedule, step, steps_per_epoch, epochs)
    momentum = cycled_momentum(schedule, step, steps_per_epoch * epochs)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
        if momentum is not None and "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        elif momentum is not None and "momentum" in group:
            group["momentum"] = momentum


def build_optimizer(
    model: TrainedNetwork, recipe: Recipe, phase: Phase, instead: Mapping[str, torch.Tensor] | None = None
) -> torch.optim.Optimizer:
    """The optimizer over what this phase trains, in groups of equal peak rate and weight decay.

    instead: tensors trained in the place of the parameters of these names (the stacked heads of training/frozen)
    Raises RunError where an Optimizer of the user's own builds something else.
    """
    spec = recipe.optimizer
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    scales = _find_layer_scales(model, recipe)
    parts = [(model.backbone_parameters(), phase.lr), (model.head_parameters(), phase.head_lr or phase.lr)]
    for named_parameters, default_lr in parts:
        for name, parameter in named_parameters:
            if parameter.requires_grad:
                peak = (_branch_learning_rate(model, phase, name) or default_lr) * scales.get(name, 1.0)
                decay = spec.weight_decay if spec.decay_norms or model.uses_weight_decay(name, parameter) else 0.0
                groups.setdefault((peak, decay), []).append((instead or {}).get(name, parameter))
    # The peak stands in the group itself, so that it is saved with the optimizer and found again after a resume
    listed: list[dict[str, Any]] = [{"params": p, "lr": peak, "peak": peak, "weight_decay": d} for (peak, d), p in groups.items()]
    if isinstance(spec.kind, Optimizer):
        return _build_custom_optimizer(spec.kind, listed, phase.lr, spec.weight_decay)
    return OPTIMIZERS[spec.kind](spec, listed, phase.lr)


def _find_layer_scales(model: TrainedNetwork, recipe: Recipe) -> dict[str, float]:
    """Name of a parameter → share of its peak rate; empty where all layers have one. Raises SpecError as `scale_layers`."""
    if recipe.layer_decay is None or recipe.trains_head_alone or not isinstance(model, Classifier):
        return {}
    return scale_layers(model.branches, recipe.layer_decay)


def _build_adamw(spec: OptimizerSpec, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return AdamW(groups, lr=lr, betas=spec.betas, fused=True)


def _build_adam(spec: OptimizerSpec, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return Adam(groups, lr=lr, betas=spec.betas, fused=True)


def _build_sgd(spec: OptimizerSpec, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return SGD(groups, lr=lr, momentum=spec.momentum, nesterov=spec.nesterov, fused=True)


OPTIMIZERS: dict[str, Callable[[OptimizerSpec, list[dict[str, Any]], float], torch.optim.Optimizer]] = {
    "adamw": _build_adamw,
    "adam": _build_adam,
    "sgd": _build_sgd,
}


def _build_custom_optimizer(
    custom: Optimizer, groups: list[dict[str, Any]], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    optimizer = custom.build([{k: v for k, v in group.items() if k != "peak"} for group in groups], lr, weight_decay)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise RunError(f"the optimizer '{custom.name}' built a {type(optimizer).__name__}, expected a torch.optim.Optimizer")
    kept = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
    if kept != [[id(p) for p in group["params"]] for group in groups]:
        raise RunError(
            f"the optimizer '{custom.name}' was given {len(groups)} groups of parameters and holds {len(kept)} or others; give "
            "it the groups as they come"
        )
    for group, given in zip(optimizer.param_groups, groups, strict=True):
        group["peak"] = given["peak"]
    return optimizer


def _branch_learning_rate(model: TrainedNetwork, phase: Phase, name: str) -> float | None:
    """The rate of the branch a parameter belongs to (`backbones.1.…`, `head.branches.1.…`), where its backbone has one."""
    inside = name.removeprefix("head.branches.").removeprefix("backbones.")
    if not phase.branch_lr or inside == name or not isinstance(model, Classifier):
        return None
    return phase.branch_lr.get(model.spec.backbones[int(inside.split(".")[0])].name)
