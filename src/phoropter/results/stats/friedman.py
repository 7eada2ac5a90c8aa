"""Many candidates over several independent blocks: Friedman's test and Nemenyi's critical difference.

After Demšar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets". A block is a data set or a subject. Folds of
one data set are not blocks: they share training rows, and N of them would make any difference significant.

    >>> scores = [[0.80, 0.82, 0.84], [0.79, 0.80, 0.83], [0.81, 0.80, 0.85], [0.78, 0.82, 0.81], [0.80, 0.83, 0.86]]
    >>> friedman_test(scores).mean_ranks
    (2.8, 2.0, 1.2)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.stats.ranks import average_ranks

QUADRATURE_NODES, WIDEST = 400, 12.0  # of the integral over normal values, from −12 to 12


@dataclass(frozen=True)
class FriedmanResult:
    """Ranks of k candidates over N blocks. Rank 1 is best; ties share the mean rank.

    chi2, p: Friedman's statistic, corrected for ties, with k-1 degrees of freedom; NaN below two candidates or blocks ·
    f, f_p: Iman & Davenport's less conservative F with (k-1), (k-1)(N-1) · critical_difference: Nemenyi's, of two mean ranks ·
    left_out: blocks where a candidate has no score
    """

    mean_ranks: tuple[float, ...]
    blocks: int
    chi2: float
    p: float
    f: float
    f_p: float
    critical_difference: float
    left_out: int = 0


def friedman_test(
    scores: Sequence[Sequence[float]] | Floats, *, higher_is_better: bool = True, alpha: float = 0.05, digits: int = 12
) -> FriedmanResult:
    """scores (N blocks, k candidates). Scores equal to `digits` decimals are ties. Raises DataError unless it is a table."""
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise DataError(f"friedman_test takes a table of blocks × candidates, not an array of shape {table.shape}")
    complete = np.round(table[~np.isnan(table).any(axis=1)], digits)
    left_out = len(table) - len(complete)
    blocks, candidates = complete.shape
    if blocks < 2 or candidates < 2:
        nan = float("nan")
        return FriedmanResult((nan,) * candidates, blocks, nan, nan, nan, nan, nan, left_out)
    ranks = average_ranks(-complete if higher_is_better else complete)
    tie_share = sum(_tie_sum(row) for row in ranks) / (blocks * (candidates**3 - candidates))
    means = ranks.mean(axis=0)
    return _compute_statistics(means, blocks, tie_share, alpha, left_out)


def nemenyi_critical_difference(candidates: int, blocks: int, alpha: float = 0.05) -> float:
    """Nemenyi: mean ranks further apart than this differ at `alpha`, all pairs together."""
    q = studentized_range_quantile(1 - alpha, candidates) / float(np.sqrt(2))
    return q * float(np.sqrt(candidates * (candidates + 1) / (6 * blocks)))


@lru_cache(maxsize=256)
def studentized_range_quantile(p: float, count: int) -> float:
    """Of the range of `count` normal values in units of their known standard deviation: its quantile, exact to 1e-8.

    P(range < q) = count ∫ φ(z) (Φ(z) − Φ(z − q))^(count − 1) dz, by Gauss and Legendre; scipy.stats has it too, but takes a third
    of a report's imports.
    """
    from scipy.special import ndtr

    nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE_NODES)
    z, dz = WIDEST * nodes, WIDEST * weights
    density = count * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * dz
    low, high = 0.0, 4 * WIDEST
    while (middle := (low + high) / 2) not in (low, high):
        found = float(density @ (ndtr(z) - ndtr(z - middle)) ** (count - 1))
        low, high = (low, middle) if found >= p else (middle, high)
    return high


def _compute_statistics(means: Floats, blocks: int, tie_share: float, alpha: float, left_out: int) -> FriedmanResult:
    from scipy.special import chdtrc, fdtrc

    k = len(means)
    raw = 12 * blocks / (k * (k + 1)) * float((means**2).sum() - k * (k + 1) ** 2 / 4)
    # every block all ties: nobody differs
    chi2 = max(raw, 0.0) / (1 - tie_share) if tie_share < 1 else 0.0
    room = blocks * (k - 1) - chi2
    # room is 0 when all blocks agree on the whole order
    f = (blocks - 1) * chi2 / room if room > 1e-9 else float("inf")
    f_p = float(fdtrc(k - 1, (k - 1) * (blocks - 1), f)) if np.isfinite(f) else 0.0
    critical = nemenyi_critical_difference(k, blocks, alpha)
    return FriedmanResult(tuple(float(m) for m in means), blocks, chi2, float(chdtrc(k - 1, chi2)), f, f_p, critical, left_out)


def _tie_sum(ranks: NDArray[np.float64]) -> float:
    sizes = np.unique(ranks, return_counts=True)[1]
    return float((sizes**3 - sizes).sum())
