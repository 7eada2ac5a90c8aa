"""Confidence intervals in one call: of a metric, of a paired difference, and Wilson's closed form for a proportion.

`bootstrap_interval` follows the rules of interval_rules.py, which say where the bootstrap is replaced by a closed form.
For many candidates over the same rows, make one `Bootstrap` (bootstrap.py) and use it for each: the draws are shared.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.results.intervals.bootstrap import RESAMPLES, Bootstrap
from phoropter.results.intervals.interval_rules import ConfidenceInterval, normal_quantile, wilson_bounds


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
    """The interval of a metric; labels (N,), probabilities (N, C), groups (N,) the independent unit of each row.

    Raises SpecError for an unknown metric and DataError for arrays that do not fit.
    """
    return (
        Bootstrap(labels, groups, seed=seed, resamples=resamples)
        .compute_replicates(name, probabilities)
        .confidence_interval(level)
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
    return draws.compute_replicates(name, a).paired_difference(draws.compute_replicates(name, b), level)


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> ConfidenceInterval:
    """Wilson's interval (1927) of a proportion of independent trials."""
    if not 0 <= successes <= trials:
        raise DataError(f"{successes} successes of {trials} trials: expected a number from 0 to the trials")
    if trials == 0:
        return ConfidenceInterval(float("nan"), float("nan"), float("nan"), level, "no interval: no trials", 0)
    share = successes / trials
    low, high = wilson_bounds(share, trials, normal_quantile(level))
    return ConfidenceInterval(share, low, high, level, "Wilson", trials)
