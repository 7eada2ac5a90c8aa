"""Likely wrong labels, from probabilities of rows that were not trained on: confident learning (Northcutt, Jiang & Chuang 2021).

A row is suspected where it is confidently of another class than its label says: the probability of that class is at least the
mean that rows of the class have for it. Of several such classes the most probable one counts, as in cleanlab.

Left out: classes that must keep a number of rows, and the pruning by estimated noise rates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.results.metrics.sufficient_sums import Floats, Ints
from phoropter.results.store import Predictions

_TOLERANCE = 1e-6  # below a threshold that still counts as reaching it: the mean of equal numbers may lie above them


@dataclass(frozen=True, eq=False)
class AveragedRows:
    """Every row once. ids, labels, groups: (n,) · probabilities: (n, C), means over rounds · counts: (n,) how many rounds"""

    ids: NDArray[np.str_]
    labels: Ints
    probabilities: Floats
    counts: Ints
    groups: NDArray[Any] | None


@dataclass(frozen=True, eq=False)
class SuspectedLabels:
    """rows: (m,) numbers of the rows, the most suspicious first · suggested: (m,) the class each is confidently of
    margins: (m,) probability of that class minus that of the label, by which they are ordered"""

    rows: Ints
    suggested: Ints
    margins: Floats


def find_suspected_labels(labels: Ints, probabilities: Floats) -> SuspectedLabels:
    """(n,) labels and (n, C) probabilities of rows that were not trained on → the rows whose labels are likely wrong."""
    classes = np.arange(probabilities.shape[1])
    own = np.array([probabilities[labels == k, k].mean() if (labels == k).any() else np.inf for k in classes])
    confident = probabilities >= own - _TOLERANCE
    likeliest = probabilities.argmax(axis=1)
    guess = np.where(confident.sum(axis=1) > 1, likeliest, confident.argmax(axis=1))
    suspected = np.flatnonzero(confident.any(axis=1) & (guess != labels))
    margins = probabilities[suspected, guess[suspected]] - probabilities[suspected, labels[suspected]]
    order = np.argsort(-margins, kind="stable")
    return SuspectedLabels(suspected[order], guess[suspected][order], margins[order])


def average_by_row(runs: Iterable[Predictions]) -> AveragedRows:
    """The held-out predictions of the runs of one candidate → each row once, with the mean of its probabilities over rounds."""
    each = list(runs)
    ids, first, index = np.unique(np.concatenate([p.ids for p in each]), return_index=True, return_inverse=True)
    probabilities = np.concatenate([p.probabilities for p in each])
    sums = np.zeros((len(ids), probabilities.shape[1]))
    np.add.at(sums, index, probabilities)
    counts = np.bincount(index)
    groups = [p.groups for p in each if p.groups is not None]
    return AveragedRows(
        ids,
        np.concatenate([p.labels for p in each])[first],
        sums / counts[:, None],
        counts,
        np.concatenate(groups)[first] if len(groups) == len(each) else None,
    )
