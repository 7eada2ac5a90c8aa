"""Resampling the independent unit, for every candidate and metric with the same draws.

The unit is the group (subject, patient) where there is one, else the sample; never the window, and never the prediction of one
repeat: a unit is drawn with all its predictions. Two candidates tested on the same units meet the same resamples, so subtracting
their replicates gives the paired difference.

Left out: BCa and studentised intervals. With the few dozen units that are usual here their corrections are noisier than what
they correct; the percentiles are printed beside the number of units instead.

Letters as in results/sums.py: N rows · M sums · U units · B resamples.
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
MIN_UNITS = 3  # of two units a resample has both or one of them twice: no interval comes of that
MAX_EXACT_UNITS = 2000  # above, first order: its error falls as 1/U, and exact resamples of 30,000 units cost seconds a candidate
MAX_EXACT_RANKS = 400_000  # rows × classes to be ranked, for the same reason


@dataclass(frozen=True)
class ConfidenceInterval:
    """An estimate between two bounds; NaN bounds, and `method` says why, where there is no interval.

    units: how many independent units were resampled · redrawn: resamples drawn again because a class was missing
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
    """A metric in B resamples (NaN where undefined), beside its estimate from all rows; `limits` are those of its values."""

    metric: str
    estimate: float
    values: Floats
    method: str
    n_units: int
    n_redrawn: int
    value_range: tuple[float, float] = (-np.inf, np.inf)

    def percentile_interval(self, level: float = 0.95) -> ConfidenceInterval:
        """Percentiles of the replicates."""
        found = self.values[~np.isnan(self.values)]
        method, low, high = self.method, np.nan, np.nan
        if self.n_units < MIN_UNITS:
            method = f"no interval: {self.n_units} independent units, at least {MIN_UNITS} are needed"
        elif len(found) < len(self.values) / 2:
            method = "no interval: undefined in most resamples"
        else:
            low, high = np.clip(np.quantile(found, [(1 - level) / 2, (1 + level) / 2]), *self.value_range)
        return ConfidenceInterval(self.estimate, float(low), float(high), level, method, self.n_units, self.n_redrawn)

    def paired_difference(self, other: BootstrapReplicates) -> BootstrapReplicates:
        """The paired difference. Both must come from one Bootstrap; raises DataError when they visibly do not."""
        if (self.metric, self.n_units, len(self.values)) != (other.metric, other.n_units, len(other.values)):
            raise DataError(
                f"{self.metric} over {self.n_units} units and {other.metric} over {other.n_units} units are "
                "not from one bootstrap: compute both with the same Bootstrap"
            )
        difference, estimate = self.values - other.values, self.estimate - other.estimate
        return BootstrapReplicates(self.metric, estimate, difference, f"paired {self.method}", self.n_units, self.n_redrawn)


