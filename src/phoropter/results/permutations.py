"""Tests that assume nothing but exchangeability: under no difference the two candidates' answers could have been swapped.

sign_flip       one difference per independent unit: the mean itself, all assignments of signs where they are few
swap_test       any metric on one test set: exchanges the two answer sheets unit by unit
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import generator
from phoropter.results.bootstrap import by_number, numbered
from phoropter.results.comparisons import DUST, NAN, PairedTest, clean, effect_size
from phoropter.results.draws import BLOCK_CELLS
from phoropter.results.metrics import Metric, metric
from phoropter.results.sums import Answers, Floats, Ints, Layout

FLIPS = 10_000
SWAPS = 2000
ALL_FLIPS = 2**14  # up to 14 units every assignment is tried


def sign_flip(differences: Floats | list[float], *, seed: int = 0, flips: int = FLIPS) -> PairedTest:
    """Permutation test of a mean difference over independent units; all 2^U signs for few units, else `flips` random ones."""
    d = clean(differences)
    n = len(d)
    if n < 2:
        return PairedTest("sign-flip permutation", NAN, NAN, units=n, note=f"{n} units in common: at least two are needed")
    signs = _assignments(n, flips, generator(seed, "sign flip")) * 2.0 - 1
    p = _share_as_extreme(signs @ d / n, float(d.mean()), whole=2**n <= ALL_FLIPS)
    return PairedTest(
        "sign-flip permutation",
        float(d.mean()),
        p,
        effect=effect_size(d),
        effect_kind="mean / sd of the units' differences",
        units=n,
    )


def swap_test(
    name: str,
    labels: NDArray[Any],
    a: NDArray[Any],
    b: NDArray[Any],
    groups: NDArray[Any] | None = None,
    splits: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    swaps: int = SWAPS,
) -> PairedTest:
    """Permutation test of any metric: under no difference each unit's answers could as well have come from the other candidate.

    labels (N,) · a, b (N, C) probabilities of the same rows · groups (N,) the unit of each row (the row where None) · splits (N,)
    within which the metric is taken before it is averaged, as a Bootstrap takes it.
    """
    n = len(labels)
    units = np.arange(n) if groups is None else numbered(groups, n, "groups")
    parts = np.zeros(n, dtype=np.int64) if splits is None else numbered(splits, n, "splits")
    count, asked = int(units.max(initial=-1)) + 1, metric(name)
    sheets = Answers.checked(labels, a), Answers.checked(labels, b)
    made = [_Pile.of(asked, sheets, rows, units, count) for rows in by_number(parts)]
    piles = [p for p in made if p is not None]
    if not piles or count < 2:
        note = f"{count} units in common: at least two are needed" if count < 2 else asked.missing(sheets[0]) or "undefined"
        return PairedTest("unit-swap permutation", NAN, NAN, units=count, note=note)
    assignments = _assignments(count, swaps, generator(seed, "swap"))
    own = np.ones((1, count), dtype=np.int8)
    difference = float(np.mean([p.differences(own) for p in piles]))
    drawn = np.mean([p.differences(assignments) for p in piles], axis=0)
    p = _share_as_extreme(drawn, difference, whole=2**count <= ALL_FLIPS)
    return PairedTest("unit-swap permutation", difference, p, units=count)


@dataclass(frozen=True, eq=False)
class _Pile:
    """The answer sheets of both candidates as 2n rows; an assignment gives each candidate one of the two rows of a sample."""

    asked: Metric
    kept: Any  # (M, U) sparse: what the first candidate's rows add
    swapped: Any  # the same of the second's
    layout: Layout

    @classmethod
    def of(cls, asked: Metric, sheets: tuple[Answers, Answers], rows: Ints, units: Ints, count: int) -> _Pile | None:
        """None where the metric is undefined. Metrics of order get each sheet's ranks: two scales must not mix."""
        from scipy.stats import rankdata

        labels = sheets[0].labels[rows]
        answers = [s.probabilities[rows] for s in sheets]
        if asked.missing(Answers(labels, answers[0])):
            return None
        if "ranks" in asked.needs:
            answers = [rankdata(values, axis=0) for values in answers]
        sums = asked.rows(Answers(np.tile(labels, 2), np.concatenate(answers)))
        matrix = sums.by_unit(np.concatenate([units[rows], count + units[rows]]), 2 * count)
        return cls(asked, matrix[:, :count], matrix[:, count:], sums.layout)

    def differences(self, own: NDArray[np.int8]) -> Floats:
        """(b, U), 1 keeps and 0 swaps → (b,)."""
        width = max(1, BLOCK_CELLS // max(self.kept.shape))
        return np.concatenate([self._block(own[i : i + width].T.astype(np.float64)) for i in range(0, len(own), width)])

    def _block(self, own: Floats) -> Floats:
        other = 1 - own
        first = self.asked.value(np.asarray(self.kept @ own + self.swapped @ other), self.layout)
        return first - self.asked.value(np.asarray(self.kept @ other + self.swapped @ own), self.layout)


def _assignments(units: int, count: int, draw: np.random.Generator) -> NDArray[np.int8]:
    """(count, units) of 0 and 1: all 2^units of them where that is few."""
    if 2**units <= ALL_FLIPS:
        return ((np.arange(2**units)[:, None] >> np.arange(units)) & 1).astype(np.int8)
    return draw.integers(0, 2, (count, units), dtype=np.int8)


def _share_as_extreme(drawn: Floats, observed: float, *, whole: bool) -> float:
    """Two-sided; random draws count the observed one among them (Phipson & Smyth 2010), so p is never 0."""
    extreme = int((np.abs(drawn) >= abs(observed) - DUST).sum())
    return extreme / len(drawn) if whole else (extreme + 1) / (len(drawn) + 1)
