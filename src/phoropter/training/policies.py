"""AutoAugment (Cubuk et al. 2019) and RandAugment (Cubuk et al. 2020), done by torchvision with our draws."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from phoropter.models import vision
from phoropter.training import views
from phoropter.training.draws import Bytes, Drawn, Draws, Shape, interleaved, shape_of


def draw_policy(step: views.AutoAugment | views.RandAugment, draws: Draws, shape: Shape) -> Drawn:
    _torchvision()  # imported here, in one thread
    return draws.each(step.kind, 5 if isinstance(step, views.AutoAugment) else 2 * step.ops)


def autoaugment(step: views.AutoAugment, picture: Bytes, row: list[float]) -> Bytes:
    which, chances, signs = row[0], row[1:3], row[3:5]
    pairs, space = _policy(step.policy), _levels(10, shape_of(picture))
    operations = []
    for (name, probability, level), chance, sign in zip(pairs[int(which * len(pairs))], chances, signs, strict=True):
        if chance < probability:
            operations.append((name, _signed(space[name], level, sign)))
    return _operated(picture, operations, step.fill)


def randaugment(step: views.RandAugment, picture: Bytes, row: list[float]) -> Bytes:
    space = _levels(31, shape_of(picture))
    names = ["Identity", *(name for name in space if name != "Invert")]  # the fourteen of Cubuk et al. 2020
    drawn = [(names[int(which * len(names))], sign) for which, sign in zip(row[::2], row[1::2], strict=True)]
    operations = [(n, _signed(space[n], step.magnitude, sign)) for n, sign in drawn if n != "Identity"]
    return _operated(picture, operations, step.fill)


def _signed(levels: tuple[list[float], bool], level: int | None, sign: float) -> float:
    magnitudes, signed = levels
    magnitude = magnitudes[level] if level is not None and magnitudes else 0.0
    return -magnitude if signed and sign < 0.5 else magnitude


def _operated(picture: Bytes, operations: list[tuple[str, float]], fill: int) -> Bytes:
    if not operations:
        return picture
    apply, nearest = _torchvision()
    image = Image.fromarray(interleaved(picture))
    for name, magnitude in operations:
        image = apply(image, name, magnitude, interpolation=nearest, fill=[fill] * 3)
    return np.array(image).transpose(2, 0, 1)


@cache
def _torchvision() -> tuple[Callable[..., Image.Image], Any]:
    """How torchvision does one operation of a policy; private there, and compared with its AutoAugment in the tests."""
    return vision.torchvision("transforms.autoaugment")._apply_op, vision.torchvision("transforms").InterpolationMode.NEAREST


@cache
def _policy(name: str) -> list[Any]:
    """The 25 pairs ((operation, probability, level), …) as torchvision has them."""
    module = vision.torchvision("transforms.autoaugment")
    return list(module.AutoAugment(module.AutoAugmentPolicy(name)).policies)


@cache
def _levels(count: int, shape: Shape) -> dict[str, tuple[list[float], bool]]:
    """Operation → its magnitudes at `count` levels, and whether they come with either sign; as torchvision has them."""
    space = vision.torchvision("transforms.autoaugment").AutoAugment()._augmentation_space(count, shape)
    return {name: (m.tolist() if m.ndim else [], signed) for name, (m, signed) in space.items()}
