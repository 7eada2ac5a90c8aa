"""What a metric of a study estimates: decided here, once, for everything that is compared by it.

    per split   the metric within each split's test part, averaged over splits: where every part can carry it
    pooled      the metric of all held-out rows of one round (the splits of one repeat under one seed), averaged over rounds

A test part can carry a metric of a set of rows (F1, recall, AUC) if it has all classes of the study and at least 10 rows of the
rarest (50 for MCC and average precision; `MetricRecord.min_rarest`): below, the value of a part says more about its size than
about the candidate, and averaging over parts keeps that error (benchmarks/estimand_bias.py, docs/statistics.md). Means over rows
(accuracy, log-loss, Brier score) are the same either way, because parts count by their rows. The calibration error is always
pooled: bins of few rows are noise.

The choice is made from the rows of the study, never from answers, so it is the same for candidates, baseline, pairs and sweeps.
Results under different splits are compared by the pooled value in both arms (`choose_common_estimand`): the same answers then
differ by exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.results.intervals.bootstrap import RESAMPLES, Bootstrap, UnitRows, weighted_mean
from phoropter.results.metrics import sufficient_sums
from phoropter.results.metrics.distinct_values import number_values
from phoropter.results.metrics.metric_record import MIN_RAREST, MetricRecord
from phoropter.results.metrics.registry import compute_metrics_checked, get_metric
from phoropter.results.metrics.sufficient_sums import Floats, Ints, count_answers, count_rows
from phoropter.results.stats.held_out_rows import HeldOutRows

EstimandKind = Literal["per-split", "pooled"]


@dataclass(frozen=True)
class SplitValues:
    """A value taken apart by split: Σ weights · values = value.

    splits: (J,) numbers of the splits · values: (J,) the metric in each split where it is averaged over splits or rows; of a
    pooled metric of a set, the value as it is and what the rows of the split move it by, to first order · weights: (J,), sum 1
    """

    value: float
    splits: Ints
    values: Floats
    weights: Floats


@dataclass(frozen=True)
class Estimand:
    """How a metric of this study is computed from the held-out rows of any candidate.

    kind: `per-split` or `pooled` · reason: why, in words that may follow `because` · has_spread: whether the standard deviation
    over splits means something: each of them can carry the metric · compares_scores: whether scores of models of different
    splits are ranked together, as a pooled AUC does
    """

    metric: str
    kind: EstimandKind
    reason: str
    has_spread: bool
    compares_scores: bool = False

    @property
    def weighs_rows(self) -> bool:
        """Whether parts count by their rows; else all alike."""
        return self.kind == "pooled"

    def part_numbers(self, rows: HeldOutRows) -> Ints | None:
        """(N,) the part in which each row is scored, its split or its round; None where there is one part."""
        parts = rows.splits if self.kind == "per-split" else rows.repeats
        return None if len(parts) == 0 or (parts == parts[0]).all() else parts

    def unit_rows(self, rows: HeldOutRows) -> UnitRows:
        """The rows with their units and parts."""
        return UnitRows(rows.labels, rows.unit_names, self.part_numbers(rows), self.weighs_rows)

    def make_bootstrap(self, rows: HeldOutRows, *, seed: int = 0, resamples: int = RESAMPLES) -> Bootstrap:
        """Resamples of the units, for the probabilities of any candidate on these rows."""
        parts = self.part_numbers(rows)
        return Bootstrap(rows.labels, rows.unit_names, parts, weigh_rows=self.weighs_rows, seed=seed, resamples=resamples)

    def compute_value(self, rows: HeldOutRows) -> float:
        """The value; NaN where no part defines it."""
        return self.unit_rows(rows).compute_value(self.metric, rows.probabilities)

    def compute_influences(self, rows: HeldOutRows) -> tuple[float, Floats]:
        """The value, and (U,) its derivatives by the weights of `rows.units`."""
        return self.unit_rows(rows).compute_influences(self.metric, rows.probabilities)

    def compute_row_influences(self, rows: HeldOutRows) -> tuple[float, Floats]:
        """The value, and (N,) its derivatives by the weights of the rows."""
        single = UnitRows(rows.labels, None, self.part_numbers(rows), self.weighs_rows)
        return single.compute_influences(self.metric, rows.probabilities)

    def split_values(self, rows: HeldOutRows) -> SplitValues:
        """The value taken apart by split. Of two candidates on the same rows, differences are those of each split."""
        numbers, member, counts = np.unique(rows.splits, return_inverse=True, return_counts=True)
        if self.kind == "per-split":
            parts = [rows.labelled.select_rows(i) for i in _rows_of_parts(member, len(numbers))]
            values = np.array([get_metric(self.metric).compute_value(part) for part in parts])
            known = np.isfinite(values)
            weights = known / max(known.sum(), 1)
            return SplitValues(self.compute_value(rows), numbers[known], values[known], weights[known])
        value, slopes = self.compute_row_influences(rows)
        weights = counts / counts.sum()
        return SplitValues(value, numbers, value + np.bincount(member, slopes) / weights, weights)

    def within_split_mean(self, rows: HeldOutRows) -> tuple[float, int, int]:
        """The mean of the metric over the splits that can carry it, their number, and the number of all splits.

        The second figure beside a pooled AUC: scores are then ranked within one model only. NaN where no split can.
        """
        metric, member = get_metric(self.metric), np.unique(rows.splits, return_inverse=True)[1]
        n_classes = rows.probabilities.shape[1]
        every = count_answers(rows.labels, n_classes)
        parts = _rows_of_parts(member, int(member.max(initial=-1)) + 1)
        values = [
            metric.compute_value(rows.labelled.select_rows(i))
            for i in parts
            if can_carry(metric, count_answers(rows.labels[i], n_classes), every)
        ]
        known = [value for value in values if np.isfinite(value)]
        return float(np.mean(known)) if known else float("nan"), len(known), len(parts)


def choose_estimand(name: str, supports: Sequence[Ints], n_rounds: int = 1) -> Estimand:
    """The estimand of a metric.

    supports: `count_answers` of the test part of every split of the study · n_rounds: rounds these splits belong to.
    Raises SpecError for an unknown metric.
    """
    metric = get_metric(name)
    if metric.unavailable:
        return Estimand(name, "per-split", "only the values that the runs recorded are known", True)
    if metric.mean_over_rows:
        spread = all(count_rows(support) >= MIN_RAREST for support in supports)
        return Estimand(name, "pooled", "it is a mean over rows", spread)
    if metric.compute_sums is sufficient_sums.calibration_sums:
        return Estimand(name, "pooled", "the bins of a single split hold too few rows", False)
    every = np.sum(supports, axis=0)
    failing = [support for support in supports if not can_carry(metric, support, every)]
    compares_scores = "ranks" in metric.needs and len(supports) > n_rounds
    if not failing:
        return Estimand(name, "per-split", f"every test part has at least {metric.min_rarest} rows of each class", True)
    return Estimand(name, "pooled", _describe_failing(metric, failing, len(supports), every), False, compares_scores)


def choose_common_estimand(name: str, a: Sequence[Ints], b: Sequence[Ints], same_splits: bool = False) -> Estimand:
    """For two arms: pooled in both, unless their splits are the same ones. a, b: as `supports` of `choose_estimand`."""
    chosen = choose_estimand(name, [*a, *b])
    if same_splits or chosen.kind == "pooled" or get_metric(name).unavailable:
        return chosen
    ranks = "ranks" in get_metric(name).needs
    return Estimand(name, "pooled", "the two arms split the rows differently", False, ranks)


def paired_influences(estimand: Estimand, a: HeldOutRows, b: HeldOutRows) -> tuple[float, float, Floats]:
    """Value of a, value of b, and the derivatives of a - b by the weights of all units that occur in either, by name."""
    (first, by_a), (second, by_b) = estimand.compute_influences(a), estimand.compute_influences(b)
    units = np.union1d(a.units, b.units)
    slopes = np.zeros(len(units))
    slopes[np.searchsorted(units, a.units)] += by_a
    slopes[np.searchsorted(units, b.units)] -= by_b
    return first, second, slopes


def can_carry(metric: MetricRecord, support: Ints, every: Ints) -> bool:
    """Whether a test part can carry the metric. support, every: `count_answers` of the part, and of the whole study"""
    if metric.mean_over_rows:
        return count_rows(support) >= MIN_RAREST
    return bool(support[every > 0].min(initial=count_rows(support)) >= metric.min_rarest)


def units_can_carry(name: str, sizes: Ints, supports: Ints, every: Ints) -> NDArray[np.bool_]:
    """(U,) whether each group or site of (U,) `sizes` rows can be shown by this metric; supports: `count_answers` of each.

    It needs MIN_RAREST rows, and for a metric of a set all classes of the study, whose `count_answers` is `every`.
    """
    enough = sizes >= MIN_RAREST
    return np.asarray(enough if get_metric(name).mean_over_rows else enough & (supports[:, every > 0] > 0).all(axis=1))


def compute_values(estimands: Sequence[Estimand], rows: HeldOutRows) -> dict[str, float]:
    """Metric → value; sums that several metrics share are computed once. NaN where undefined."""
    found: dict[str, float] = {}
    for kind in ("per-split", "pooled"):
        some = [e for e in estimands if e.kind == kind]
        if not some:
            continue
        numbers = rows.splits if kind == "per-split" else rows.repeats
        names, member = number_values(numbers)
        parts = _rows_of_parts(member, len(names))
        weights = np.array([len(part) if kind == "pooled" else 1 for part in parts])
        each = [compute_metrics_checked([e.metric for e in some], rows.labelled.select_rows(i)) for i in parts]
        for e in some:
            values = np.array([one[e.metric] for one in each])
            known = ~np.isnan(values)
            found[e.metric] = weighted_mean(values[known], weights[known]) if known.any() else float("nan")
    return found


def _describe_failing(metric: MetricRecord, failing: Sequence[Ints], n_splits: int, every: Ints) -> str:
    lacking = sum(bool((support[every > 0] == 0).any()) for support in failing)
    parts = "the only test part" if n_splits == 1 else f"{len(failing)} of {n_splits} test parts"
    if lacking == len(failing):
        return f"{parts} {'lacks' if len(failing) == 1 else 'lack'} a class"
    fewest = min(int(support[every > 0].min()) for support in failing)
    have = "has" if len(failing) == 1 else "have"
    lack = "" if not lacking else f" ({lacking} of them none)"
    return f"{parts} {have} fewer than {metric.min_rarest} rows of some class{lack or f', at least {fewest}'}"


def _rows_of_parts(member: Ints, count: int) -> list[Ints]:
    order = np.argsort(member, kind="stable")
    return np.split(order, np.cumsum(np.bincount(member, minlength=count))[:-1]) if count else []
