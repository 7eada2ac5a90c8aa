"""Balanced group partition: groups are assigned to parts of given shares, with sizes and classes balanced, anew for every draw.

scikit-learn's StratifiedGroupKFold processes groups in the order of their imbalance, so groups of different sizes fall into the
same folds whatever its random_state: fifteen people recorded for slightly different times would give five seeds one and the same
partition, and the spread over seeds would mean nothing. Here, too, large groups go first and each goes where it disturbs the
balance least, but groups whose sizes are within a power of two go in random order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_ATTEMPTS = 20
MAX_ATTEMPTS_MANY_GROUPS = 4  # for more than MANY_GROUPS groups, which chance alone balances well
MANY_GROUPS = 2000
SIZE_TOLERANCE = 0.1


def balanced_group_partition(
    counts: NDArray[np.int64],
    shares: NDArray[np.float64],
    random: np.random.Generator,
    sizes: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """(G, C) rows of each class in each group, (F,) shares that sum to one → (G,) the part of each group.

    sizes: (G,) rows of each group, where a row may be in several classes or in none

    Returns the first of a few random partitions in which every part has every class and nearly its share of rows, else the best.
    """
    sizes = counts.sum(axis=1) if sizes is None else sizes
    best: tuple[tuple[int, float], NDArray[np.int64]] | None = None
    for _ in range(MAX_ATTEMPTS if len(counts) <= MANY_GROUPS else MAX_ATTEMPTS_MANY_GROUPS):
        part, loads = _partition_once(counts, sizes, shares, random)
        missing = int((loads[:, counts.sum(axis=0) > 0] == 0).sum())
        off = np.abs(np.bincount(part, weights=sizes, minlength=len(shares)) - shares * sizes.sum())
        if not missing and (off <= np.maximum(SIZE_TOLERANCE * shares * sizes.sum(), sizes.max() / 2)).all():
            return part
        score = (missing, float(off.max()))
        if best is None or score < best[0]:
            best = (score, part)
    assert best is not None
    return best[1]


def _partition_once(
    counts: NDArray[np.int64], sizes: NDArray[np.int64], shares: NDArray[np.float64], random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """((G,) part of each group, (F, C) rows of each class in each part).

    Each step minimises the sum of squared loads. A load is relative to the share of its part and to the size of its class, so a
    rare class counts as much as a common one.
    """
    weighed = np.column_stack([counts, sizes]) / np.maximum(1, np.append(counts.sum(axis=0), sizes.sum()))
    shuffled = random.permutation(len(counts))
    order = shuffled[np.argsort(-np.floor(np.log2(np.maximum(1, sizes[shuffled]))), kind="stable")]
    part = np.zeros(len(counts), dtype=np.int64)
    filled = np.zeros((len(shares), weighed.shape[1]))
    ties = random.random(len(shares)) * 1e-9
    for group in order:
        rise = ((2 * filled + weighed[group]) @ weighed[group]) / shares
        part[group] = np.argmin(rise + ties)
        filled[part[group]] += weighed[group]
    loads = np.zeros((len(shares), counts.shape[1]), dtype=np.int64)
    np.add.at(loads, part, counts)
    return part, loads
