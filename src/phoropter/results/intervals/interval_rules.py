"""The one place that decides how a confidence interval is computed, from the metric, the units and the rows.

    share of right answers, independent rows   Wilson (1927); Clopper and Pearson's exact bound where all or none are right
    ROC-AUC, independent rows                  DeLong (1988) on the logit scale, t by Welch; an exact bound at 1 and 0
    a metric with two finite bounds, G groups  standard error over groups, Student's t of G - 1 degrees of freedom, logit scale
    other metrics with two finite bounds       the same with the standard error of the bootstrap
    a metric from 0 to infinity                the same on the log scale
    any other metric, and differences          percentile bootstrap, stretched by t(G - 1) / z · √(G / (G - 1))
    fewer than three units                     no interval

A percentile bootstrap of few units is too narrow: the variance of its means is (G - 1) / G of the unbiased one, and it uses the
normal law where Student's belongs. Near the bounds of a metric the law is also skewed, which the logit and log scales allow for.
benchmarks/interval_coverage.py measures what each rule covers; docs/statistics.md shows it.

Left out: BCa and bootstrap-t. The first is no better for few units; the second is unbounded where a resample of few groups has no
spread, which happens in most studies of 3 to 8 groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.sufficient_sums import Floats

MIN_UNITS = 3  # of two units, a resample has both or one of them twice, which gives no interval
_NO_SPREAD = 1e-9  # standard errors below this are rounding, which derivatives by small steps leave


@dataclass(frozen=True)
class ConfidenceInterval:
    """An estimate with two bounds, which are NaN where there is no interval; `method` then gives the reason.

    n_units: independent units resampled · n_redrawn: resamples drawn again because a class was missing
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str
    n_units: int
    n_redrawn: int = 0


@dataclass(frozen=True)
class SampleDesign:
    """What is independent in the rows of an estimate.

    n_units:         independent units
    n_rows:          predictions, over all units and splits
    single_rows:     each unit has at most one prediction in each split: the rows themselves are independent
    n_rarest:        units that have rows of the class with the fewest units
    n_perfect:       independent units, or pairs of units, that were all ranked correctly where the AUC is 1
    standard_error:  of the estimate over the units; NaN where it is unknown
    df:              degrees of freedom of the standard error
    several_labels:  a row may have several labels, so that units cannot be drawn class by class, as DeLong's variance has it
    """

    n_units: int
    n_rows: int
    single_rows: bool
    n_rarest: int
    n_perfect: int
    standard_error: float = float("nan")
    df: float = float("inf")
    several_labels: bool = False


def choose_interval(
    metric: MetricRecord, estimate: float, values: Floats, design: SampleDesign, level: float = 0.95, n_redrawn: int = 0
) -> ConfidenceInterval:
    """The interval of a metric by the rule for its kind. values: (B,) bootstrap replicates, NaN where undefined."""
    low, high, method = np.nan, np.nan, ""
    defined = values[~np.isnan(values)]
    if design.n_units < MIN_UNITS:
        method = f"no interval: {design.n_units} independent units, at least {MIN_UNITS} are needed"
    elif np.isnan(estimate):
        method = f"no interval: {metric.title} is undefined"
    elif "ranks" in metric.needs and design.n_rarest < 2:
        method = "no interval: one class is in a single unit"
    elif metric.interval == "bootstrap" and len(defined) < len(values) / 2:
        method = "no interval: undefined in most resamples"
    elif metric.value_range == (0.0, np.inf) and estimate > 0:
        factor = float(np.exp(student_quantile(level, design.df) * design.standard_error / estimate))
        low, high = estimate / factor, estimate * factor
        method = f"{_students_t(design)} on the log scale, {_units(design)}"
    elif not np.isfinite(metric.value_range).all():
        low, high = stretched_percentiles(estimate, defined, design.n_units, level)
        low, high = np.clip([low, high], *metric.value_range)
        method = f"percentile bootstrap of {_units(design)}, stretched by Student's t"
    else:
        low, high, method = _bounded_interval(metric, estimate, design, level)
    return ConfidenceInterval(estimate, float(low), float(high), level, method, design.n_units, n_redrawn)


