"""Learning-rate schedules as functions of the step, and the optimizer they drive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from phoropter.models.classifier import Classifier
from phoropter.training.candidates.recipe import Phase, Recipe, ScheduleSpec


def learning_rate_factor(schedule: ScheduleSpec, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The share of the peak rate at optimiser step `step` of a phase (0-based)."""
    total = steps_per_epoch * epochs
    if schedule.kind == "one-cycle":
        return _one_cycle_value(step, total, schedule.pct_start, 1 / 25, 1.0, 1 / 25e4)
    warm = round(schedule.warmup * total)
    if step < warm:
        return (step + 1) / warm
    if schedule.kind == "step":
        return schedule.gamma ** (step // steps_per_epoch // schedule.step_size)
    if schedule.kind == "constant":
        return 1.0
    along = (step - warm) / max(1, total - warm)
    return schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * (1 + math.cos(math.pi * along)) / 2


def cycled_momentum(schedule: ScheduleSpec, step: int, total: int) -> float | None:
    """Under one-cycle the momentum (or Adam's first beta) mirrors the rate, 0.95 → 0.85 → 0.95 (Smith & Topin 2018)."""
    return _one_cycle_value(step, total, schedule.pct_start, 0.95, 0.85, 0.95) if schedule.kind == "one-cycle" else None


def _one_cycle_value(step: int, total: int, rise: float, start: float, top: float, end: float) -> float:
    peak = rise * total - 1
    if step <= peak or total == 1:
        low, high, along = start, top, step / peak if peak > 0 else 1.0
    else:
        low, high, along = top, end, (step - peak) / max(1e-12, total - 1 - peak)
    return high + (low - high) * (1 + math.cos(math.pi * along)) / 2


def set_learning_rate(
    optimizer: torch.optim.Optimizer, schedule: ScheduleSpec, step: int, steps_per_epoch: int, epochs: int
) -> None:
    """Gives every group its share of its peak rate, and under one-cycle its momentum, at a step of a phase."""
    share = learning_rate_factor(schedule, step, steps_per_epoch, epochs)
    momentum = cycled_momentum(schedule, step, steps_per_epoch * epochs)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
        if momentum is not None:
            group.update({"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum})


def build_optimizer(
    model: Classifier, recipe: Recipe, phase: Phase, instead: Mapping[str, torch.Tensor] | None = None
) -> torch.optim.Optimizer:
    """The optimiser over what this phase trains: a group for each peak rate, decayed and not (backbone, head, branches of their
    own rate). `instead`: tensors trained in the place of the parameters of these names (stacked heads)."""
    spec = recipe.optimizer
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    parts = [(model.backbone_parameters(), phase.lr), (model.head_parameters(), phase.head_lr or phase.lr)]
    for named, usual in parts:
        for name, parameter in named:
            if parameter.requires_grad:
                peak = _branch_learning_rate(model, phase, name) or usual
                decay = spec.weight_decay if spec.decay_norms or model.uses_weight_decay(name, parameter) else 0.0
                groups.setdefault((peak, decay), []).append((instead or {}).get(name, parameter))
    listed: list[dict[str, Any]] = [{"params": p, "lr": peak, "peak": peak, "weight_decay": d} for (peak, d), p in groups.items()]
    if spec.kind == "sgd":
        return torch.optim.SGD(listed, lr=phase.lr, momentum=spec.momentum, nesterov=spec.nesterov, fused=True)
    kind = torch.optim.AdamW if spec.kind == "adamw" else torch.optim.Adam
    return kind(listed, lr=phase.lr, betas=spec.betas, fused=True)


def _branch_learning_rate(model: Classifier, phase: Phase, name: str) -> float | None:
    """The rate of the branch a parameter belongs to (`backbones.1.…`, `head.branches.1.…`), where its backbone has one."""
    inside = name.removeprefix("head.branches.").removeprefix("backbones.")
    if not phase.branch_lr or inside == name:
        return None
    return phase.branch_lr.get(model.spec.backbones[int(inside.split(".")[0])].name)