@dataclass(eq=False)
class UnitRows:
    """Labels (N,), the unit of each row (groups (N,) of names, or the row itself) and, where the metric is averaged over them,
    its split (splits (N,) of names). Raises DataError unless each has one entry a row."""

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
        """The units of each split, once each: the same for every candidate that is asked about."""
        return [np.unique(self.units[rows]) for rows in self.parts]

    def compute_influences(self, name: str, probabilities: NDArray[Any]) -> tuple[float, Floats]:
        """The metric, and (U,) its derivatives by the weights of the units; (NaN, zeros) where no split defines it.

        The mean over splits moves with each split's metric and with the share of the split's units that were drawn, so that for
        leave-one-group-out it is exactly the mean over the groups drawn.
        """
        asked, answers = get_metric(name), LabelledProbabilities.from_arrays(self.labels, probabilities)
        slopes = np.zeros(self.count)
        inside: list[tuple[float, Ints]] = []  # of each split where the metric is defined: its value, its units
        for rows, members in zip(self.parts, self.units_by_split, strict=True):
            part = LabelledProbabilities(answers.labels[rows], answers.probabilities[rows])
            if asked.undefined_reason(part):
                continue
            value, gradient = asked.compute_unit_gradient(part, self.units[rows], self.count)
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
    """The resamples of a set of rows; ask it for any candidate's probabilities of those rows, in their order.

    labels (N,) int64 · groups (N,) the unit of each row; pass sample ids where samples are the units and were predicted several
    times; None: each row is its own unit · splits (N,): with them a metric is taken within each split and averaged, as a
    leaderboard does; without, over all rows at once.

    Resamples are exact for up to EXACT_UNITS units without splits, else first-order (and `method` says so): within splits a
    nonlinear metric of a resample is biased by the split's few rows, and averaging splits leaves the bias and removes the noise.
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
        asked = get_metric(name)
        first_order = self._uses_first_order(asked, np.shape(probabilities)[-1])
        kind = self._resampling_kind(asked, first_order)
        estimate, values = (self._first_order_replicates if first_order else self._exact_replicates)(asked, probabilities, kind)
        method = f"{'first-order ' if first_order else ''}bootstrap of {self.draws.count} {self._what}"
        method += " within classes" if kind == "stratified" else ""
        redrawn = self.draws.redrawn if kind == "whole" else 0
        return BootstrapReplicates(name, estimate, values, method, self.draws.count, redrawn, asked.value_range)

    def _uses_first_order(self, asked: MetricRecord, classes: int) -> bool:
        ranked = len(self.rows.labels) * classes if "ranks" in asked.needs else 0
        many_rows = asked.max_exact_rows is not None and len(self.rows.labels) > asked.max_exact_rows
        return self.rows.splits is not None or self.draws.count > MAX_EXACT_UNITS or ranked > MAX_EXACT_RANKS or many_rows

    def _resampling_kind(self, asked: MetricRecord, first_order: bool) -> ResamplingKind:
        if "ranks" in asked.needs and self.draws.can_stratify:
            return "stratified"
        return "whole" if "every class" in asked.needs and not first_order else "plain"

    def _exact_replicates(self, asked: MetricRecord, probabilities: NDArray[Any], kind: ResamplingKind) -> tuple[float, Floats]:
        answers = LabelledProbabilities.from_arrays(self.rows.labels, probabilities)
        values = np.full(self.draws.resamples, np.nan)
        if asked.undefined_reason(answers):
            return float("nan"), values
        sums = asked.compute_sums(answers)
        estimate = asked.compute_from_sums(sums)
        if self.draws.count >= MIN_UNITS and not np.isnan(estimate):
            matrix = sums.unit_matrix(self.rows.units, self.draws.count)
            width = max(1, BLOCK_CELLS // max(sums.n_sums, self.draws.count))
            values = np.concatenate(
                [asked.value_from_sums(np.asarray(matrix @ b), sums.layout) for b in self.draws.weight_blocks(kind, width)]
            )
        return estimate, values

    def _first_order_replicates(
        self, asked: MetricRecord, probabilities: NDArray[Any], kind: ResamplingKind
    ) -> tuple[float, Floats]:
        """estimate + Σ_u (drawn_u - 1) ∂metric/∂weight_u: the infinitesimal jackknife (Efron 1982, ch. 6), same draws."""
        estimate, slopes = self.rows.compute_influences(asked.name, probabilities)
        if self.draws.count < MIN_UNITS or np.isnan(estimate):
            return estimate, np.full(self.draws.resamples, np.nan)
        return estimate, estimate + self.draws.weighted_sums(kind, slopes) - slopes.sum()


def encode_names(names: NDArray[Any], rows: int, what: str) -> Ints:
    """Names → 0..U-1 in the order of the sorted names. Raises DataError unless there is one a row."""
    if len(names) != rows:
        raise DataError(f"{what} has {len(names)} entries for {rows} labels: it needs one a row")
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)


def group_rows_by_split(splits: Ints) -> list[Ints]:
    """The rows of each split, without a pass over all rows for every split."""
    order = np.argsort(splits, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(splits[order])) + 1) if len(order) else []
