"""Iterative stratification: rows with several labels each are assigned to parts of given shares.

Sechidis, Tsoumakas & Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011, algorithm 1: the label with the
fewest rows left is distributed first, each of its rows to the part that still wants most of that label, of equal ones to the part
that still wants most rows, then by chance. Rows without any label go last, to the part that wants most rows.

Beyond the paper: of a few draws the first is taken in which every part has every label. Complete groups are partitioned by
group_kfold.py, which weighs the labels of a group against each other and against its size: dealt out one label after another,
groups of many labels would leave parts of unlike sizes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phoropter.data.dataset import count_classes_by_group

MAX_DRAWS = 10


def stratify_label_sets(labels: NDArray[np.int64], shares: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    """(N, L) 0 and 1, (F,) shares that sum to one → (N,) the part of each row."""
    best: tuple[int, NDArray[np.int64]] | None = None
    for _ in range(MAX_DRAWS):
        part = _assign_once(labels, shares, random)
        loads = count_classes_by_group(labels, part, (len(shares), labels.shape[1]))
        missing = int((loads[:, labels.any(axis=0)] == 0).sum())
        if best is None or missing < best[0]:
            best = (missing, part)
        if not missing:
            break
    assert best is not None
    return best[1]


def _assign_once(labels: NDArray[np.int64], shares: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    part = np.full(len(labels), -1, dtype=np.int64)
    wanted = np.outer(shares, labels.sum(axis=0))  # (F, L) of each label
    room = shares * len(labels)  # (F,) of rows
    left = labels.sum(axis=0)

    def assign(row: int, wish: NDArray[np.float64]) -> None:
        # Sums of shares differ in their last bits where the paper's are equal
        first = np.flatnonzero(wish > wish.max() - 1e-9)
        first = first[room[first] > room[first].max() - 1e-9]
        part[row] = chosen = int(first[0] if len(first) == 1 else random.choice(first))
        wanted[chosen] -= labels[row]
        room[chosen] -= 1
        left[:] -= labels[row]

    while (left > 0).any():
        label = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        for row in random.permutation(np.flatnonzero((part < 0) & (labels[:, label] > 0))).tolist():
            assign(row, wanted[:, label])
    for row in random.permutation(np.flatnonzero(part < 0)).tolist():
        assign(row, room)
    return part
