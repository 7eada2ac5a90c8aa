"""Clustered bootstrap: independent units are resampled, with the same draws for every candidate and metric.

The unit is the group (subject, patient) where there is one, else the sample; never the window, and never one prediction of
several repeats: a unit is drawn with all its predictions. Two candidates tested on the same units have the same resamples, so the
difference of their replicates is the paired difference.

Left out: BCa and studentised intervals. With the few dozen units that are usual here, their corrections are noisier than the bias
they correct; reports print the percentiles beside the number of units instead.

Letters as in metrics/sufficient_sums.py: N rows · M sums · U units · B resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities
from phoropter.results.stats.resampling import BLOCK_CELLS, ResamplingKind, UnitResampler

RESAMPLES = 2000
MIN_UNITS = 3  # of two units, a resample has both or one of them twice, which gives no interval
MAX_EXACT_UNITS = (
    2000  # above, first order: its error falls as 1/U, and exact resamples of 30,000 units take seconds per candidate
)
MAX_EXACT_RANKS = 400_000  # rows × classes to rank, for the same reason


@dataclass(frozen=True)
class ConfidenceInterval:
    """An estimate with two bounds, which are NaN where there is no interval; `method` then gives the reason.

    n_units: independent units resampled · n_redrawn: resamples drawn again because a class was missing
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str
    n_units: int
    n_redrawn: int = 0


@dataclass(frozen=True, eq=False)
class BootstrapReplicates:
    """A metric in B resamples (NaN where undefined), and its estimate from all rows. value_range: bounds of its values."""

    metric: str
    estimate: float
    values: Floats
    method: str
    n_units: int
    n_redrawn: int
    value_range: tuple[float, float] = (-np.inf, np.inf)

    def percentile_interval(self, level: float = 0.95) -> ConfidenceInterval:
        """Percentiles of the replicates."""
        defined = self.values[~np.isnan(self.values)]
        method, low, high = self.method, np.nan, np.nan
        if self.n_units < MIN_UNITS:
            method = f"no interval: {self.n_units} independent units, at least {MIN_UNITS} are needed"
        elif len(defined) < len(self.values) / 2:
            method = "no interval: undefined in most resamples"
        else:
            low, high = np.clip(np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]), *self.value_range)
        return ConfidenceInterval(self.estimate, float(low), float(high), level, method, self.n_units, self.n_redrawn)

    def paired_difference(self, other: BootstrapReplicates) -> BootstrapReplicates:
        """Replicates of self - other. Raises DataError when the two are visibly not from one Bootstrap."""
        if (self.metric, self.n_units, len(self.values)) != (other.metric, other.n_units, len(other.values)):
            raise DataError(
                f"{self.metric} over {self.n_units} units and {other.metric} over {other.n_units} units are "
                "not from one bootstrap: compute both with the same Bootstrap"
            )
        difference, estimate = self.values - other.values, self.estimate - other.estimate
        return BootstrapReplicates(self.metric, estimate, difference, f"paired {self.method}", self.n_units, self.n_redrawn)


@dataclass(eq=False)
class UnitRows:
    """The rows of a bootstrap: their labels, units and splits.

    labels: (N,) · groups: (N,) names of the unit of each row; None: the row itself · splits: (N,) names, where the metric is
    taken within each split and averaged. Raises DataError unless each has one entry per row.
    """

    labels: NDArray[Any]
    groups: NDArray[Any] | None = None
    splits: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        self.labels = np.asarray(self.labels)
        n = len(self.labels)
        self.units: Ints = np.arange(n) if self.groups is None else encode_names(self.groups, n, "groups")
        self.count = int(self.units.max(initial=-1)) + 1
        split = np.zeros(n, dtype=np.int64) if self.splits is None else encode_names(self.splits, n, "splits")
        self.parts = group_rows_by_split(split)

    @cached_property
    def units_by_split(self) -> list[Ints]:
        """The units of each split, once each; computed once for all candidates."""
        return [np.unique(self.units[rows]) for rows in self.parts]

    def compute_influences(self, name: str, probabilities: NDArray[Any]) -> tuple[float, Floats]:
        """The metric, and (U,) its derivatives by the weights of the units; (NaN, zeros) where no split defines it.

        The mean over splits moves with each split's metric and with the share of the split's units that were drawn, so that for
        leave-one-group-out it is exactly the mean over the groups drawn.
        """
        metric, predictions = get_metric(name), LabelledProbabilities.from_arrays(self.labels, probabilities)
        slopes = np.zeros(self.count)
        inside: list[tuple[float, Ints]] = []  # of each split where the metric is defined: its value, its units
        for rows, members in zip(self.parts, self.units_by_split, strict=True):
            part = LabelledProbabilities(predictions.labels[rows], predictions.probabilities[rows])
            if metric.undefined_reason(part):
                continue
            value, gradient = metric.compute_unit_gradient(part, self.units[rows], self.count)
            if np.isnan(value):
                continue
            slopes += gradient
            inside.append((value, members))
        if not inside:
            return float("nan"), slopes
        estimate = float(np.mean([value for value, _ in inside]))
        for value, members in inside:
            slopes[members] += (value - estimate) / len(members)
        return estimate, slopes / len(inside)


