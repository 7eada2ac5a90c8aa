"""Phase: a stretch of epochs in which a stated part of the network is trained (no torch)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from phoropter.core.spec import PublicSpec

_LAST_BLOCKS = re.compile(r"last-([1-9][0-9]{0,2})")


def _check_part(value: str) -> str:
    if value not in ("head", "all") and not _LAST_BLOCKS.fullmatch(value):
        raise ValueError(f"{value!r} is no part of a network; expected head, all, or last-N for its last N blocks, as in last-2")
    return value


_PART_SCHEMA = {"anyOf": [{"enum": ["head", "all"]}, {"type": "string", "pattern": f"^{_LAST_BLOCKS.pattern}$"}]}
TrainedPart = Annotated[str, AfterValidator(_check_part), WithJsonSchema(_PART_SCHEMA)]


class Phase(PublicSpec):
    """A number of epochs in which the head alone, the last blocks or everything is trained.

    train: head: the backbones stay as they are · all: everything is trained · last-N, as in last-2: the last N blocks of every
           backbone, as timm counts them, and all behind them; what is frozen is computed once and kept, where it is the same in
           every epoch
    epochs: how many
    lr: peak rate of the backbones (and of the head, unless `head_lr` is given)
    head_lr: peak rate of the head
    branch_lr: name of a backbone → its own peak rate, for branches of a fusion that need another (their own heads go with them)
    """

    train: TrainedPart = "all"
    epochs: int = Field(ge=1)
    lr: float = Field(gt=0)
    head_lr: float | None = Field(default=None, gt=0)
    branch_lr: dict[str, Annotated[float, Field(gt=0)]] = {}

    @property
    def last_blocks(self) -> int | None:
        """How many blocks are trained under `last-N`; None under head and all."""
        found = _LAST_BLOCKS.fullmatch(self.train)
        return int(found[1]) if found else None

    @property
    def forward_passes(self) -> int:
        """What an epoch costs, in passes of the whole network over its images: a backward pass costs about two.

        How large the last blocks are is not known without the network; two is between their usual shares.
        """
        return {"head": 1, "all": 3}.get(self.train, 2)

    @property
    def part_words(self) -> str:
        """What is trained, for sentences."""
        if self.last_blocks is None:
            return "the head" if self.train == "head" else "everything"
        return "the last block" if self.last_blocks == 1 else f"the last {self.last_blocks} blocks"
