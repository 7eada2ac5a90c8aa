"""What an augmentation draws at random for the pictures of a batch, and how pictures lie in memory.

Letters: B pictures, H × W their size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.seeds import random_permutation, uniform_numbers

Bytes = NDArray[np.uint8]
IntArray = NDArray[np.int64]
DrawnParameters = NDArray[Any]  # (B, k): what a step needs to know of each picture
Shape = tuple[int, int]  # H, W

# A draw is named after its step by the word that the step had when its numbers were first published. To name it by the present
# kind would change every augmented picture.
_DRAW_NAMES = {"hflip": "flip", "vflip": "vertical-flip", "pca_lighting": "lighting", "color_jitter": "jitter"}


def _draw_name(kind: str) -> str:
    return _DRAW_NAMES.get(kind, kind)


@dataclass(frozen=True, eq=False)
class AugmentationDraws:
    """The random numbers of one batch in one epoch. hashes: (B,) of the ids · batch: its number in the epoch."""

    hashes: NDArray[np.uint64]
    seed: int
    epoch: int
    batch_index: int

    def per_image_uniforms(self, kind: str, count: int) -> NDArray[np.float64]:
        """(B, count) in [0, 1), whatever the batch they are in."""
        return uniform_numbers(self.hashes, count, self.seed, f"augment/{_draw_name(kind)}", self.epoch)

    def per_batch_uniforms(self, kind: str, count: int) -> NDArray[np.float64]:
        """(1, count) in [0, 1), one for the batch."""
        return uniform_numbers(np.array([self.batch_index], np.uint64), count, self.seed, f"augment/{_draw_name(kind)}/batch", self.epoch)

    def mix_permutation(self, kind: str) -> IntArray:
        """(B,) a permutation of the batch; which two meet does not depend on the order they stand in."""
        one, other = (
            random_permutation(self.hashes, self.seed, f"augment/{_draw_name(kind)}/{end}", self.epoch, self.batch_index)
            for end in ("from", "to")
        )
        partner = np.empty_like(one)
        partner[one] = other
        return partner


def spatial_shape(pictures: torch.Tensor | Bytes) -> Shape:
    return pictures.shape[-2], pictures.shape[-1]


def to_channels_last(picture: Bytes) -> Bytes:
    """(3, H, W) → (H, W, 3), as the kernels in C want it; plane by plane is 3 × faster than one transposed copy."""
    if picture.strides[0] == 1 and picture.strides[2] == 3:
        return picture.transpose(1, 2, 0)
    out = np.empty((*picture.shape[1:], 3), np.uint8)
    for channel in range(3):
        out[:, :, channel] = picture[channel]
    return out
