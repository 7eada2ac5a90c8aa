"""Small pictures with three marks that come and go by themselves: a bar, a dot and a stripe."""

from __future__ import annotations

import numpy as np

from phoropter.data.dataset import Dataset
from phoropter.data.sources.arrays import from_arrays

MARKS = ("bar", "dot", "stripe")
SIDE = 16


def make_marks(count: int, seed: int = 0, groups: int = 0, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> Dataset:
    """`count` grey pictures of 16 × 16 pixels; a bar at the left, a dot in the middle, a stripe below, each by its share.

    groups: how many people they are of, in turn; 0: none is named
    """
    random = np.random.default_rng(seed)
    labels = (random.random((count, 3)) < shares).astype(np.int64)
    images = random.integers(0, 90, (count, SIDE, SIDE)).astype(np.uint8)
    images[labels[:, 0] == 1, :, :3] += 150
    images[labels[:, 1] == 1, 6:10, 6:10] += 150
    images[labels[:, 2] == 1, -3:, 4:] += 150
    people = {"groups": [f"p{row % groups:03d}" for row in range(count)]} if groups else {}
    return from_arrays(images, labels, name="marks", classes=MARKS, **people)
