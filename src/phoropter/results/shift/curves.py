"""What a candidate loses on corrupted rows: a metric at each level with its interval, and its loss against the rows as they are.

Both come from the same resamples of the same independent units (intervals/bootstrap.py), so that the interval of a loss is that
of a paired difference: percentiles of the differences of the replicates, stretched by Student's t (interval_rules.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from phoropter.results.intervals.bootstrap import Bootstrap, BootstrapReplicates
from phoropter.results.intervals.interval_rules import MIN_UNITS, ConfidenceInterval, clip_difference, stretched_percentiles
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats


@dataclass(frozen=True)
class ShiftLoss:
    """A metric at one level. value: with its interval · loss, low, high: how much worse than on the rows as they are, above 0 is
    worse; bounds are NaN where there is no interval
    """

    value: ConfidenceInterval
    loss: float
    low: float
    high: float


def measure_losses(
    metric: str, bootstrap: Bootstrap, clean: Floats, shifted: Mapping[str, Floats]
) -> tuple[ConfidenceInterval, dict[str, ShiftLoss]]:
    """The metric of the rows as they are, and of each level. clean: (N, C) probabilities · shifted: key of a corruption → (N, C)

    Raises SpecError for an unknown metric.
    """
    sign = 1 if get_metric(metric).higher_is_better else -1
    before = bootstrap.compute_replicates(metric, clean)
    losses = {}
    for key, probabilities in shifted.items():
        after = bootstrap.compute_replicates(metric, probabilities)
        low, high = _bound_difference(before, after, sign)
        losses[key] = ShiftLoss(after.confidence_interval(), sign * (before.estimate - after.estimate), low, high)
    return before.confidence_interval(), losses


def _bound_difference(
    before: BootstrapReplicates, after: BootstrapReplicates, sign: int, level: float = 0.95
) -> tuple[float, float]:
    drawn = sign * before.paired_values(after)
    known = drawn[~np.isnan(drawn)]
    if before.n_units < MIN_UNITS or len(known) < len(drawn) / 2:
        return float("nan"), float("nan")
    bounds = stretched_percentiles(sign * (before.estimate - after.estimate), known, before.n_units, level)
    return clip_difference(*bounds, get_metric(before.metric).value_range)
