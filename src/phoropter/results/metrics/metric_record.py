"""One metric as the rest of phoropter uses it: a function of sums over rows, and what tables and sentences need to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from phoropter.results.metrics import sufficient_sums
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities, Layout, MetricSums, SumsFunction

MetricNeed = Literal["probabilities", "every class", "ranks"]
LabelKind = Literal["one", "several", "both"]
IntervalKind = Literal["proportion", "delong", "bootstrap"]
MIN_RAREST = 10  # rows of the rarest class: the mean over such parts is off by half a point (benchmarks/estimand_bias.py)


@dataclass(frozen=True, eq=False)
class MetricRecord:
    """One number about predictions.

    percent:           shown as 0–100
    needs:             `probabilities`, not the most likely class alone; `every class` among the labels of a resample; `ranks`:
                       every class must be among the labels for it to exist at all, and classes are resampled separately
    compute_sums:      what each row adds to which sums · value_from_sums: the metric as a function of the sums
    analytic_gradient: its derivatives by the sums, where numeric ones would be slow
    lowest:            smallest possible value · highest: largest; None: 1 where higher is better, else infinity
    chance:            value of a predictor without information: a number where it is the same for all labels, else a
                       function of the labels (N,); None where neither is known
    is_proper_name:    the title keeps its capital inside a sentence (`Brier score`)
    direct_value:      the metric of all rows in one call, where that is faster than by sums
    unit_influences:   (predictions, (N,) units, U) → (U,) derivatives by the weights of the units, where sums have none
    max_exact_rows:    above, resamples and permutations are replaced by their first-order approximations
    interval:          how its interval is computed (results/intervals/interval_rules.py): `proportion` for a share of right
                       answers, `delong` for the area under the ROC curve, `bootstrap` for all others
    mean_over_rows:    the value is the mean of the values of single rows
    min_rarest:        rows of the rarest class that a test part must have for the mean over parts to be about unbiased
    label_kind:        whether it is of rows with `one` class each, with `several` labels, or of both
    unavailable:       why it cannot be computed here, only read from run records; empty where it can
    """

    name: str
    title: str
    compute_sums: Callable[[LabelledProbabilities], MetricSums]
    value_from_sums: SumsFunction
    higher_is_better: bool = True
    percent: bool = False
    needs: frozenset[MetricNeed] = frozenset()
    analytic_gradient: Callable[[Floats, Layout], Floats] | None = None
    lowest: float = 0.0
    highest: float | None = None
    chance: float | Callable[[Ints], float] | None = None
    is_proper_name: bool = False
    direct_value: Callable[[LabelledProbabilities], float] | None = None
    unit_influences: Callable[[LabelledProbabilities, Ints, int], Floats] | None = None
    max_exact_rows: int | None = None
    interval: IntervalKind = "bootstrap"
    mean_over_rows: bool = False
    min_rarest: int = MIN_RAREST
    label_kind: LabelKind = "one"
    unavailable: str = ""

    def suits_rows(self, multi_label: bool) -> bool:
        """Whether it is of rows that may have several labels; else, of rows with one class each."""
        return self.label_kind in ("both", "several" if multi_label else "one")

    def compute_value(self, predictions: LabelledProbabilities) -> float:
        """The value, NaN where it is undefined."""
        if self.undefined_reason(predictions):
            return float("nan")
        return self.direct_value(predictions) if self.direct_value else self.compute_from_sums(self.compute_sums(predictions))

    def compute_from_sums(self, added: MetricSums) -> float:
        """The value of all rows."""
        return float(self.value_from_sums(added.total_column(), added.layout)[0])

    def compute_gradient(self, added: MetricSums) -> Floats:
        """(M,) derivatives by the sums."""
        if self.analytic_gradient:
            return self.analytic_gradient(added.total_column(), added.layout)
        return sufficient_sums.numeric_gradient(self.value_from_sums, added.total_column(), added.layout)

    def compute_unit_gradient(self, predictions: LabelledProbabilities, units: Ints, count: int) -> tuple[float, Floats]:
        """(value, (U,) derivatives by the weights of the units). units: (N,) the unit of each row, 0..U-1."""
        if self.unit_influences:
            return self.compute_value(predictions), self.unit_influences(predictions, units, count)
        sums = self.compute_sums(predictions)
        return self.compute_from_sums(sums), sums.unit_gradient(self.compute_gradient(sums), units, count)

    @property
    def value_range(self) -> tuple[float, float]:
        """Bounds of the value."""
        return self.lowest, (1.0 if self.higher_is_better else float("inf")) if self.highest is None else self.highest

    def chance_value(self, labels: Ints) -> float | None:
        """The value of a predictor without information on these labels (N,); None where it is not known."""
        return float(self.chance(labels)) if callable(self.chance) else self.chance

    def undefined_reason(self, predictions: LabelledProbabilities) -> str:
        """Why the metric has no value for these labels, or an empty string."""
        if self.unavailable:
            return self.unavailable
        if not len(predictions.labels):
            return "there are no predictions"
        if not self.suits_rows(predictions.is_multi_label):
            return f"{self.title} is a metric of rows with {'one class each' if self.label_kind == 'one' else 'several labels'}"
        if "ranks" in self.needs and (predictions.answer_counts == 0).any():
            absent = int(np.flatnonzero(predictions.answer_counts == 0)[0])
            if predictions.is_multi_label:
                label, answer = absent % predictions.n_classes, "with" if absent < predictions.n_classes else "without"
                return f"{self.title} needs rows with and without every label; there are none {answer} label {label}"
            return f"{self.title} needs every class among the labels; class {absent} is not among them"
        if self.compute_sums is sufficient_sums.top_k_sums and predictions.n_classes <= sufficient_sums.TOP_K:
            return f"with {predictions.n_classes} classes every answer is among the first {sufficient_sums.TOP_K}"
        return ""