class Bootstrap:
    """The resamples of a set of rows, for the probabilities of any candidate on those rows, in their order.

    labels: (N,) int64 · groups: (N,) the unit of each row (sample ids where a sample was predicted several times); None: each row
    is its own unit · splits: (N,): a metric is taken within each split and averaged, as on the leaderboard; None: over all rows

    Resamples are exact for up to MAX_EXACT_UNITS units without splits, else first-order (`method` says which): within splits, a
    nonlinear metric of a resample is biased by the few rows of the split, and averaging over splits leaves the bias and removes
    the noise.
    """

    def __init__(
        self,
        labels: NDArray[Any],
        groups: NDArray[Any] | None = None,
        splits: NDArray[Any] | None = None,
        *,
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> None:
        self.rows = UnitRows(labels, groups, splits)
        self.draws = UnitResampler(self.rows.labels, self.rows.units, seed=seed, resamples=resamples)
        self._what = "samples" if groups is None else "units"

    def compute_replicates(self, name: str, probabilities: NDArray[Any]) -> BootstrapReplicates:
        """probabilities (N, C) → the metric in every resample."""
        metric = get_metric(name)
        first_order = self._uses_first_order(metric, np.shape(probabilities)[-1])
        kind = self._resampling_kind(metric, first_order)
        estimate, values = (self._first_order_replicates if first_order else self._exact_replicates)(metric, probabilities, kind)
        method = f"{'first-order ' if first_order else ''}bootstrap of {self.draws.count} {self._what}"
        method += " within classes" if kind == "stratified" else ""
        redrawn = self.draws.redrawn if kind == "all-classes" else 0
        return BootstrapReplicates(name, estimate, values, method, self.draws.count, redrawn, metric.value_range)

    def _uses_first_order(self, metric: MetricRecord, classes: int) -> bool:
        ranked = len(self.rows.labels) * classes if "ranks" in metric.needs else 0
        many_rows = metric.max_exact_rows is not None and len(self.rows.labels) > metric.max_exact_rows
        return self.rows.splits is not None or self.draws.count > MAX_EXACT_UNITS or ranked > MAX_EXACT_RANKS or many_rows

    def _resampling_kind(self, metric: MetricRecord, first_order: bool) -> ResamplingKind:
        if "ranks" in metric.needs and self.draws.can_stratify:
            return "stratified"
        return "all-classes" if "every class" in metric.needs and not first_order else "simple"

    def _exact_replicates(self, metric: MetricRecord, probabilities: NDArray[Any], kind: ResamplingKind) -> tuple[float, Floats]:
        predictions = LabelledProbabilities.from_arrays(self.rows.labels, probabilities)
        values = np.full(self.draws.resamples, np.nan)
        if metric.undefined_reason(predictions):
            return float("nan"), values
        sums = metric.compute_sums(predictions)
        estimate = metric.compute_from_sums(sums)
        if self.draws.count >= MIN_UNITS and not np.isnan(estimate):
            matrix = sums.unit_matrix(self.rows.units, self.draws.count)
            width = max(1, BLOCK_CELLS // max(sums.n_sums, self.draws.count))
            values = np.concatenate(
                [metric.value_from_sums(np.asarray(matrix @ b), sums.layout) for b in self.draws.weight_blocks(kind, width)]
            )
        return estimate, values

    def _first_order_replicates(
        self, metric: MetricRecord, probabilities: NDArray[Any], kind: ResamplingKind
    ) -> tuple[float, Floats]:
        """estimate + Σ_u (drawn_u - 1) ∂metric/∂weight_u: the infinitesimal jackknife (Efron 1982, ch. 6), same draws."""
        estimate, slopes = self.rows.compute_influences(metric.name, probabilities)
        if self.draws.count < MIN_UNITS or np.isnan(estimate):
            return estimate, np.full(self.draws.resamples, np.nan)
        return estimate, estimate + self.draws.weighted_sums(kind, slopes) - slopes.sum()


def encode_names(names: NDArray[Any], rows: int, what: str) -> Ints:
    """Names → 0..U-1 in the order of the sorted names. Raises DataError unless there is one per row."""
    if len(names) != rows:
        raise DataError(f"{what} has {len(names)} entries for {rows} labels: it needs one per row")
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)


def group_rows_by_split(splits: Ints) -> list[Ints]:
    """The rows of each split, by one sort."""
    order = np.argsort(splits, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(splits[order])) + 1) if len(order) else []
