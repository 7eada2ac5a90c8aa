"""Greedy ensemble selection with replacement (Caruana, Niculescu-Mizil, Crew & Ksikes 2004), bagged over units.

Begun with the best members, in each round the member is added that lowers the log loss of the mean probabilities most; one may be
added again and again, which gives it weight. Of all rounds the one with the least loss counts. That is done on resamples of the
units (groups, else rows), and the weights are averaged over them, so that no few rows decide.

Left out: bags over subsets of the members, which Caruana draws from libraries of thousands; of a handful, half would miss the
best.

Letters: M members, n rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator

INNER_FOLDS = 3  # of the training rows, by which members answer for rows they had not seen
BAGS = 20  # resamples of the units
ROUNDS = 50  # members added at most in each, those it begins with included
_SMALLEST = 1e-30  # in place of a probability of 0
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """weights: member → share of it in the mean probability, 0 or more, together 1 · times: how often it was added, over all bags
    loss: mean log loss of the weighted mean on all rows · member_loss: of each member alone"""

    weights: dict[str, float]
    times: dict[str, int]
    loss: float
    member_loss: dict[str, float]


def select_members(truths: Mapping[str, Floats], units: NDArray[np.int64], seed: int, split_key: str) -> Selection:
    """Which members count.

    truths: member → (n,) probability that it gave the true class of each row, by a fit that had not seen the row
    units:  (n,) number of the unit of each row · seed, split_key: of the draws, which depend on nothing else
    The order of the members does not matter: of equal ones the first by name is taken.
    """
    names = sorted(truths)
    matrix = np.maximum(np.stack([truths[each] for each in names]), _SMALLEST)  # (M, n)
    count = int(units.max()) + 1
    generator = named_generator(seed, "ensemble selection", split_key)
    shares, times = np.zeros(len(names)), np.zeros(len(names), dtype=np.int64)
    for _ in range(BAGS):
        drawn = np.bincount(generator.integers(0, count, count), minlength=count)[units].astype(np.float64)  # (n,)
        added = _add_greedily(matrix, drawn)
        shares += added / added.sum()
        times += added
    shares /= BAGS
    losses = -np.log(matrix).mean(axis=1)
    return Selection(
        dict(zip(names, shares.tolist(), strict=True)),
        dict(zip(names, times.tolist(), strict=True)),
        float(-np.log(shares @ matrix).mean()),
        dict(zip(names, losses.tolist(), strict=True)),
    )


def _add_greedily(matrix: Floats, drawn: Floats) -> NDArray[np.int64]:
    """(M, n) probabilities of the truth, (n,) weights of rows → (M,) how often each member was added, up to the best round."""
    losses = _round_losses(-np.log(matrix) @ drawn)
    added = np.zeros(len(matrix), dtype=np.int64)
    added[np.argsort(losses, kind="stable")[: count_initial(len(matrix))]] = 1
    total = added @ matrix
    best, least = added.copy(), float(_round_losses(-np.log(total / added.sum()) @ drawn))
    while added.sum() < ROUNDS:
        tried = _round_losses(-np.log((total + matrix) / (added.sum() + 1)) @ drawn)  # (M,) loss with each of them added
        chosen = int(tried.argmin())
        added[chosen] += 1
        total = total + matrix[chosen]
        if tried[chosen] < least:
            best, least = added.copy(), float(tried[chosen])
    return best


def _round_losses(losses: Any) -> Any:
    """Without the last digits, by which sums of equal terms differ, so that equal members are equal and names decide."""
    return np.round(losses, 9)


def count_initial(members: int) -> int:
    """How many of the best it begins with: one of up to four, a quarter of more, at most ten."""
    return min(10, max(1, members // 4))
