"""A metric by subgroup (subject, hospital, camera): each group, the worst group, and the mean over the worst fifth.

The worst of many groups is bad partly by chance, the more so the fewer rows it has: show its number of rows beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities


@dataclass(frozen=True)
class GroupScore:
    """A metric within one group; NaN where it is undefined there (an AUC of one class)."""

    group: str
    value: float
    n_rows: int


@dataclass(frozen=True)
class WorstGroups:
    """groups: worst first, without those where the metric is undefined · worst_mean: mean of the metric over the worst share of
    groups · n_worst: number of groups in that share · n_left_out: groups where the metric is undefined"""

    groups: tuple[GroupScore, ...]
    worst_mean: float
    n_worst: int
    n_left_out: int


def score_by_group(name: str, labels: NDArray[Any], probabilities: NDArray[Any], groups: NDArray[Any]) -> list[GroupScore]:
    """labels (N,), probabilities (N, C), groups (N,) → one entry per group, sorted by name. Raises DataError for other shapes."""
    metric, predictions = get_metric(name), LabelledProbabilities.from_arrays(labels, probabilities)
    if len(groups) != len(predictions.labels):
        raise DataError(f"groups has {len(groups)} entries for {len(predictions.labels)} labels: it needs one per row")
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(member, kind="stable")
    ends = np.cumsum(np.bincount(member, minlength=len(names)))
    parts = [order[begin:end] for begin, end in zip(np.r_[0, ends[:-1]].astype(int), ends, strict=True)]
    return [
        GroupScore(
            str(group),
            metric.compute_value(LabelledProbabilities(predictions.labels[rows], predictions.probabilities[rows])),
            len(rows),
        )
        for group, rows in zip(names, parts, strict=True)
    ]


def find_worst_groups(name: str, scores: list[GroupScore], share: float = 0.2) -> WorstGroups:
    """The scores of `score_by_group`, worst first, and the mean over the worst `share` of groups, at least one."""
    sign = 1 if get_metric(name).higher_is_better else -1
    known = sorted((s for s in scores if not np.isnan(s.value)), key=lambda s: (sign * s.value, s.group))
    tail = known[: max(1, ceil(share * len(known) - 1e-9))]
    mean = float(np.mean([s.value for s in tail])) if tail else float("nan")
    return WorstGroups(tuple(known), mean, len(tail), len(scores) - len(known))
