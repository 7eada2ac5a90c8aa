"""Loss: a training loss of the user's own, as an object (no torch)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from phoropter.core.extensions import Extension

BuiltinLoss = Literal["cross-entropy", "focal"]
BUILTIN_LOSSES: tuple[str, ...] = get_args(BuiltinLoss)


@dataclass(frozen=True, eq=False)
class Loss(Extension):
    """A loss for `recipe={"loss": LOSS}`, or `loss: module:NAME` in a study file.

    compute: (B, C) logits, float32 or float64, and (B,) int64 labels → (B,) losses, written in torch and differentiable. The
             loss of a row depends on that row alone, which is checked at the first use: heads of many runs are then trained in
             one program, and their means are taken over each run's own rows.

    Class weights multiply the losses of their rows; mixed labels (MixUp, CutMix) take the mean of the losses against both
    labels, by their shares; a student counts it against its labels. Label smoothing is refused: write it into `compute`.

    >>> import phoropter as ph
    >>> def hinge(logits, labels):                                                   # doctest: +SKIP
    ...     return torch.nn.functional.multi_margin_loss(logits, labels, reduction="none")
    >>> ph.finetune("resnet50", recipe={"loss": ph.Loss("hinge", compute=hinge)})    # doctest: +SKIP
    """

    compute: Callable[[Any, Any], Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name in BUILTIN_LOSSES:
            raise ValueError(f"a loss of your own is called '{self.name}', the name of a built-in loss; choose another name")
        if not callable(self.compute):
            raise ValueError(
                f"compute of the loss '{self.name}' is a {type(self.compute).__name__}, expected a function (logits, labels) → "
                "losses"
            )
