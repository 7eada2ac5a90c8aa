"""What an augmentation draws at random for the pictures of a batch, and how pictures lie in memory.

Letters: B pictures, H × W their size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.seeds import order, uniforms

Bytes = NDArray[np.uint8]
Whole = NDArray[np.int64]
Drawn = NDArray[Any]  # (B, k): what a step needs to know of each picture
Shape = tuple[int, int]  # H, W


@dataclass(frozen=True, eq=False)
class Draws:
    """The random numbers of one batch in one epoch. hashes: (B,) of the ids · batch: its number in the epoch."""

    hashes: NDArray[np.uint64]
    seed: int
    epoch: int
    batch: int

    def each(self, kind: str, count: int) -> NDArray[np.float64]:
        """(B, count) in [0, 1), whatever the batch they are in."""
        return uniforms(self.hashes, count, self.seed, f"augment/{kind}", self.epoch)

    def shared(self, kind: str, count: int) -> NDArray[np.float64]:
        """(1, count) in [0, 1), one for the batch."""
        return uniforms(np.array([self.batch], np.uint64), count, self.seed, f"augment/{kind}/batch", self.epoch)

    def partner(self, kind: str) -> Whole:
        """(B,) a permutation of the batch; which two meet does not depend on the order they stand in."""
        one, other = (order(self.hashes, self.seed, f"augment/{kind}/{end}", self.epoch, self.batch) for end in ("from", "to"))
        partner = np.empty_like(one)
        partner[one] = other
        return partner


def shape_of(pictures: torch.Tensor | Bytes) -> Shape:
    return pictures.shape[-2], pictures.shape[-1]


def interleaved(picture: Bytes) -> Bytes:
    """(3, H, W) → (H, W, 3), as the kernels in C want it; plane by plane is 3 × faster than one transposed copy."""
    if picture.strides[0] == 1 and picture.strides[2] == 3:
        return picture.transpose(1, 2, 0)
    out = np.empty((*picture.shape[1:], 3), np.uint8)
    for channel in range(3):
        out[:, :, channel] = picture[channel]
    return out
