"""What twice as much data would bring, by a power law through a learning curve, with an interval.

Two things make a curve uncertain. Which units were tested: they are resampled, the same units at every size, so that what sizes
share cancels. And which rows were trained on: from the spread of the splits, less what the tested units explain of it, kept for
all sizes together and weighed as in the test of what training again would repeat (results/stats/pairs/two_components.py). Both go
into each replicate of the curve, and the law is fitted to every replicate.

benchmarks/learning_curves.py measures what the interval covers; docs/learning-curves.md shows it.

Letters: P sizes · B replicates · S splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator
from phoropter.results.data_size.power_law import MIN_SIZES, PowerLaw, fit_power_law
from phoropter.results.intervals.interval_rules import MIN_UNITS, clip_difference, stretched_percentiles
from phoropter.results.metrics.metric_record import MetricRecord

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SizeCurve:
    """A metric of one candidate against the size of the training part.

    sizes: (P,) rising · values: (P,) · replicates: (P, B) of a bootstrap with the same units at all sizes · n_units: of that
    split_values: (P, S) of each split, NaN where it has none · rounds: (S,) number of the round of each split
    test_to_train: rows tested / rows trained on in a split
    """

    metric: MetricRecord
    sizes: Floats
    values: Floats
    replicates: Floats
    n_units: int
    split_values: Floats
    rounds: NDArray[np.int64]
    test_to_train: float


@dataclass(frozen=True, eq=False)
class Bounded:
    """An estimate with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class DataGain:
    """gain: of the metric, in its better direction, from the complete training part to twice as much; None where it
    cannot be told, for the `reason` · seen: from the smallest size to the complete one, None of too few units · law: of errors
    """

    gain: Bounded | None
    seen: Bounded | None
    law: PowerLaw | None
    reason: str = ""


def to_errors(metric: MetricRecord, values: Floats) -> Floats:
    """What a power law falls in: the distance from the best value (1 of accuracy, 0 of a loss), infinite without one."""
    low, high = metric.value_range
    return high - values if metric.higher_is_better else values - low


def to_values(metric: MetricRecord, errors: Floats) -> Floats:
    """The values of a metric with these errors."""
    low, high = metric.value_range
    return high - errors if metric.higher_is_better else low + errors


def estimate_gain(curve: SizeCurve) -> DataGain:
    """What twice as much data would bring, with a 95 % interval over units and trainings."""
    sizes = len(np.unique(curve.sizes))
    errors, replicates = to_errors(curve.metric, curve.values), to_errors(curve.metric, curve.replicates).T  # (P,), (B, P)
    known = replicates[~np.isnan(replicates).any(axis=1)]
    if np.isinf(errors).any():
        return DataGain(None, None, None, f"{curve.metric.title} has no best value, from which an error would be counted")
    if np.isnan(errors).any():
        return DataGain(None, None, None, f"{curve.metric.title} is undefined at some size")
    if curve.n_units < MIN_UNITS or len(known) < len(replicates) / 2:
        return DataGain(None, None, None, "too few independent units were tested for an interval")
    known = known + _draw_training_noise(curve, errors, known)
    fallen = known[:, 0] - known[:, -1]
    seen = _bound(curve, float(errors[0] - errors[-1]), fallen)
    if sizes < MIN_SIZES:
        return DataGain(None, seen, None, f"a power law needs {MIN_SIZES} sizes, and there are {sizes}")
    law = fit_power_law(curve.sizes, errors)
    if not seen.low > 0:
        return DataGain(None, seen, law, "the curve does not improve by more than its uncertainty")
    last = float(curve.sizes[-1])
    gains = fit_power_law(curve.sizes, known).predict_gain(last)
    gain = _bound(curve, float(law.predict_gain(last)[0]), gains)
    return DataGain(Bounded(gain.value, max(0.0, gain.low), gain.high), seen, law)


def _bound(curve: SizeCurve, value: float, replicates: Floats) -> Bounded:
    """Of a difference between errors of the curve's metric."""
    bounds = stretched_percentiles(value, replicates, curve.n_units, 0.95)
    return Bounded(value, *clip_difference(*bounds, curve.metric.value_range))


def _draw_training_noise(curve: SizeCurve, errors: Floats, replicates: Floats) -> Floats:
    """(B, P) normal deviates of the mean over splits, with the covariance between sizes that training adds."""
    covariance = estimate_training_covariance(curve, np.cov(replicates.T))
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    normal = named_generator("learning curve", "training").standard_normal((len(replicates), len(errors)))
    return np.asarray(normal @ root.T)


def estimate_training_covariance(curve: SizeCurve, of_units: Floats) -> Floats:
    """(P, P) covariance between sizes that training adds to the mean over all splits; of_units: that of the tested units.

    Zero where single splits have no value, or where there is one split in each round and one round.
    """
    p, zero = len(curve.sizes), np.zeros((len(curve.sizes),) * 2)
    if np.isnan(curve.split_values).any():
        return zero
    names, counts = np.unique(curve.rounds, return_counts=True)
    folds = int(counts.max())
    within = [curve.split_values[:, curve.rounds == name] for name in names] if folds > 1 else [curve.split_values]
    freedom = sum(part.shape[1] - 1 for part in within)
    if freedom < 1:
        return zero
    spread = sum((_sum_of_products(part) for part in within), np.zeros((p, p))) / freedom
    added = spread - folds * of_units
    values, vectors = np.linalg.eigh((added + added.T) / 2)
    positive = (vectors * np.maximum(values, 0)) @ vectors.T
    return np.asarray(positive * (1 / curve.split_values.shape[1] + curve.test_to_train))


def _sum_of_products(values: Floats) -> Floats:
    centred = values - values.mean(axis=1, keepdims=True)
    return np.asarray(centred @ centred.T)


def describe_law(law: PowerLaw) -> str:
    """As text that can be typed: `0.051 + 1.19 n^-0.50`."""
    return f"{law.a[0]:.3f} + {law.scale[0]:.3g} n^\u2212{law.c[0]:.2f}"


def interpolate_law(law: PowerLaw, sizes: Sequence[float] | Floats) -> Floats:
    """(n,) errors of the first replicate's law at sizes, for a figure."""
    return np.array([float(law.predict_error(float(size))[0]) for size in sizes])
