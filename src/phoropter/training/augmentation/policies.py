"""AutoAugment (Cubuk et al. 2019) and RandAugment (Cubuk et al. 2020): torchvision's operations under our random numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from phoropter.models import timm_compat
from phoropter.training.augmentation import spec
from phoropter.training.augmentation.randomness import (
    AugmentationDraws,
    Bytes,
    DrawnParameters,
    Shape,
    spatial_shape,
    to_channels_last,
)


def draw_policy_parameters(step: spec.AutoAugment | spec.RandAugment, draws: AugmentationDraws, shape: Shape) -> DrawnParameters:
    _load_apply_op()  # imported now: the threads of the pipeline must not race for the import
    return draws.per_image_uniforms(step.kind, 5 if isinstance(step, spec.AutoAugment) else 2 * step.ops)


def apply_autoaugment(step: spec.AutoAugment, picture: Bytes, row: list[float]) -> Bytes:
    pair_number, chances, signs = row[0], row[1:3], row[3:5]
    pairs, space = _load_policy(step.policy), _magnitude_levels(10, spatial_shape(picture))
    operations = []
    for (name, probability, level), chance, sign in zip(pairs[int(pair_number * len(pairs))], chances, signs, strict=True):
        if chance < probability:
            operations.append((name, _signed_magnitude(space[name], level, sign)))
    return _apply_operations(picture, operations, step.fill)


def apply_randaugment(step: spec.RandAugment, picture: Bytes, row: list[float]) -> Bytes:
    space = _magnitude_levels(31, spatial_shape(picture))
    names = ["Identity", *(name for name in space if name != "Invert")]  # the fourteen of Cubuk et al. 2020
    drawn = [(names[int(number * len(names))], sign) for number, sign in zip(row[::2], row[1::2], strict=True)]
    operations = [(n, _signed_magnitude(space[n], step.magnitude, sign)) for n, sign in drawn if n != "Identity"]
    return _apply_operations(picture, operations, step.fill)


def _signed_magnitude(levels: tuple[list[float], bool], level: int | None, sign: float) -> float:
    magnitudes, signed = levels
    magnitude = magnitudes[level] if level is not None and magnitudes else 0.0
    return -magnitude if signed and sign < 0.5 else magnitude


def _apply_operations(picture: Bytes, operations: list[tuple[str, float]], fill: int) -> Bytes:
    if not operations:
        return picture
    apply, nearest = _load_apply_op()
    image = Image.fromarray(to_channels_last(picture))
    for name, magnitude in operations:
        image = apply(image, name, magnitude, interpolation=nearest, fill=[fill] * 3)
    return np.array(image).transpose(2, 0, 1)


@cache
def _load_apply_op() -> tuple[Callable[..., Image.Image], Any]:
    """torchvision's function for one operation of a policy; it is private there, and the tests compare it with AutoAugment."""
    return timm_compat.import_torchvision("transforms.autoaugment")._apply_op, timm_compat.import_torchvision(
        "transforms"
    ).InterpolationMode.NEAREST


@cache
def _load_policy(name: str) -> list[Any]:
    """The 25 pairs ((operation, probability, level), …) of torchvision."""
    module = timm_compat.import_torchvision("transforms.autoaugment")
    return list(module.AutoAugment(module.AutoAugmentPolicy(name)).policies)


@cache
def _magnitude_levels(count: int, shape: Shape) -> dict[str, tuple[list[float], bool]]:
    """Operation → its magnitudes at `count` levels, and whether their sign is drawn, as in torchvision."""
    space = timm_compat.import_torchvision("transforms.autoaugment").AutoAugment()._augmentation_space(count, shape)
    return {name: (m.tolist() if m.ndim else [], signed) for name, (m, signed) in space.items()}
