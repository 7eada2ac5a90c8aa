"""Images, ids and steps that the tests of augmentation share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.seeds import hash_ids
from phoropter.core.spec import validate_as
from phoropter.training.augmentation.pipeline import (
    Augmentation,
    AugmentedBatch,
)
from phoropter.training.candidates.recipe import Recipe

Hashes = NDArray[np.uint64]

PER_IMAGE: list[Any] = [
    "hflip",
    "vflip",
    {"random-crop": {"size": 17}},
    {"random-crop": {"padding": 4, "fill": 9}},
    {"random-resized-crop": {"size": 19}},
    {"random-resized-crop": {"scale": [0.5, 1.0]}},
    {"rotate": {"degrees": 30, "fill": 200}},
    {"pca-lighting": {"sigma": 0.5}},
    {"color-jitter": {"hue": 0.2}},
]
POLICIES: list[Any] = [{"autoaugment": {"policy": p}} for p in ("imagenet", "cifar10", "svhn")] + ["randaugment"]
CUTS: list[Any] = [{"cutout": {"per_sample": True}}, {"slit-cutout": {"per_sample": True}}]
MIXES = ["mixup", "cutmix", "slit-cutmix"]


def make_augmentation(steps: Any, seed: int = 0) -> Augmentation:
    return Augmentation(validate_as(Recipe, {"augment": steps}).augment, seed)


def make_images(count: int = 12, height: int = 24, width: int = 24) -> torch.Tensor:
    """Noise over a slope: no two places alike, and not all of it noise."""
    rng = np.random.default_rng(count * height)
    slope = np.linspace(0, 160, height)[:, None] + np.linspace(0, 60, width)
    noise = rng.integers(0, 36, (count, 3, height, width))
    return torch.from_numpy((slope + noise).astype(np.uint8))


def make_hashes(count: int = 12, first: int = 0) -> Hashes:
    return hash_ids([f"sample {i}" for i in range(first, first + count)])


def augment(steps: Any, given: torch.Tensor, epoch: int = 0, batch: int = 0, seed: int = 0) -> AugmentedBatch:
    return make_augmentation(steps, seed).apply(given, make_hashes(len(given)), epoch, batch)


def to_pil(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))
