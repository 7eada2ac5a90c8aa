"""Optimism of a protocol with groups on both sides: the same candidates under it, and with groups held out.

Both studies test the same groups (people), so the interval of the gap is that of one draw of groups, used for both: to first
order (the infinitesimal jackknife, Efron 1982, ch. 6), each group drawn with all its rows of both studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phoropter.core.errors import StoreError, did_you_mean
from phoropter.core.seeds import named_generator
from phoropter.results.intervals.bootstrap import RESAMPLES
from phoropter.results.intervals.interval_rules import MIN_UNITS, ConfidenceInterval, clip_difference, stretched_percentiles
from phoropter.results.intervals.resampling import resampled_sums
from phoropter.results.metrics.registry import get_metric, metric_names, register_stored_metric
from phoropter.results.stats.estimand import Estimand, choose_common_estimand, paired_influences
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.store import Run, Store

_DEFAULT_METRICS = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class ProtocolGap:
    """One candidate by one metric: its value under either protocol, of the same estimand, and their difference with its interval.

    within_group: with groups on both sides · group_held_out: with groups held out · difference: the first minus the second
    """

    candidate: str
    metric: str
    within_group: float
    group_held_out: float
    difference: float
    interval: ConfidenceInterval
    estimand: Estimand


def compute_protocol_gaps(
    within_group: Store,
    group_held_out: Store,
    metrics: Sequence[str] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> list[ProtocolGap]:
    """One row for each candidate that both studies have and each metric, in the order of the study with groups held out.

    metrics: default: those of that study · the unit of the bootstrap is the group, or the row where there are no groups
    Raises StoreError when the studies have no candidate in common or share runs, SpecError for an unknown metric.
    """
    _raise_on_shared_runs(within_group, group_held_out)
    for described in (d for store in (within_group, group_held_out) for d in store.study.get("custom_metrics", ())):
        register_stored_metric(described)
    names = metrics or metric_names(group_held_out.study["study"].get("metrics", _DEFAULT_METRICS))
    for name in names:
        get_metric(name)
    first, second = _runs_by_candidate(within_group), _runs_by_candidate(group_held_out)
    common = [name for name in second if name in first]
    if not common:
        hint = did_you_mean(next(iter(second), ""), first)
        folders = f"{within_group.folder} and {group_held_out.folder}"
        raise StoreError(f"{folders} have no finished candidate in common{hint}; run both to the end")
    rows: list[ProtocolGap] = []
    for candidate in common:
        a, b = (HeldOutRows.from_runs(runs) for runs in (first[candidate], second[candidate]))
        for name in names:
            rows.append(_compute_gap(candidate, name, a, b, (seed, resamples, level)))
    return rows


def _compute_gap(candidate: str, name: str, a: HeldOutRows, b: HeldOutRows, options: tuple[int, int, float]) -> ProtocolGap:
    """a: rows of the study with groups on both sides · b: with groups held out · options: seed, resamples, level."""
    seed, resamples, level = options
    estimand = choose_common_estimand(name, a.split_supports, b.split_supports)
    within_group, group_held_out, slopes = paired_influences(estimand, a, b)
    difference, count = within_group - group_held_out, len(slopes)
    low = high = float("nan")
    method = f"paired first-order bootstrap of {count} units, stretched"
    if count < MIN_UNITS:
        method = f"no interval: {count} independent units, at least {MIN_UNITS} are needed"
    elif not np.isnan(difference):
        values = difference + (resampled_sums(slopes, named_generator(seed, "gap"), resamples) - slopes.sum())
        bounds = stretched_percentiles(difference, values, count, level)
        low, high = clip_difference(*bounds, get_metric(name).value_range)
    interval = ConfidenceInterval(difference, low, high, level, method, count)
    return ProtocolGap(candidate, name, within_group, group_held_out, difference, interval, estimand)


def _runs_by_candidate(store: Store) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in store.runs():
        found.setdefault(run.candidate_name, []).append(run)
    return found


def _raise_on_shared_runs(within_group: Store, group_held_out: Store) -> None:
    """Without groups the two protocols are the same, and a gap of 0 would be no finding."""
    keys: list[set[Any]] = [{row["key"] for row in store.study["plan"]} for store in (within_group, group_held_out)]
    if keys[0] & keys[1]:
        raise StoreError(
            f"{within_group.folder} and {group_held_out.folder} hold the same runs, so there is no gap between them: the first "
            "study needs allow_group_overlap: true, and the data need groups"
        )
