"""The held-out rows of a candidate joined into answers for recordings, or for the independent groups (people, births).

Windows are what is trained on; people are what is decided on. An owner (recording or group) has one answer in each split that
tests it. That needs one label: where an owner has rows of several classes, the level does not exist, and `reason` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import StoreError
from phoropter.results.clinical.aggregation import aggregate_probabilities
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.stats.held_out_rows import SplitAnswers
from phoropter.results.store import Predictions

LevelName = Literal["row", "recording", "group"]


@dataclass(frozen=True, eq=False)
class Aggregation:
    """How rows become one answer.

    level: whose answer · rule: as aggregation.py has them · positive: column of the positive class, where there is one ·
    temperature: the logits are divided by it first
    """

    level: LevelName
    rule: str = "mean"
    positive: int | None = None
    temperature: float = 1.0

    def apply_to(self, predictions: Predictions) -> SplitAnswers:
        """The answers of one run. Raises StoreError where an owner has rows of several classes, or rows have no such owners."""
        probabilities = softmax(predictions.logits / self.temperature)
        groups = predictions.ids if predictions.groups is None else predictions.groups
        if self.level == "row":
            return SplitAnswers(predictions.labels, probabilities, groups, predictions.ids)
        names, first, owners = np.unique(name_owners(predictions, self.level), return_index=True, return_inverse=True)
        self._check_owners(predictions, predictions.labels[first][owners])
        answers = aggregate_probabilities(probabilities, owners.astype(np.int64), self.rule, self.positive)
        return SplitAnswers(predictions.labels[first], answers, groups[first], names)

    def _check_owners(self, predictions: Predictions, expected: NDArray[np.int64]) -> None:
        """expected: (n,) the label of the first row of each row's owner"""
        if (predictions.groups if self.level == "group" else predictions.recordings) is None:
            raise StoreError(f"the predictions of this run name no {self.level}s, so there is no answer for each; run it again")
        if len(mixed := np.flatnonzero(predictions.labels != expected)):
            at = mixed[0]
            owner = str(name_owners(predictions, self.level)[at]).replace("\u001f", " ")
            raise StoreError(
                f"the {self.level} '{owner}' has rows of several classes (row {predictions.ids[at]}), so that one answer for it "
                "has no true class; evaluate its rows"
            )

    def labels_of(self, predictions: Predictions) -> NDArray[np.int64]:
        """(n,) the labels of `apply_to`, without the probabilities."""
        if self.level == "row":
            return predictions.labels
        return predictions.labels[np.unique(name_owners(predictions, self.level), return_index=True)[1]]


def name_owners(predictions: Predictions, level: LevelName) -> NDArray[np.str_]:
    """(n,) whose each row is: its recording (within its group), or its group."""
    if level == "group" and predictions.groups is not None:
        return predictions.groups
    if level == "recording" and predictions.recordings is not None:
        groups = predictions.groups
        return predictions.recordings if groups is None else np.char.add(np.char.add(groups, "\u001f"), predictions.recordings)
    return predictions.ids


def find_levels(parts: Sequence[Predictions]) -> tuple[list[LevelName], dict[LevelName, str]]:
    """The levels that the held-out rows of these runs have, from the row up, and why others are missing.

    A level is there where some owner has several rows and every owner has one class in each run. The reason is counted in words
    that `have rows of several classes` may follow: `3 of 12`.
    """
    found: list[LevelName] = ["row"]
    missing: dict[LevelName, str] = {}
    levels: tuple[LevelName, ...] = ("recording", "group")
    for level in levels:
        several, mixed, names = False, set(), set()
        for part in parts:
            owners, member = np.unique(name_owners(part, level), return_inverse=True)
            several |= len(owners) < len(part.ids)
            low, high = np.full(len(owners), np.iinfo(np.int64).max), np.full(len(owners), -1)
            np.minimum.at(low, member, part.labels)
            np.maximum.at(high, member, part.labels)
            names |= set(owners.tolist())
            mixed |= set(owners[low < high].tolist())
        if several and mixed:
            missing[level] = f"{len(mixed):,} of {len(names):,}"
        elif several:
            found.append(level)
    return found, missing
