"""The random numbers of an augmentation for the images of a batch, and how images lie in memory.

Letters: B images, H × W their size.
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
DrawnParameters = NDArray[Any]  # (B, k): the parameters of a step for each image
Shape = tuple[int, int]  # H, W

# A draw is named after its step by the word that the step had when its numbers were first published. To name it by the present
# kind would change every augmented picture.
_DRAW_NAMES = {
    "hflip": "flip",
    "vflip": "vertical-flip",
    "random-crop": "crop",
    "random-resized-crop": "resized-crop",
    "pca-lighting": "lighting",
    "color-jitter": "jitter",
}


def _draw_name(kind: str) -> str:
    return _DRAW_NAMES.get(kind, kind)


@dataclass(frozen=True, eq=False)
class AugmentationDraws:
    """The random numbers of one batch in one epoch.

    Each number is a function of (seed, step, epoch, sample id), never of a generator's state. An image is therefore augmented in
    the same way whatever batch it is in, after a resume, in a worker, and when a teacher's answers are computed beforehand.

    hashes: (B,) of the sample ids · batch_index: number of the batch in the epoch
    """

    hashes: NDArray[np.uint64]
    seed: int
    epoch: int
    batch_index: int

    def per_image_uniforms(self, kind: str, count: int) -> NDArray[np.float64]:
        """(B, count) in [0, 1), independent of the batch an image is in."""
        return uniform_numbers(self.hashes, count, self.seed, f"augment/{_draw_name(kind)}", self.epoch)

    def per_batch_uniforms(self, kind: str, count: int) -> NDArray[np.float64]:
        """(1, count) in [0, 1), shared by the batch."""
        batch = np.array([self.batch_index], np.uint64)
        return uniform_numbers(batch, count, self.seed, f"augment/{_draw_name(kind)}/batch", self.epoch)

    def mix_permutation(self, kind: str) -> IntArray:
        """(B,) index of the image that each is mixed with: a permutation. Who meets whom does not depend on the order of rows."""
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
    """(3, H, W) → (H, W, 3), as kernels in C want it; copying plane by plane is 3 × faster than one transposed copy."""
    if picture.strides[0] == 1 and picture.strides[2] == 3:
        return picture.transpose(1, 2, 0)
    out = np.empty((*picture.shape[1:], 3), np.uint8)
    for channel in range(3):
        out[:, :, channel] = picture[channel]
    return out
