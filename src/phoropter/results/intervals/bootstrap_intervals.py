"""The confidence interval of a metric in one call.

`bootstrap_interval` follows the rules of interval_rules.py, which say where the bootstrap is replaced by a closed form.
For many candidates over the same rows, make one `Bootstrap` (bootstrap.py) and use it for each: the draws are shared.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from phoropter.results.intervals.bootstrap import RESAMPLES, Bootstrap
from phoropter.results.intervals.interval_rules import ConfidenceInterval


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
