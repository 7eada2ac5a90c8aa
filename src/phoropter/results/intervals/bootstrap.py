"""Clustered bootstrap: independent units are resampled, with the same draws for every candidate and metric.

The unit is the group (subject, patient) where there is one, else the sample; never the window, and never one prediction of
several repeats: a unit is drawn with all its predictions. Two candidates tested on the same units have the same resamples, so the
difference of their replicates is the paired difference.

Letters as in metrics/sufficient_sums.py: N rows · M sums · U units · B resamples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.results.intervals.interval_rules import (
    MIN_UNITS,
    ConfidenceInterval,
    SampleDesign,
    choose_interval,
)
from phoropter.results.intervals.resampling import BLOCK_CELLS, ResamplingKind, UnitResampler, units_by_answer
from phoropter.results.metrics.distinct_values import number_values
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities

RESAMPLES = 2000
MAX_EXACT_UNITS = (
    2000  # above, first order: its error falls as 1/U, and exact resamples of 30,000 units take seconds per candidate
)
MAX_EXACT_RANKS = 400_000  # rows × classes to rank, for the same reason


@dataclass(frozen=True, eq=False)
class BootstrapReplicates:
    """A metric in B resamples (NaN where undefined), its estimate from all rows, and what is independent in these rows."""

    metric: str
    estimate: float
    values: Floats
    method: str
    design: SampleDesign
    n_redrawn: int

    @property
    def n_units(self) -> int:
        return self.design.n_units

    def confidence_interval(self, level: float = 0.95) -> ConfidenceInterval:
        """By the rule for the metric, its units and rows (interval_rules.py)."""
        return choose_interval(get_metric(self.metric), self.estimate, self.values, self.design, level, self.n_redrawn)

    def paired_values(self, other: BootstrapReplicates) -> Floats:
        """(B,) replicates of self - other. Raises DataError when the two are visibly not from one Bootstrap."""
        if (self.metric, self.n_units, len(self.values)) != (other.metric, other.n_units, len(other.values)):
            raise DataError(
                f"{self.metric} over {self.n_units} units and {other.metric} over {other.n_units} units are "
                "not from one bootstrap: compute both with the same Bootstrap"
            )
        return self.values - other.values


@dataclass(eq=False)
class UnitRows:
    """The rows of a bootstrap: their labels, units and splits.

    labels: (N,), or (N, C) of several a row · groups: (N,) names of the unit of each row; None: the row itself
    splits: (N,) names of the parts within which
    the metric is taken before it is averaged: splits, or whole repeats · weigh_rows: a part counts by its rows, else all alike.
    Raises DataError unless each has one entry per row.
    """

    labels: NDArray[Any]
    groups: NDArray[Any] | None = None
    splits: NDArray[Any] | None = None
    weigh_rows: bool = False

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

    @cached_property
    def design(self) -> SampleDesign:
        """What is independent here. The AUC within single units is a mean over units; else it compares pairs of units."""
        n = len(self.labels)
        rarest = int(np.bincount(units_by_answer(self.labels, self.units)[0]).min(initial=self.count))
        single_units = all(len(members) == 1 for members in self.units_by_split)
        return SampleDesign(
            n_units=self.count,
            n_rows=n,
            single_rows=sum(len(members) for members in self.units_by_split) == n,
            n_rarest=rarest,
            n_perfect=self.count if single_units else min(rarest, self.count // 2),
            several_labels=self.labels.ndim == 2,
        )

    def standard_error(self, slopes: Floats) -> float:
        """Of a metric with these (U,) derivatives, the variance of G units multiplied by G / (G - 1)."""
        return float(np.sqrt(np.square(slopes).sum() * self.count / (self.count - 1))) if self.count > 1 else float("nan")

    def standard_error_by_class(self, slopes: Floats) -> tuple[float, float]:
        """As DeLong takes it, and its degrees of freedom by Welch and Satterthwaite: the variances of the classes added up.

        Each unit has one label. n units of a class in a split have their variance multiplied by n / (n - 1).
        """
        variances, label_of_unit = np.square(slopes), np.zeros(self.count, dtype=np.int64)
        factor = np.ones(self.count)
        label_of_unit[self.units] = np.unique(self.labels, return_inverse=True)[1]
        for rows in self.parts:
            number, counts = np.unique(self.labels[rows], return_inverse=True, return_counts=True)[1:]
            n = np.maximum(counts, 2)[number]
            np.maximum.at(factor, self.units[rows], n / (n - 1))
        of_class, total = np.bincount(label_of_unit, variances * factor), float((variances * factor).sum())
        freedom = np.square(of_class) / np.maximum(np.bincount(label_of_unit) - 1, 1)
        return float(np.sqrt(total)), float(total**2 / freedom.sum()) if total > 0 else float("inf")

    def compute_influences(self, name: str, probabilities: NDArray[Any]) -> tuple[float, Floats]:
        """The metric, and (U,) its derivatives by the weights of the units; (NaN, zeros) where no part defines it.

        The mean over parts moves with each part's metric and with the share of the part's units that were drawn, so that for
        leave-one-group-out it is exactly the mean over the groups drawn. Where parts count by their rows, so do their units.
        """
        metric, predictions = get_metric(name), LabelledProbabilities.from_arrays(self.labels, probabilities)
        slopes = np.zeros(self.count)
        inside: list[tuple[float, Ints, Ints]] = []  # of each part where the metric is defined: its value, rows and units
        for rows, members in zip(self.parts, self.units_by_split, strict=True):
            part = predictions.select_rows(rows)
            if metric.undefined_reason(part):
                continue
            value, gradient = metric.compute_unit_gradient(part, self.units[rows], self.count)
            if np.isnan(value):
                continue
            slopes += self._part_weight(rows) * gradient
            inside.append((value, rows, members))
        if not inside:
            return float("nan"), slopes
        weights = np.array([self._part_weight(rows) for _, rows, _ in inside])
        estimate = weighted_mean(np.array([value for value, _, _ in inside]), weights)
        for value, rows, members in inside:
            if self.weigh_rows:
                slopes += (value - estimate) * np.bincount(self.units[rows], minlength=self.count)
            else:
                slopes[members] += (value - estimate) / len(members)
        return estimate, slopes / weights.sum()

    def compute_value(self, name: str, probabilities: NDArray[Any]) -> float:
        """The metric alone; NaN where no part defines it."""
        metric, predictions = get_metric(name), LabelledProbabilities.from_arrays(self.labels, probabilities)
        values = np.array([metric.compute_value(predictions.select_rows(rows)) for rows in self.parts])
        known = ~np.isnan(values)
        weights = np.array([self._part_weight(rows) for rows in self.parts])
        return weighted_mean(values[known], weights[known]) if known.any() else float("nan")

    def _part_weight(self, rows: Ints) -> int:
        return len(rows) if self.weigh_rows else 1


class Bootstrap:
    """The resamples of a set of rows, for the probabilities of any candidate on those rows, in their order.

    labels: (N,) int64 · groups: (N,) the unit of each row (sample ids where a sample was predicted several times); None: each row
    is its own unit · splits, weigh_rows: as `UnitRows`; an estimand (results/stats/estimand.py) knows them

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
        weigh_rows: bool = False,
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> None:
        self.rows = UnitRows(labels, groups, splits, weigh_rows)
        self.draws = UnitResampler(self.rows.labels, self.rows.units, seed=seed, resamples=resamples)
        self._what = "samples" if groups is None else "units"

    def compute_replicates(self, name: str, probabilities: NDArray[Any]) -> BootstrapReplicates:
        """probabilities (N, C) → the metric in every resample."""
        metric = get_metric(name)
        first_order = self._uses_first_order(metric, np.shape(probabilities)[-1])
        kind = self._resampling_kind(metric, first_order)
        slopes = None
        if first_order or metric.interval != "bootstrap":
            estimate, slopes = self.rows.compute_influences(metric.name, probabilities)
        if first_order and slopes is not None:
            values = self._first_order_values(estimate, slopes, kind)
        else:
            estimate, values = self._exact_replicates(metric, probabilities, kind)
        method = f"{'first-order ' if first_order else ''}bootstrap of {self.draws.count} {self._what}"
        method += " within classes" if kind == "stratified" else ""
        redrawn = self.draws.redrawn if kind == "all-classes" else 0
        error, df = self._standard_error(metric, slopes, values)
        design = replace(self.rows.design, standard_error=error, df=df)
        return BootstrapReplicates(name, estimate, values, method, design, redrawn)

    def _standard_error(self, metric: MetricRecord, slopes: Floats | None, values: Floats) -> tuple[float, float]:
        """From the derivatives where they are known, else from the replicates; and its degrees of freedom."""
        count, defined = self.draws.count, values[~np.isnan(values)]
        one_label = self.rows.labels.ndim == 1  # else a unit is in the strata of several labels
        if slopes is not None and metric.interval == "delong" and self.rows.design.single_rows and one_label:
            return self.rows.standard_error_by_class(slopes)
        if slopes is not None:
            return self.rows.standard_error(slopes), count - 1
        known = len(defined) and count > 1
        return float(defined.std() * np.sqrt(count / (count - 1))) if known else float("nan"), count - 1

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

    def _first_order_values(self, estimate: float, slopes: Floats, kind: ResamplingKind) -> Floats:
        """estimate + Σ_u (drawn_u - 1) ∂metric/∂weight_u: the infinitesimal jackknife (Efron 1982, ch. 6), same draws."""
        if self.draws.count < MIN_UNITS or np.isnan(estimate):
            return np.full(self.draws.resamples, np.nan)
        return np.asarray(estimate + self.draws.weighted_sums(kind, slopes) - slopes.sum())


def weighted_mean(values: Floats, weights: NDArray[Any]) -> float:
    """Σ w v / Σ w of values (P,): exactly the value where all are equal, whatever the weights."""
    return float(values[0] + ((values - values[0]) * weights).sum() / weights.sum())


def encode_names(names: NDArray[Any], rows: int, what: str) -> Ints:
    """Names → 0..U-1 in the order of the sorted names. Raises DataError unless there is one per row."""
    if len(names) != rows:
        raise DataError(f"{what} has {len(names)} entries for {rows} labels: it needs one per row")
    return number_values(np.asarray(names))[1]


def group_rows_by_split(splits: Ints) -> list[Ints]:
    """The rows of each split, by one sort."""
    order = np.argsort(splits, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(splits[order])) + 1) if len(order) else []
