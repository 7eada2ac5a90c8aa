"""Permutation tests: if two candidates do not differ, their predictions can be exchanged.

sign_flip_test  a mean of one difference per independent unit; all assignments of signs where they are few
unit_swap_test  any metric on one test set; exchanges the predictions of the two candidates unit by unit
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator
from phoropter.results.intervals.bootstrap import encode_names, group_rows_by_split
from phoropter.results.intervals.resampling import BLOCK_CELLS
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities, Layout
from phoropter.results.stats.paired_tests import NAN, ROUNDING_TOLERANCE, PairedTest, cohens_d, drop_undefined
from phoropter.results.stats.ranks import average_ranks

DEFAULT_FLIPS = 10_000
DEFAULT_SWAPS = 2000
MAX_EXHAUSTIVE = 2**14  # up to 14 units every assignment is tried


def sign_flip_test(differences: Floats | list[float], *, seed: int = 0, flips: int = DEFAULT_FLIPS) -> PairedTest:
    """Permutation test of a mean difference over independent units; all 2^U signs for few units, else `flips` random ones."""
    d = drop_undefined(differences)
    n = len(d)
    if n < 2:
        return PairedTest("sign-flip permutation", NAN, NAN, n_units=n, note=f"{n} units in common: at least two are needed")
    signs = _draw_assignments(n, flips, named_generator(seed, "sign flip")) * 2.0 - 1
    p = _permutation_p_value(signs @ d / n, float(d.mean()), exhaustive=2**n <= MAX_EXHAUSTIVE)
    return PairedTest(
        "sign-flip permutation",
        float(d.mean()),
        p,
        effect=cohens_d(d),
        effect_kind="mean / sd of the units' differences",
        n_units=n,
        least_p=_least_p_value(n, flips),
        n_counted=n,
    )


def unit_swap_test(
    name: str,
    labels: NDArray[Any],
    a: NDArray[Any],
    b: NDArray[Any],
    groups: NDArray[Any] | None = None,
    splits: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    swaps: int = DEFAULT_SWAPS,
) -> PairedTest:
    """Permutation test of any metric: if the candidates do not differ, the predictions of any unit could be swapped.

    labels (N,) · a, b (N, C) probabilities of the same rows · groups (N,) the unit of each row (the row where None) · splits (N,)
    within which the metric is taken before it is averaged, as in a Bootstrap.
    """
    n = len(labels)
    units = np.arange(n) if groups is None else encode_names(groups, n, "groups")
    parts = np.zeros(n, dtype=np.int64) if splits is None else encode_names(splits, n, "splits")
    count, metric = int(units.max(initial=-1)) + 1, get_metric(name)
    pair = LabelledProbabilities.from_arrays(labels, a), LabelledProbabilities.from_arrays(labels, b)
    made = [_SwapSums.from_predictions(metric, pair, rows, units, count) for rows in group_rows_by_split(parts)]
    parts_sums = [p for p in made if p is not None]
    if not parts_sums or count < 2:
        note = (
            f"{count} units in common: at least two are needed" if count < 2 else metric.undefined_reason(pair[0]) or "undefined"
        )
        return PairedTest("unit-swap permutation", NAN, NAN, n_units=count, note=note)
    assignments = _draw_assignments(count, swaps, named_generator(seed, "swap"))
    own = np.ones((1, count), dtype=np.int8)
    difference = float(np.mean([p.compute_differences(own) for p in parts_sums]))
    drawn = np.mean([p.compute_differences(assignments) for p in parts_sums], axis=0)
    p = _permutation_p_value(drawn, difference, exhaustive=2**count <= MAX_EXHAUSTIVE)
    return PairedTest(
        "unit-swap permutation", difference, p, n_units=count, least_p=_least_p_value(count, swaps), n_counted=count
    )


@dataclass(frozen=True, eq=False)
class _SwapSums:
    """The predictions of both candidates as 2n rows; an assignment gives each candidate one of the two rows of a sample."""

    metric: MetricRecord
    first_sums: Any  # (M, U) sparse: what the first candidate's rows add
    second_sums: Any  # the same of the second's
    layout: Layout

    @classmethod
    def from_predictions(
        cls,
        metric: MetricRecord,
        pair: tuple[LabelledProbabilities, LabelledProbabilities],
        rows: Ints,
        units: Ints,
        count: int,
    ) -> _SwapSums | None:
        """None where the metric is undefined. Rank-based metrics get the ranks within each candidate: two scales must not mix."""
        labels = pair[0].labels[rows]
        predictions = [s.probabilities[rows] for s in pair]
        if metric.undefined_reason(LabelledProbabilities(labels, predictions[0])):
            return None
        if "ranks" in metric.needs:
            predictions = [average_ranks(values, axis=0) for values in predictions]
        sums = metric.compute_sums(LabelledProbabilities(np.concatenate([labels, labels]), np.concatenate(predictions)))
        matrix = sums.unit_matrix(np.concatenate([units[rows], count + units[rows]]), 2 * count)
        return cls(metric, matrix[:, :count], matrix[:, count:], sums.layout)

    def compute_differences(self, own: NDArray[np.int8]) -> Floats:
        """(b, U), 1 keeps and 0 swaps → (b,)."""
        width = max(1, BLOCK_CELLS // max(self.first_sums.shape))
        return np.concatenate(
            [self._block_differences(own[i : i + width].T.astype(np.float64)) for i in range(0, len(own), width)]
        )

    def _block_differences(self, own: Floats) -> Floats:
        other = 1 - own
        first = self.metric.value_from_sums(np.asarray(self.first_sums @ own + self.second_sums @ other), self.layout)
        return first - self.metric.value_from_sums(np.asarray(self.first_sums @ other + self.second_sums @ own), self.layout)


def _draw_assignments(units: int, count: int, draw: np.random.Generator) -> NDArray[np.int8]:
    """(count, units) of 0 and 1; all 2^units assignments where these are few."""
    if 2**units <= MAX_EXHAUSTIVE:
        return ((np.arange(2**units)[:, None] >> np.arange(units)) & 1).astype(np.int8)
    return draw.integers(0, 2, (count, units), dtype=np.int8)


def _least_p_value(units: int, draws: int) -> float:
    """Of the most extreme outcome: it and its mirror image among all assignments, or the outcome alone among the draws."""
    return 2.0 / 2**units if 2**units <= MAX_EXHAUSTIVE else 1 / (draws + 1)


def _permutation_p_value(drawn: Floats, observed: float, *, exhaustive: bool) -> float:
    """Two-sided; random draws include the observed one (Phipson & Smyth 2010), so p is never 0."""
    extreme = int((np.abs(drawn) >= abs(observed) - ROUNDING_TOLERANCE).sum())
    return extreme / len(drawn) if exhaustive else (extreme + 1) / (len(drawn) + 1)
