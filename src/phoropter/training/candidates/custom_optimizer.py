"""Optimizers and learning-rate schedules of the user's own, as objects (no torch here)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from phoropter.core.extensions import Extension

BuiltinOptimizer = Literal["adamw", "adam", "sgd"]
BuiltinSchedule = Literal["constant", "cosine", "one-cycle", "step"]
BUILTIN_OPTIMIZERS: tuple[str, ...] = get_args(BuiltinOptimizer)
BUILTIN_SCHEDULES: tuple[str, ...] = get_args(BuiltinSchedule)


@dataclass(frozen=True, eq=False)
class Optimizer(Extension):
    """An optimizer for `recipe={"optimizer": OPTIMIZER}`, or `optimizer: module:NAME` in a study file.

    build: parameter groups, peak learning rate, weight decay → torch.optim.Optimizer over these groups, in their order. Each
           group is a mapping of `params`, `lr` (its own peak) and `weight_decay` (0 for norms, biases and tokens unless the
           recipe says decay_norms). The schedule sets every group's `lr` before each step. All that the optimizer must
           remember is in its `state_dict()`, from which a killed run goes on.

    Frozen candidates that train with it train their heads one by one, not in one batched program: nothing says that it treats
    each element alone.

    >>> import phoropter as ph
    >>> def build(groups, lr, weight_decay):                                                        # doctest: +SKIP
    ...     return torch.optim.RMSprop(groups, lr=lr, weight_decay=weight_decay)
    >>> ph.finetune("resnet50", recipe={"optimizer": ph.Optimizer("rmsprop", build=build)})         # doctest: +SKIP
    """

    build: Callable[[Any, float, float], Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name in BUILTIN_OPTIMIZERS:
            raise ValueError(f"an optimizer of your own is called '{self.name}', the name of a built-in one; choose another name")
        if not callable(self.build):
            raise ValueError(
                f"build of the optimizer '{self.name}' is a {type(self.build).__name__}, expected a function (groups, lr, "
                "weight_decay) → optimizer"
            )


@dataclass(frozen=True, eq=False)
class Schedule(Extension):
    """A learning-rate schedule for `recipe={"schedule": SCHEDULE}`, or `schedule: module:NAME` in a study file.

    factor: step within the phase (from 0), steps per epoch, epochs of the phase → the rate as a share of its peak, ≥ 0. It
            depends on these three numbers alone, so that a run goes on from any step.

    >>> import phoropter as ph
    >>> def inverse_square_root(step, steps_per_epoch, epochs):                                                # doctest: +SKIP
    ...     return min((step + 1) / 100, (100 / (step + 1)) ** 0.5)
    >>> ph.finetune("resnet50", recipe={"schedule": ph.Schedule("rsqrt", factor=inverse_square_root)})         # doctest: +SKIP
    """

    factor: Callable[[int, int, int], float]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name in BUILTIN_SCHEDULES:
            raise ValueError(f"a schedule of your own is called '{self.name}', the name of a built-in one; choose another name")
        if not callable(self.factor):
            raise ValueError(
                f"factor of the schedule '{self.name}' is a {type(self.factor).__name__}, expected a function (step, "
                "steps_per_epoch, epochs) → share of the peak rate"
            )
