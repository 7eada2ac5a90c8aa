"""What the record of a run says of an ensemble selection: how often each member was added, and the weights that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phoropter.training.selection.greedy_selection import BAGS, INNER_FOLDS, Selection


@dataclass(frozen=True)
class SelectedMembers:
    """rows: of the training part, by which the members were chosen · seconds: that their fits on inner folds took"""

    selection: Selection
    rows: int
    seconds: float

    def list_weights(self, members: Sequence[str]) -> list[float]:
        """The weights in the order of the members."""
        return [self.selection.weights[name] for name in members]

    def describe(self) -> dict[str, Any]:
        """The field `selection` of a record."""
        chosen = self.selection
        members = [
            {"name": name, "weight": weight, "times": chosen.times[name], "inner_loss": round(chosen.member_loss[name], 6)}
            for name, weight in chosen.weights.items()
        ]
        return {
            "members": members,
            "inner_loss": round(chosen.loss, 6),
            "inner_folds": INNER_FOLDS,
            "bags": BAGS,
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
        }