def _bounded_interval(metric: MetricRecord, estimate: float, design: SampleDesign, level: float) -> tuple[float, float, str]:
    """Of a metric with two finite bounds: on the scale from 0 to 1, and back."""
    floor, ceiling = metric.value_range
    share = (estimate - floor) / (ceiling - floor)
    error = design.standard_error / (ceiling - floor)
    n = _n_independent(metric, design)
    if share >= 1 - _NO_SPREAD or share <= _NO_SPREAD:
        bound = exact_bound(n, level)
        low, high = (bound, 1.0) if share > 0.5 else (0.0, 1 - bound)
        method = f"exact bound from {n} independent {'pairs' if 'ranks' in metric.needs else 'units'}"
        if metric.interval == "proportion":
            method = f"Clopper and Pearson's exact bound of {_units(design)}"
    elif metric.interval == "proportion" and design.single_rows:
        # a row that was predicted several times counts at least once; more where the repeats differ
        effective = max(design.n_units, share * (1 - share) / max(error, _NO_SPREAD) ** 2)
        low, high = wilson_bounds(share, effective, normal_quantile(level))
        method = f"Wilson's interval of {_units(design)}"
    else:
        if metric.interval == "proportion" and error < _NO_SPREAD:  # equal groups by chance: as if the rows were independent
            error = float(np.sqrt(share * (1 - share) / design.n_rows))
        delong = metric.interval == "delong" and design.single_rows and not design.several_labels
        low, high = logit_bounds(share, error, student_quantile(level, design.df))
        source = "DeLong's variance, Welch's degrees of freedom," if delong else _students_t(design)
        method = f"{source} on the logit scale, {_units(design)}"
    return floor + low * (ceiling - floor), floor + high * (ceiling - floor), method


def _n_independent(metric: MetricRecord, design: SampleDesign) -> int:
    """Units on which a perfect value rests: for a mean over classes, those of the rarest class."""
    if metric.interval == "proportion" or not metric.needs & {"every class", "ranks"}:
        return design.n_units
    return design.n_perfect if "ranks" in metric.needs else max(design.n_rarest, 1)


def _students_t(design: SampleDesign) -> str:
    return f"Student's t with {design.df:,.0f} degrees of freedom"


def _units(design: SampleDesign) -> str:
    return f"{design.n_units:,} {'independent rows' if design.single_rows else 'units'}"


def stretched_percentiles(estimate: float, values: Floats, n_units: int, level: float) -> tuple[float, float]:
    """Percentiles of the replicates, their distances from the estimate times t(G - 1) / z · √(G / (G - 1))."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    stretch = student_quantile(level, n_units - 1) / normal_quantile(level) * np.sqrt(n_units / (n_units - 1))
    return float(estimate + (low - estimate) * stretch), float(estimate + (high - estimate) * stretch)


def clip_difference(low: float, high: float, value_range: tuple[float, float]) -> tuple[float, float]:
    """Bounds of a difference without what no two values in this range can differ by.

    Student's t and stretched percentiles of few units know no bounds: of an AUC they may say that another is better by 1.3.
    What is cut off holds no true difference, so that the interval covers as often as before.
    """
    most = value_range[1] - value_range[0]
    return max(low, -most), min(high, most)


def exact_bound(n: int, level: float) -> float:
    """Lower bound of a mean of values in [0, 1] that was 1 in all n independent units: P(all 1) is at most mean^n."""
    return float(((1 - level) / 2) ** (1 / max(n, 1)))


def wilson_bounds(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval of a share of n trials; n need not be a whole number."""
    z2 = quantile**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = float(np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2)))) / (1 + z2 / n)
    # at the ends the bound is 0 or 1 exactly; rounding would leave a crumb
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def logit_bounds(share: float, error: float, quantile: float) -> tuple[float, float]:
    """share ± quantile · error on the logit scale, by the delta method."""
    from scipy.special import expit, logit

    half = quantile * error / (share * (1 - share))
    return float(expit(logit(share) - half)), float(expit(logit(share) + half))


def normal_quantile(level: float) -> float:
    """Two-sided: 1.96 for 0.95."""
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def student_quantile(level: float, df: float) -> float:
    """Two-sided: 4.30 for 0.95 and 2 degrees of freedom."""
    from scipy.special import stdtrit

    if np.isinf(df):
        return normal_quantile(level)
    return float(stdtrit(df, (1 + level) / 2))
