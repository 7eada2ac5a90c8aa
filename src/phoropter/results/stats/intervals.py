"""Confidence intervals in one call: bootstrap, paired bootstrap, and Wilson's closed form for a proportion.

For many candidates over the same rows, make one `Bootstrap` (bootstrap.py) and use it for each: the draws are shared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.results.stats.bootstrap import RESAMPLES, Bootstrap, ConfidenceInterval


def bootstrap_interval(
    name: str,
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    groups: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> ConfidenceInterval:
    """Percentile bootstrap interval of a metric; labels (N,), probabilities (N, C), groups (N,) the independent unit of each row.

    Raises SpecError for an unknown metric and DataError for arrays that do not fit.
    """
    return (
        Bootstrap(labels, groups, seed=seed, resamples=resamples)
        .compute_replicates(name, probabilities)
        .percentile_interval(level)
    )


def paired_bootstrap_interval(
    name: str,
    labels: NDArray[Any],
    a: NDArray[Any],
    b: NDArray[Any],
    groups: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> ConfidenceInterval:
    """The interval of the difference a - b, both (N, C) probabilities of the same rows, over the same resamples."""
    draws = Bootstrap(labels, groups, seed=seed, resamples=resamples)
    return draws.compute_replicates(name, a).paired_difference(draws.compute_replicates(name, b)).percentile_interval(level)


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> ConfidenceInterval:
    """Wilson's interval (1927) of a proportion of independent trials."""
    from scipy.special import ndtri

    if not 0 <= successes <= trials:
        raise DataError(f"{successes} successes of {trials} trials: expected a number from 0 to the trials")
    if trials == 0:
        return ConfidenceInterval(float("nan"), float("nan"), float("nan"), level, "no interval: no trials", 0)
    z2 = float(ndtri((1 + level) / 2)) ** 2
    p = successes / trials
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = float(np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2)))) / (1 + z2 / trials)
    # at the ends the bound is 0 or 1 exactly; rounding would leave a crumb
    low, high = (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)
    return ConfidenceInterval(p, low, high, level, "Wilson", trials)
