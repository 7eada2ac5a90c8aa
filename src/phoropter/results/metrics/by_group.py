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
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities


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
    values = score_parts(metric, predictions, member, len(names))
    sizes = np.bincount(member, minlength=len(names))
    return [GroupScore(*of) for of in zip(map(str, names), values.tolist(), sizes.tolist(), strict=True)]


def score_parts(metric: MetricRecord, predictions: LabelledProbabilities, parts: Ints, count: int) -> Floats:
    """(P,) the metric of the rows of each part, NaN where it is undefined. parts: (N,) of each row, 0..P-1

    A mean over rows is taken of all parts at once: hundreds of people in each round of each candidate cost more one by one.
    """
    if metric.mean_over_rows and not metric.direct_value and not metric.undefined_reason(predictions):
        sums = metric.compute_sums(predictions)
        return metric.value_from_sums(sums.part_columns(parts, count), sums.layout)
    ends = np.cumsum(np.bincount(parts, minlength=count))[:-1]
    rows_of = np.split(np.argsort(parts, kind="stable"), ends)
    return np.array([metric.compute_value(predictions.select_rows(rows)) for rows in rows_of], dtype=np.float64)


def find_worst_groups(name: str, scores: list[GroupScore], share: float = 0.2) -> WorstGroups:
    """The scores of `score_by_group`, worst first, and the mean over the worst `share` of groups, at least one."""
    sign = 1 if get_metric(name).higher_is_better else -1
    known = sorted((s for s in scores if not np.isnan(s.value)), key=lambda s: (sign * s.value, s.group))
    tail = known[: max(1, ceil(share * len(known) - 1e-9))]
    mean = float(np.mean([s.value for s in tail])) if tail else float("nan")
    return WorstGroups(tuple(known), mean, len(tail), len(scores) - len(known))
