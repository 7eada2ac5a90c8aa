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
from phoropter.results.draws import BLOCK_CELLS, Draws, Kind
from phoropter.results.metrics import Metric, metric
from phoropter.results.sums import Answers, Floats, Ints

RESAMPLES = 2000
LEAST_UNITS = 3  # of two units a resample has both or one of them twice: no interval comes of that
EXACT_UNITS = 2000  # above, first order: its error falls as 1/U, and exact resamples of 30,000 units cost seconds a candidate
EXACT_RANKS = 400_000  # rows × classes to be ranked, for the same reason


@dataclass(frozen=True)
class Interval:
    """An estimate between two bounds; NaN bounds, and `method` says why, where there is no interval.

    units: how many independent units were resampled · redrawn: resamples drawn again because a class was missing
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str
    units: int
    redrawn: int = 0


@dataclass(frozen=True, eq=False)
class Replicates:
    """A metric in B resamples (NaN where undefined), beside its estimate from all rows; `limits` are those of its values."""

    metric: str
    estimate: float
    values: Floats
    method: str
    units: int
    redrawn: int
    limits: tuple[float, float] = (-np.inf, np.inf)

    def interval(self, level: float = 0.95) -> Interval:
        """Percentiles of the replicates."""
        found = self.values[~np.isnan(self.values)]
        method, low, high = self.method, np.nan, np.nan
        if self.units < LEAST_UNITS:
            method = f"no interval: {self.units} independent units, at least {LEAST_UNITS} are needed"
        elif len(found) < len(self.values) / 2:
            method = "no interval: undefined in most resamples"
        else:
            low, high = np.clip(np.quantile(found, [(1 - level) / 2, (1 + level) / 2]), *self.limits)
        return Interval(self.estimate, float(low), float(high), level, method, self.units, self.redrawn)

    def minus(self, other: Replicates) -> Replicates:
        """The paired difference. Both must come from one Bootstrap; raises DataError when they visibly do not."""
        if (self.metric, self.units, len(self.values)) != (other.metric, other.units, len(other.values)):
            raise DataError(
                f"{self.metric} over {self.units} units and {other.metric} over {other.units} units are not from one bootstrap"
            )
        difference, estimate = self.values - other.values, self.estimate - other.estimate
        return Replicates(self.metric, estimate, difference, f"paired {self.method}", self.units, self.redrawn)


@dataclass(eq=False)
class Rows:
    """Labels (N,), the unit of each row (groups (N,) of names, or the row itself) and, where the metric is averaged over them,
    its split (splits (N,) of names). Raises DataError unless each has one entry a row."""

    labels: NDArray[Any]
    groups: NDArray[Any] | None = None
    splits: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        self.labels = np.asarray(self.labels)
        n = len(self.labels)
        self.units: Ints = np.arange(n) if self.groups is None else numbered(self.groups, n, "groups")
        self.count = int(self.units.max(initial=-1)) + 1
        split = np.zeros(n, dtype=np.int64) if self.splits is None else numbered(self.splits, n, "splits")
        self.parts = by_number(split)

    @cached_property
    def members(self) -> list[Ints]:
        """The units of each split, once each: the same for every candidate that is asked about."""
        return [np.unique(self.units[rows]) for rows in self.parts]

    def influences(self, name: str, probabilities: NDArray[Any]) -> tuple[float, Floats]:
        """The metric, and (U,) its derivatives by the weights of the units; (NaN, zeros) where no split defines it.

        The mean over splits moves with each split's metric and with the share of the split's units that were drawn, so that for
        leave-one-group-out it is exactly the mean over the groups drawn.
        """
        asked, answers = metric(name), Answers.checked(self.labels, probabilities)
        slopes = np.zeros(self.count)
        inside: list[tuple[float, Ints]] = []  # of each split where the metric is defined: its value, its units
        for rows, members in zip(self.parts, self.members, strict=True):
            part = Answers(answers.labels[rows], answers.probabilities[rows])
            if asked.missing(part) or np.isnan(value := asked.of_sums(sums := asked.rows(part))):
                continue
            slopes += sums.of_unit(asked.gradient(sums), self.units[rows], self.count)
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
        self.rows = Rows(labels, groups, splits)
        self.draws = Draws(self.rows.labels, self.rows.units, seed=seed, resamples=resamples)
        self._what = "samples" if groups is None else "units"

    def replicates(self, name: str, probabilities: NDArray[Any]) -> Replicates:
        """probabilities (N, C) → the metric in every resample."""
        asked = metric(name)
        first_order = self._first_order(asked, np.shape(probabilities)[-1])
        kind = self._kind(asked, first_order)
        estimate, values = (self._by_slope if first_order else self._exactly)(asked, probabilities, kind)
        method = f"{'first-order ' if first_order else ''}bootstrap of {self.draws.count} {self._what}"
        method += " within classes" if kind == "stratified" else ""
        redrawn = self.draws.redrawn if kind == "whole" else 0
        return Replicates(name, estimate, values, method, self.draws.count, redrawn, asked.limits)

    def _first_order(self, asked: Metric, classes: int) -> bool:
        ranked = len(self.rows.labels) * classes if "ranks" in asked.needs else 0
        return self.rows.splits is not None or self.draws.count > EXACT_UNITS or ranked > EXACT_RANKS

    def _kind(self, asked: Metric, first_order: bool) -> Kind:
        if "ranks" in asked.needs and self.draws.stratifiable:
            return "stratified"
        return "whole" if "every class" in asked.needs and not first_order else "plain"

    def _exactly(self, asked: Metric, probabilities: NDArray[Any], kind: Kind) -> tuple[float, Floats]:
        answers = Answers.checked(self.rows.labels, probabilities)
        values = np.full(self.draws.resamples, np.nan)
        if asked.missing(answers):
            return float("nan"), values
        sums = asked.rows(answers)
        estimate = asked.of_sums(sums)
        if self.draws.count >= LEAST_UNITS and not np.isnan(estimate):
            matrix = sums.by_unit(self.rows.units, self.draws.count)
            width = max(1, BLOCK_CELLS // max(sums.count, self.draws.count))
            values = np.concatenate([asked.value(np.asarray(matrix @ b), sums.layout) for b in self.draws.blocks(kind, width)])
        return estimate, values

    def _by_slope(self, asked: Metric, probabilities: NDArray[Any], kind: Kind) -> tuple[float, Floats]:
        """estimate + Σ_u (drawn_u - 1) ∂metric/∂weight_u: the infinitesimal jackknife (Efron 1982, ch. 6), same draws."""
        estimate, slopes = self.rows.influences(asked.name, probabilities)
        if self.draws.count < LEAST_UNITS or np.isnan(estimate):
            return estimate, np.full(self.draws.resamples, np.nan)
        return estimate, estimate + self.draws.weighed(kind, slopes) - slopes.sum()


def numbered(names: NDArray[Any], rows: int, what: str) -> Ints:
    """Names → 0..U-1 in the order of the sorted names. Raises DataError unless there is one a row."""
    if len(names) != rows:
        raise DataError(f"{what} has {len(names)} entries for {rows} labels: it needs one a row")
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)


def by_number(splits: Ints) -> list[Ints]:
    """The rows of each split, without a pass over all rows for every split."""
    order = np.argsort(splits, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(splits[order])) + 1) if len(order) else []
