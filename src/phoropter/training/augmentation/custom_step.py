"""Augmentation steps of the user's own (no torch here): a function of images and of the random numbers drawn for each of them.

    def speckle(images, uniforms):           # (B, 3, H, W) uint8 tensor, (B, 1) float64 array in [0, 1)
        amount = torch.from_numpy(uniforms).to(images.device)[:, 0, None, None, None]
        return (images * (1 - 0.2 * amount)).to(torch.uint8)

    SPECKLE = ph.AugmentationStep("speckle", apply=speckle, uniforms=1)

The numbers are ours, a function of (seed, step, epoch, sample id). A run that is resumed, a cached view and a teacher's cached
answers therefore meet the same images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from phoropter.core.extensions import Extension

MAX_UNIFORMS = 1000


@dataclass(frozen=True, eq=False)
class AugmentationStep(Extension):
    """A step in `augment:`, before what cuts out of images or mixes them.

    apply:    (B, 3, H, W) uint8 tensor and (B, uniforms) float64 array in [0, 1) → uint8 tensor of the same shape. Row i of the
              result depends only on row i of both: a CPU passes images one by one, a GPU a batch. It draws no numbers itself.
    uniforms: how many random numbers it gets for each image
    """

    apply: Callable[[Any, Any], Any]
    uniforms: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.uniforms, bool) or not isinstance(self.uniforms, int) or not 0 <= self.uniforms <= MAX_UNIFORMS:
            raise ValueError(
                f"uniforms of the step '{self.name}' is {self.uniforms!r}, expected a number from 0 to {MAX_UNIFORMS}"
            )
        if not callable(self.apply):
            raise ValueError(f"apply of the step '{self.name}' is {self.apply!r}, expected a function of images and uniforms")

    @property
    def noun(self) -> str:
        return "augmentation step"

    @property
    def kind(self) -> str:
        """Its name: where built-in steps have their kind."""
        return self.name

    def plain(self) -> dict[str, Any]:
        """As JSON-ready plain data. The digest of its source is part of it, because cached views are found by this."""
        return {**self.identity(), "source": self.source_digest()}
