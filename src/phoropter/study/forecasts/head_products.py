"""Products of numbers and weights that the head of a frozen candidate takes for a row: what its training is estimated by."""

from __future__ import annotations

from collections.abc import Sequence

from phoropter.models.spec import HeadSpec
from phoropter.training.candidates.candidate import Candidate


def count_head_products(candidate: Candidate, widths: Sequence[int], classes: int) -> int:
    """Multiply-adds of a forward pass of a row behind its backbones, as the layers of models/heads and models/fusion have them.

    widths: features of each backbone
    """
    fusion = candidate.fusion
    if fusion is None:
        return _count_layers(widths[0], classes, _hidden_of(candidate.head))
    branches = sum(_count_layers(width, classes, _hidden_of(candidate.head)) for width in widths)
    read = sum(widths) if fusion.mode == "concat" else len(widths) * classes
    return _count_layers(read, classes, fusion.hidden) + (branches if fusion.has_branch_heads else 0)


def _hidden_of(head: HeadSpec) -> int | None:
    return head.hidden if head.kind == "dense" else None


def _count_layers(width: int, classes: int, hidden: int | None) -> int:
    return width * classes if hidden is None else (width + classes) * hidden
