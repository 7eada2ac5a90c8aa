"""The spread between sites against statsmodels' random effects, and that its prediction interval holds new sites."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from phoropter.results.clinical.site_spread import estimate_site_spread, paule_mandel_variance
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.metrics.registry import METRICS

DRAW = np.random.default_rng(9)
EFFECTS, VARIANCES = DRAW.normal(1.2, 0.5, 9), DRAW.uniform(0.02, 0.3, 9)


def share(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def interval_of(effect: float, variance: float) -> ConfidenceInterval:
    half = 1.959963985 * np.sqrt(variance)
    return ConfidenceInterval(share(effect), share(effect - half), share(effect + half), 0.95, "", 50)


def intervals(effects: np.ndarray = EFFECTS, variances: np.ndarray = VARIANCES) -> dict[str, ConfidenceInterval]:  # type: ignore[type-arg]
    return {f"s{i}": interval_of(e, v) for i, (e, v) in enumerate(zip(effects, variances, strict=True))}


def test_it_is_statsmodels_random_effects() -> None:
    expected = combine_effects(EFFECTS, VARIANCES, method_re="iterated", use_t=True)
    assert paule_mandel_variance(EFFECTS, VARIANCES) == pytest.approx(expected.tau2, rel=1e-4)
    found = estimate_site_spread(METRICS["roc_auc"], intervals())
    assert found is not None and found.deviation == pytest.approx(np.sqrt(expected.tau2), rel=1e-4)
    error = expected.sd_eff_w_re_hksj
    half = stats.t.ppf(0.975, 8) * error
    centre = expected.mean_effect_re
    assert found.mean == pytest.approx([share(centre), share(centre - half), share(centre + half)], rel=1e-4)


def test_the_prediction_interval_is_that_of_plain_draws() -> None:
    """τ² from its confidence distribution by bisection, then a mean and a site: 1,500 draws one by one."""
    draw, sites = np.random.default_rng(0), []
    for _ in range(1500):
        wanted, low, high = draw.chisquare(8), 0.0, 100.0
        for _ in range(40):
            middle = (low + high) / 2
            w = 1 / (VARIANCES + middle)
            squares = (w * (EFFECTS - (w * EFFECTS).sum() / w.sum()) ** 2).sum()
            low, high = (middle, high) if squares > wanted else (low, middle)
        w = 1 / (VARIANCES + low)
        mean = (w * EFFECTS).sum() / w.sum()
        error = np.sqrt((w * (EFFECTS - mean) ** 2).sum() / (8 * w.sum()))
        sites.append(mean + error * draw.standard_t(8) + np.sqrt(low) * draw.normal())
    found = estimate_site_spread(METRICS["roc_auc"], intervals())
    assert found is not None
    assert found.new_site[1:] == pytest.approx([share(v) for v in np.quantile(sites, [0.025, 0.975])], abs=0.03)
    assert found.new_site.low < found.mean.low and found.mean.high < found.new_site.high


def test_sites_that_vary_no_more_than_their_rows_have_no_spread() -> None:
    found = estimate_site_spread(METRICS["accuracy"], intervals(np.array([1.0, 1.05, 0.95, 1.02]), np.full(4, 0.2)))
    assert found is not None and found.deviation == 0


def test_sites_without_an_interval_are_left_out() -> None:
    given = intervals() | {"new": ConfidenceInterval(1.0, 0.7, 1.0, 0.95, "", 9), "few": interval_of(np.nan, 0.1)}
    found = estimate_site_spread(METRICS["roc_auc"], given)
    assert found is not None and (found.n_sites, found.n_left_out) == (9, 2)
    assert estimate_site_spread(METRICS["roc_auc"], dict(list(intervals().items())[:2])) is None
    assert estimate_site_spread(METRICS["log_loss"], intervals()) is None


def test_a_metric_from_minus_one_is_scaled() -> None:
    auc = estimate_site_spread(METRICS["roc_auc"], intervals())
    turned = {
        n: ConfidenceInterval(2 * i.estimate - 1, 2 * i.low - 1, 2 * i.high - 1, 0.95, "", 9) for n, i in intervals().items()
    }
    mcc = estimate_site_spread(METRICS["mcc"], turned)
    assert auc is not None and mcc is not None
    assert np.array(mcc.new_site) == pytest.approx(2 * np.array(auc.new_site) - 1)


def test_the_prediction_interval_holds_new_sites_about_as_often_as_it_says() -> None:
    draw, hits, studies = np.random.default_rng(3), 0, 150
    for _ in range(studies):
        variances = draw.uniform(0.05, 0.2, 8)
        effects = draw.normal(1.0, 0.5, 8) + draw.normal(0, np.sqrt(variances))
        found = estimate_site_spread(METRICS["roc_auc"], intervals(effects, variances))
        assert found is not None
        hits += found.new_site.low <= share(draw.normal(1.0, 0.5)) <= found.new_site.high
    assert 0.90 <= hits / studies <= 0.99
