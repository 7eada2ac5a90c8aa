"""How a metric varies between sites, and what to expect at a new one: a random-effects mean on the logit scale.

    y_s = logit of the metric at site s, with the variance v_s that its interval says      y_s ~ N(μ, τ² + v_s)

τ² by Paule & Mandel 1982; the interval of μ by Hartung & Knapp 2001, with Student's t of k - 1 degrees of freedom. The prediction
interval of a new site allows for not knowing τ² (after Nagashima, Noma & Furukawa 2019): draws of it from its confidence
distribution (Viechtbauer 2007: the weighted squares at the true τ² are χ² of k - 1), for each a draw of μ and of the new site.
The usual one, with a single τ² and Student's t of k - 2, held 87 of 100 new sites. Sites without an interval of their own,
or at a bound of the metric, are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from phoropter.core.seeds import named_generator
from phoropter.results.clinical.alarm_statistics import LEVEL, Estimate
from phoropter.results.intervals.interval_rules import ConfidenceInterval, normal_quantile, student_quantile
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.sufficient_sums import Floats

MIN_SITES = 3
DRAWS = 10_000  # of a new site
_MAX_VARIANCE = 1e4  # of the logit, between sites


@dataclass(frozen=True)
class SiteSpread:
    """Of k sites.

    mean: over sites, with its interval · new_site: the same value with the prediction interval of a new site
    deviation: τ, on the logit scale · n_sites: that were counted · n_left_out: that were not
    """

    mean: Estimate
    new_site: Estimate
    deviation: float
    n_sites: int
    n_left_out: int


def estimate_site_spread(metric: MetricRecord, intervals: Mapping[str, ConfidenceInterval]) -> SiteSpread | None:
    """Of a metric with two finite bounds; None for others, and for fewer than three sites that can be counted."""
    low, high = metric.value_range
    if not np.isfinite([low, high]).all():
        return None
    scaled = np.array([[i.estimate, i.low, i.high] for i in intervals.values()]).reshape(-1, 3)
    scaled = (scaled - low) / (high - low)
    usable = np.isfinite(scaled).all(axis=1) & (scaled > 0).all(axis=1) & (scaled < 1).all(axis=1)
    if usable.sum() < MIN_SITES:
        return None
    logits = np.log(scaled[usable] / (1 - scaled[usable]))
    effects, variances = logits[:, 0], np.square((logits[:, 2] - logits[:, 1]) / (2 * normal_quantile(LEVEL)))
    between, k = paule_mandel_variance(effects, variances), len(effects)
    means, errors = _weighted_means(effects, variances, np.array([between]))
    half = student_quantile(LEVEL, k - 1) * float(errors[0])
    bounds = np.quantile(_draw_new_sites(effects, variances), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()

    def back(*values: float) -> Estimate:
        return Estimate(*(float(low + (high - low) / (1 + np.exp(-value))) for value in values))

    mean = float(means[0])
    return SiteSpread(back(mean, mean - half, mean + half), back(mean, *bounds), float(np.sqrt(between)), k, len(scaled) - k)


def _weighted_means(effects: Floats, variances: Floats, between: Floats) -> tuple[Floats, Floats]:
    """(T,) means and Hartung and Knapp's standard errors at (T,) values of τ²."""
    weights = 1 / (variances + between[:, None])
    total = weights.sum(axis=1)
    means = (weights * effects).sum(axis=1) / total
    squares = (weights * np.square(effects - means[:, None])).sum(axis=1)
    return means, np.sqrt(squares / ((len(effects) - 1) * total))


def _draw_new_sites(effects: Floats, variances: Floats) -> Floats:
    """(DRAWS,) logits of new sites."""
    draw, k = named_generator(0, "new site"), len(effects)
    grid = np.concatenate([[0.0], np.geomspace(1e-5, _MAX_VARIANCE, 500)])
    means, _ = _weighted_means(effects, variances, grid)
    weights = 1 / (variances + grid[:, None])
    squares = (weights * np.square(effects - means[:, None])).sum(axis=1)  # falls with τ²
    between = np.interp(-draw.chisquare(k - 1, DRAWS), -squares, grid)  # 0 where even at 0 they are fewer
    of_mean, of_error = _weighted_means(effects, variances, between)
    return np.asarray(of_mean + of_error * draw.standard_t(k - 1, DRAWS) + np.sqrt(between) * draw.normal(size=DRAWS))


def paule_mandel_variance(effects: Floats, variances: Floats) -> float:
    """τ² at which the weighted squares around the weighted mean are as many as degrees of freedom; 0 where they are fewer."""
    from scipy.optimize import brentq

    def excess(between: float) -> float:
        weights = 1 / (variances + between)
        mean = (weights * effects).sum() / weights.sum()
        return float((weights * np.square(effects - mean)).sum() - (len(effects) - 1))

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, _MAX_VARIANCE))
