"""Tests that assume nothing but exchangeability: under no difference the two candidates' answers could have been swapped.

sign_flip       one difference per independent unit: the mean itself, all assignments of signs where they are few
swap_test       any metric on one test set: exchanges the two answer sheets unit by unit
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities, Layout
from phoropter.results.stats.bootstrap import encode_names, group_rows_by_split
from phoropter.results.stats.paired_tests import NAN, ROUNDING_TOLERANCE, PairedTest, cohens_d, drop_undefined
from phoropter.results.stats.resampling import BLOCK_CELLS

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
    p = _permutation_p_value(signs @ d / n, float(d.mean()), whole=2**n <= MAX_EXHAUSTIVE)
    return PairedTest(
        "sign-flip permutation",
        float(d.mean()),
        p,
        effect=cohens_d(d),
        effect_kind="mean / sd of the units' differences",
        n_units=n,
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
    """Permutation test of any metric: under no difference each unit's answers could as well have come from the other candidate.

    labels (N,) · a, b (N, C) probabilities of the same rows · groups (N,) the unit of each row (the row where None) · splits (N,)
    within which the metric is taken before it is averaged, as a Bootstrap takes it.
    """
    n = len(labels)
    units = np.arange(n) if groups is None else encode_names(groups, n, "groups")
    parts = np.zeros(n, dtype=np.int64) if splits is None else encode_names(splits, n, "splits")
    count, asked = int(units.max(initial=-1)) + 1, get_metric(name)
    sheets = LabelledProbabilities.from_arrays(labels, a), LabelledProbabilities.from_arrays(labels, b)
    made = [_SwapSums.from_answers(asked, sheets, rows, units, count) for rows in group_rows_by_split(parts)]
    piles = [p for p in made if p is not None]
    if not piles or count < 2:
        note = (
            f"{count} units in common: at least two are needed" if count < 2 else asked.undefined_reason(sheets[0]) or "undefined"
        )
        return PairedTest("unit-swap permutation", NAN, NAN, n_units=count, note=note)
    assignments = _draw_assignments(count, swaps, named_generator(seed, "swap"))
    own = np.ones((1, count), dtype=np.int8)
    difference = float(np.mean([p.compute_differences(own) for p in piles]))
    drawn = np.mean([p.compute_differences(assignments) for p in piles], axis=0)
    p = _permutation_p_value(drawn, difference, whole=2**count <= MAX_EXHAUSTIVE)
    return PairedTest("unit-swap permutation", difference, p, n_units=count)


@dataclass(frozen=True, eq=False)
class _SwapSums:
    """The answer sheets of both candidates as 2n rows; an assignment gives each candidate one of the two rows of a sample."""

    metric: MetricRecord
    first_sums: Any  # (M, U) sparse: what the first candidate's rows add
    second_sums: Any  # the same of the second's
    layout: Layout

    @classmethod
    def from_answers(
        cls, asked: MetricRecord, sheets: tuple[LabelledProbabilities, LabelledProbabilities], rows: Ints, units: Ints, count: int
    ) -> _SwapSums | None:
        """None where the metric is undefined. Metrics of order get each sheet's ranks: two scales must not mix."""
        from scipy.stats import rankdata

        labels = sheets[0].labels[rows]
        answers = [s.probabilities[rows] for s in sheets]
        if asked.undefined_reason(LabelledProbabilities(labels, answers[0])):
            return None
        if "ranks" in asked.needs:
            answers = [rankdata(values, axis=0) for values in answers]
        sums = asked.compute_sums(LabelledProbabilities(np.tile(labels, 2), np.concatenate(answers)))
        matrix = sums.unit_matrix(np.concatenate([units[rows], count + units[rows]]), 2 * count)
        return cls(asked, matrix[:, :count], matrix[:, count:], sums.layout)

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
    """(count, units) of 0 and 1: all 2^units of them where that is few."""
    if 2**units <= MAX_EXHAUSTIVE:
        return ((np.arange(2**units)[:, None] >> np.arange(units)) & 1).astype(np.int8)
    return draw.integers(0, 2, (count, units), dtype=np.int8)


def _permutation_p_value(drawn: Floats, observed: float, *, whole: bool) -> float:
    """Two-sided; random draws count the observed one among them (Phipson & Smyth 2010), so p is never 0."""
    extreme = int((np.abs(drawn) >= abs(observed) - ROUNDING_TOLERANCE).sum())
    return extreme / len(drawn) if whole else (extreme + 1) / (len(drawn) + 1)
