"""All held-out rows of one candidate, joined over its runs: what an estimand (estimand.py) is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import StoreError
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities, count_answers
from phoropter.results.store import Predictions, Run

Round = tuple[int, int]  # seed, repeat


@dataclass(frozen=True, eq=False)
class SplitAnswers:
    """The answers of one run. labels (n,) · probabilities (n, C) · units (n,) names of their independent units · names (n,)"""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    units: NDArray[np.str_]
    names: NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """N predictions on rows that were not trained on.

    labels: (N,), or (N, C) of several a row · probabilities: (N, C)
    unit_names: (N,) the independent unit of each row: its group where rows have one, else
    the row · splits: (N,) number of the run that predicted the row · repeats: (N,) number of its round: the runs of one repeat
    under one seed, which test each row at most once
    """

    labels: Ints
    probabilities: Floats
    unit_names: NDArray[Any]
    splits: Ints
    repeats: Ints

    @classmethod
    def from_runs(cls, runs: Iterable[Run]) -> HeldOutRows:
        """Joined, with the rounds of (seed, repeat). Raises StoreError where no run has predictions."""
        each = [(r.load_predictions(), (int(r.record["seed"]), int(r.record["split"]["repeat"]))) for r in runs]
        return cls.from_predictions([p for p, _ in each], [name for _, name in each])

    @classmethod
    def from_predictions(cls, runs: Iterable[Predictions | None], repeats: Iterable[Round] | None = None) -> HeldOutRows:
        """Joined, run after run; runs without predictions are left out. repeats: the round of each run (default: all one round).

        Within a round rows are in the order of their ids, so that the same answers give the same bits, however rows were split.
        """
        each = list(runs)
        names = [(0, 0)] * len(each) if repeats is None else list(repeats)
        kept = [(p, name) for p, name in zip(each, names, strict=True) if p is not None]
        if not kept:
            raise StoreError("no run of the candidate has predictions of held-out rows: run the study again")
        parts = [SplitAnswers(p.labels, p.probabilities, p.ids if p.groups is None else p.groups, p.ids) for p, _ in kept]
        return join_answers(parts, [name for _, name in kept])[0]

    @cached_property
    def labelled(self) -> LabelledProbabilities:
        """Labels and probabilities as the metrics take them, not checked again."""
        return LabelledProbabilities(self.labels, self.probabilities)

    @cached_property
    def units(self) -> NDArray[Any]:
        """(U,) names of the units, sorted."""
        return np.unique(self.unit_names)

    @cached_property
    def split_supports(self) -> list[Ints]:
        """`count_answers` of the test part of each split."""
        n_classes = self.probabilities.shape[1]
        return [count_answers(self.labels[self.splits == number], n_classes) for number in np.unique(self.splits)]


def join_answers(parts: Sequence[SplitAnswers], rounds: Sequence[Round]) -> tuple[HeldOutRows, NDArray[np.str_]]:
    """One run after another, and the names (N,) of the answers, by which they are ordered in their round. rounds: of each run"""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(rounds))}
    sizes = [len(part.labels) for part in parts]
    repeats, names = np.repeat([numbers[name] for name in rounds], sizes), np.concatenate([part.names for part in parts])
    order = np.lexsort((names, repeats))
    rows = HeldOutRows(
        np.concatenate([part.labels for part in parts])[order],
        np.concatenate([part.probabilities for part in parts])[order],
        np.concatenate([part.units for part in parts])[order],
        np.repeat(np.arange(len(parts)), sizes)[order],
        repeats[order],
    )
    return rows, names[order]
