"""Metrics of the user's own: `Metric("mine", compute=f)` is shown, compared and resampled like the built-in ones.

A function of complete arrays has no sums, so resamples call it again on the rows drawn, with the draws of all other metrics.
Where sums would give derivatives (means over splits, many rows), the function is called without one unit at a time instead: the
jackknife (Efron 1982, ch. 3). Both are bounded: above `MAX_EXACT_ROWS` rows nothing is resampled, and more than `MAX_DELETIONS`
units are deleted in random blocks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.core.extensions import Extension
from phoropter.core.seeds import named_generator
from phoropter.results.metrics import sufficient_sums
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities, Layout, MetricSums

MAX_EXACT_ROWS = 20_000  # rows up to which a function is called once a resample: 2,000 calls
MAX_DELETIONS = 1000  # calls for the influences of the units of one split
MEAN_TOLERANCE = 1e-6  # relative; how far the mean over rows may be from the value of all rows


@dataclass(frozen=True, eq=False)
class Metric(Extension):
    """A metric of your own.

    compute:           (labels (N,) int64, probabilities (N, C) float64) → a number; NaN where it is undefined
    greater_is_better: which way candidates are ordered
    range:             smallest and largest possible value; a value outside is refused, and intervals end there
    value_without_information: value of a predictor that ignores its input: a number, or a function of the labels (N,)
    mean_over_rows:    the value is the mean of the values of single rows (a loss, a hit rate), which makes resampling cheap
    title:             what tables call it (default: the name) · percent: shown as 0–100

    Raises ValueError for fields that do not fit.

    >>> import numpy as np
    >>> hits = Metric("hits", compute=lambda labels, p: float((p.argmax(axis=1) == labels).mean()), range=(0, 1), percent=True)
    >>> hits.to_record().compute_value(LabelledProbabilities(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]])))
    0.5
    """

    compute: Callable[[NDArray[np.int64], NDArray[np.float64]], float]
    greater_is_better: bool = True
    range: tuple[float, float] = (-np.inf, np.inf)
    value_without_information: float | Callable[[NDArray[np.int64]], float] | None = None
    mean_over_rows: bool = False
    title: str = ""
    percent: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.compute):
            raise ValueError(f"compute of the metric '{self.name}' is {self.compute!r}, expected a function")
        if len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise ValueError(f"range of the metric '{self.name}' is {self.range!r}, expected (smallest, largest)")

    def to_record(self) -> MetricRecord:
        """The record that tables, intervals and tests read."""
        calls = _MetricCalls(self)
        return MetricRecord(
            compute_sums=calls.mean_sums if self.mean_over_rows else _row_sums,
            value_from_sums=sufficient_sums.mean_from_sums if self.mean_over_rows else calls.value_from_rows,
            needs=frozenset({"probabilities"}),
            chance=self.value_without_information,
            direct_value=calls.value_of_rows,
            unit_influences=None if self.mean_over_rows else calls.unit_influences,
            max_exact_rows=None if self.mean_over_rows else MAX_EXACT_ROWS,
            mean_over_rows=self.mean_over_rows,
            **self._shown_fields(),
        )

    def describe(self) -> dict[str, Any]:
        """What study.json keeps of it, so that a report without its code can show the values that the runs recorded."""
        low, high = (None if np.isinf(bound) else float(bound) for bound in self.range)
        chance = self.value_without_information
        return {
            **self.identity(),
            "title": self.title or self.name,
            "greater_is_better": self.greater_is_better,
            "percent": self.percent,
            "range": [low, high],
            "value_without_information": None if callable(chance) else chance,
            "reference": self.reference,
            "source_digest": self.source_digest(),
        }

    def _shown_fields(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title or self.name,
            "higher_is_better": self.greater_is_better,
            "percent": self.percent,
            "lowest": float(self.range[0]),
            "highest": float(self.range[1]),
            "is_proper_name": not self.title,
        }


def make_stored_record(described: dict[str, Any], reason: str) -> MetricRecord:
    """A metric whose code is not at hand, from `Metric.describe`: it can be shown, not computed. reason: why."""
    low, high = described["range"]
    return MetricRecord(
        str(described["name"]),
        str(described["title"]),
        _row_sums,
        lambda sums, layout: np.full(sums.shape[1], np.nan),
        bool(described["greater_is_better"]),
        bool(described["percent"]),
        frozenset({"probabilities"}),
        lowest=-np.inf if low is None else float(low),
        highest=np.inf if high is None else float(high),
        chance=described["value_without_information"],
        is_proper_name=described["title"] == described["name"],
        unavailable=reason,
    )


@dataclass(frozen=True, eq=False)
class _MetricCalls:
    """Every way in which the function of a metric is called."""

    metric: Metric

    def value_of_rows(self, predictions: LabelledProbabilities) -> float:
        """The value of all rows. Raises DataError for anything but a number inside the range, and where the function fails."""
        name = self.metric.name
        try:
            value = self.metric.compute(predictions.labels, predictions.probabilities)
            number = float(value)
        except Exception as error:
            raise DataError(
                f"the metric '{name}' failed on {len(predictions.labels)} rows: {type(error).__name__}: {error}"
            ) from error
        low, high = self.metric.range
        if not np.isnan(number) and not low <= number <= high:
            raise DataError(f"the metric '{name}' is {number:g}, outside its range {low:g} to {high:g}: correct it, or its range")
        return number

    def value_from_rows(self, weights: Floats, layout: Layout) -> Floats:
        """(N, B) whole numbers of times that each row was drawn → (B,) values; NaN where the function fails on a resample."""
        (predictions,) = layout
        out = np.full(weights.shape[1], np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resample without a class is expected; the value of all rows warns as it likes
            for column in np.flatnonzero(weights.any(axis=0)):
                rows = np.repeat(np.arange(len(weights)), np.rint(weights[:, column]).astype(np.int64))
                out[column] = self._call_on_rows(predictions, rows)
        return out

    def mean_sums(self, predictions: LabelledProbabilities) -> MetricSums:
        """One call a row. Raises DataError where their mean is not the value of all rows."""
        rows = range(len(predictions.labels))
        values = np.array(
            [float(self.metric.compute(predictions.labels[i : i + 1], predictions.probabilities[i : i + 1])) for i in rows]
        )
        total = self.value_of_rows(predictions)
        if not np.isclose(values.mean(), total, rtol=MEAN_TOLERANCE, atol=MEAN_TOLERANCE):
            raise DataError(
                f"the metric '{self.metric.name}' is {total:g}, and the mean over its rows is {values.mean():g}: "
                "set mean_over_rows=False"
            )
        return sufficient_sums.sums_for_mean(values)

    def unit_influences(self, predictions: LabelledProbabilities, units: Ints, count: int) -> Floats:
        """(U,) jackknife derivatives by the weights of the units; NaN where the value without a unit is undefined.

        A mean over rows loses Σ(x - mean) / (N - n) without a unit of n rows, and its derivative is Σ(x - mean) / N: hence the
        factor. A block of k units shares its effect as effect / √k each, which keeps the variance that k independent units have.
        """
        members, position = np.unique(units, return_inverse=True)
        n_blocks = min(len(members), MAX_DELETIONS)
        block_of = np.arange(len(members)) % n_blocks
        if n_blocks < len(members):
            block_of = named_generator(0, "metric blocks").permutation(block_of)
        block_rows = np.argsort(block_of[position], kind="stable")
        sizes = np.bincount(block_of[position], minlength=n_blocks)
        total, n = self.value_of_rows(predictions), len(units)
        effects = np.zeros(n_blocks)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for block, (end, size) in enumerate(zip(np.cumsum(sizes), sizes, strict=True)):
                kept = np.delete(np.arange(n), block_rows[end - size : end])
                effects[block] = (total - self._call_on_rows(predictions, kept)) * len(kept) / n if len(kept) else np.nan
        slopes = np.zeros(count)
        shares = (effects / np.sqrt(np.bincount(block_of, minlength=n_blocks)))[block_of]
        slopes[members] = shares - shares.mean()  # weighting all units alike changes nothing
        return slopes

    def _call_on_rows(self, predictions: LabelledProbabilities, rows: Ints) -> float:
        try:
            return float(self.metric.compute(predictions.labels[rows], predictions.probabilities[rows]))
        except (ValueError, ZeroDivisionError, IndexError):  # undefined on these rows; on all rows it raises
            return float("nan")


def _row_sums(predictions: LabelledProbabilities) -> MetricSums:
    """The rows themselves as N sums: weighted, they say how often each row was drawn."""
    n = len(predictions.labels)
    return MetricSums(np.arange(n), np.arange(n), np.ones(n), n, (predictions,))
