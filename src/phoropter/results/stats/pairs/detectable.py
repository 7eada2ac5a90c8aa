"""The true difference that a test finds 8 times in 10, from the very test that was used and after its correction.

tests by Student's t or the normal law   critical value and standard error of this test
Wilcoxon, swaps of few units             drawn differences of normal units, given to the test itself
McNemar                                  binomial counts of the rows that only one of the two gets right
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from phoropter.core.seeds import named_generator
from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.stats.paired_tests import NAN, PairedTest, minimum_detectable_effect
from phoropter.results.stats.ranks import average_ranks

POWER = 0.8
DRAWS = 2000  # studies drawn for each size of effect: the power is known to about one point
FEW_UNITS = 25  # above, Student's t serves for a test of ranks or swaps
MANY_DISCORDANT = 200  # above, the normal law serves for McNemar's counts
STEPS = 20


def detectable_difference(test: PairedTest, alpha: float, power: float = POWER) -> float:
    """In the unit of the metric. alpha: two-sided level of one pair, after the correction. NaN without a standard error."""
    if not test.se > 0:
        return NAN
    if test.test == "Wilcoxon signed-rank" and test.n_units <= FEW_UNITS:
        return test.se * float(np.sqrt(test.n_units)) * _wilcoxon_effect(test.n_units, alpha, power)
    if test.test.startswith("McNemar") and 0 < test.n_counted <= MANY_DISCORDANT:
        return _mcnemar_difference(test.n_counted, test.n_units, alpha, power)
    if test.test == "two-component t":
        from scipy.special import ndtri, stdtrit

        # the difference varies by its standard error around the truth; what it must exceed has Student's quantile
        return test.se * float(stdtrit(test.df, 1 - alpha / 2) + ndtri(power))
    return minimum_detectable_effect(test.se, test.df, power=power, alpha=alpha)


@lru_cache(maxsize=256)
def _wilcoxon_effect(units: int, alpha: float, power: float) -> float:
    """Mean / sd of normal differences of `units` units at which the exact signed-rank test has this power; NaN if at none."""
    drawn = named_generator(0, "power of signed ranks", units).normal(size=(DRAWS, units))
    critical = _signed_rank_critical(units, alpha)
    if critical < 0:
        return NAN

    def power_at(effect: float) -> float:
        moved = drawn + effect
        ranks = average_ranks(np.abs(moved), axis=1)
        smaller = np.minimum((ranks * (moved > 0)).sum(axis=1), (ranks * (moved < 0)).sum(axis=1))
        return float((smaller <= critical).mean())

    return _solve_power(power_at, 8.0, power)


@lru_cache(maxsize=256)
def _signed_rank_critical(units: int, alpha: float) -> int:
    """The largest smaller rank sum with an exact two-sided p of at most `alpha`; -1 where there is none."""
    counts = np.ones(1)
    for rank in range(1, units + 1):  # ways to reach each sum of ranks 1..units
        wider = np.zeros(len(counts) + rank)
        wider[: len(counts)] += counts
        wider[rank:] += counts
        counts = wider
    p: Floats = 2 * np.cumsum(counts) / 2.0**units
    return int((p <= alpha).sum()) - 1


@lru_cache(maxsize=4096)
def _mcnemar_difference(discordant: int, rows: int, alpha: float, power: float) -> float:
    """With the share of rows that only one gets right as it was seen; NaN where even all of them on one side is not enough."""
    from scipy.stats import binom

    counts = np.arange(rows + 1)
    weights = binom.pmf(counts, rows, discordant / rows)
    counts = counts[weights > 1e-9]
    weights = weights[weights > 1e-9]
    critical = binom.ppf(alpha / 2, counts, 0.5)
    critical = np.where(2 * binom.cdf(critical, counts, 0.5) <= alpha, critical, critical - 1)

    def power_at(lean: float) -> float:
        """lean: difference / share of discordant rows."""
        side = (1 + lean) / 2
        found = binom.cdf(critical, counts, 1 - side) + binom.cdf(critical, counts, side)
        return float((weights * np.where(critical >= 0, found, 0.0)).sum())

    return _solve_power(power_at, 1.0, power) * discordant / rows


def _solve_power(power_at: Callable[[float], float], most: float, power: float) -> float:
    """The smallest effect in (0, most] with this power, by bisection; NaN where `most` has less."""
    if power_at(most) < power:
        return NAN
    low, high = 0.0, most
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if power_at(middle) >= power else (middle, high)
    return high
