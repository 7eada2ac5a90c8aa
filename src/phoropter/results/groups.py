"""On whom: a metric in each group (subject, hospital, camera), the worst group and the worst fifth of them.

The worst of many groups is bad partly by chance, the more so the smaller it is: show its number of rows beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.results.metrics import metric
from phoropter.results.sums import Answers


@dataclass(frozen=True)
class GroupScore:
    """A metric within one group; NaN where it is undefined there (an AUC of one class)."""

    group: str
    value: float
    rows: int


@dataclass(frozen=True)
class Worst:
    """groups: worst first, those without a value left out · share_mean: mean of the metric over the worst share of groups ·
    share_groups: how many groups that share is · left_out: groups where the metric is undefined"""

    groups: tuple[GroupScore, ...]
    share_mean: float
    share_groups: int
    left_out: int


def by_group(name: str, labels: NDArray[Any], probabilities: NDArray[Any], groups: NDArray[Any]) -> list[GroupScore]:
    """labels (N,), probabilities (N, C), groups (N,) → one entry a group, by name."""
    asked, answers = metric(name), Answers.checked(labels, probabilities)
    if len(groups) != len(answers.labels):
        raise DataError(f"groups has {len(groups)} entries for {len(answers.labels)} labels: it needs one a row")
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(member, kind="stable")
    ends = np.cumsum(np.bincount(member, minlength=len(names)))
    parts = [order[begin:end] for begin, end in zip(np.r_[0, ends[:-1]].astype(int), ends, strict=True)]
    return [
        GroupScore(str(group), asked.of(Answers(answers.labels[rows], answers.probabilities[rows])), len(rows))
        for group, rows in zip(names, parts, strict=True)
    ]


def worst(name: str, scores: list[GroupScore], share: float = 0.2) -> Worst:
    """The scores of `by_group`, worst first, and the mean over the worst `share` of groups, at least one."""
    sign = 1 if metric(name).higher_is_better else -1
    known = sorted((s for s in scores if not np.isnan(s.value)), key=lambda s: (sign * s.value, s.group))
    tail = known[: max(1, ceil(share * len(known) - 1e-9))]
    mean = float(np.mean([s.value for s in tail])) if tail else float("nan")
    return Worst(tuple(known), mean, len(tail), len(scores) - len(known))
