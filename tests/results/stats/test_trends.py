"""Trends of learning curves: the paper's curve comes back, crossings agree with other computations, warnings are said."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from phoropter.results.stats.trends import MAX_EPOCH_RATIO, LearningCurve, find_crossing, find_crossings, fit_trend

X = np.arange(1.0, 151)
PAPER = -0.112 + 0.139 * np.log(X)  # «A ViT teaches a CNN»: the distilled student's accuracy by epoch


def learnt(name: str, curve: np.ndarray, runs: int = 6, noise: float = 0.01, seed: int = 0) -> LearningCurve:
    """Runs that lie a little higher or lower each, with noise from epoch to epoch."""
    rng = np.random.default_rng(seed)
    values = np.array([curve + rng.normal(0, noise) + rng.normal(0, noise, len(curve)) for _ in range(runs)])
    return LearningCurve(name, values, tuple(range(runs)))


def test_the_papers_trend_comes_back_from_its_own_points() -> None:
    found = fit_trend(PAPER, "logarithmic")
    assert (found.a, found.b, found.r2) == pytest.approx((-0.112, 0.139, 1.0), abs=1e-9)
    noisy = PAPER + np.random.default_rng(1).normal(0, 0.027, 150)
    again = fit_trend(noisy, "logarithmic")
    assert (again.a, again.b) == pytest.approx((-0.112, 0.139), abs=0.02)
    b, a = np.polyfit(np.log(X), noisy, 1)
    assert (again.a, again.b) == pytest.approx((a, b), rel=1e-9)
    assert again.r2 == pytest.approx(np.corrcoef(np.log(X), noisy)[0, 1] ** 2, rel=1e-9)


@pytest.mark.parametrize(("a", "b", "c"), [(0.9, 0.7, 23.4), (0.95, 0.2, 3.0), (0.6, 0.5, 80.0)])
def test_a_saturating_curve_comes_back_and_is_what_scipy_finds(a: float, b: float, c: float) -> None:
    y = a - b * np.exp(-X / c) + np.random.default_rng(0).normal(0, 0.005, 150)
    found = fit_trend(y, "saturating")
    best, _ = optimize.curve_fit(lambda x, a, b, c: a - b * np.exp(-x / c), X, y, p0=(a, b, c))
    left = np.square(y - (best[0] - best[1] * np.exp(-X / best[2]))).sum()
    assert np.square(y - found.evaluate_at(X)).sum() == pytest.approx(left, rel=1e-6)
    assert (found.a, found.b, found.c) == pytest.approx(tuple(best), rel=2e-3)


def test_the_crossing_of_two_logarithmic_trends_is_where_their_lines_meet() -> None:
    one, two = learnt("distilled", PAPER), learnt("baseline", 0.3 + 0.07 * np.log(X), seed=1)
    found = find_crossing(two, one, "logarithmic")
    slopes = [np.polyfit(np.log(X), c.values.mean(axis=0), 1) for c in (one, two)]
    meets = optimize.brentq(lambda u: np.polyval(slopes[0], u) - np.polyval(slopes[1], u), 0, 12)
    assert (found.overtaking, found.overtaken, found.n_epochs) == ("distilled", "baseline", 150)
    assert found.epoch == pytest.approx(np.exp(meets), rel=1e-9) and 340 < found.epoch < 420
    # The interval, by a loop of its own: runs drawn with replacement, together where splits are the same.
    rng, drawn = np.random.default_rng(5), []
    for _ in range(800):
        runs = rng.integers(0, 6, 6)
        (b1, a1), (b2, a2) = (np.polyfit(np.log(X), c.values[runs].mean(axis=0), 1) for c in (one, two))
        drawn.append(np.exp((a2 - a1) / (b1 - b2)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    width = high - low
    assert abs(found.low - low) < 0.2 * width and abs(found.high - high) < 0.2 * width
    assert found.warnings[0].startswith(f"lies {found.epoch / 150:.1f} times as far as the 150 epochs there are")


def test_the_crossing_of_two_saturating_trends_is_a_root() -> None:
    x = X[:60]
    one, two = (
        learnt("slow", 0.9 - 0.8 * np.exp(-x / 30), noise=0.001),
        learnt("fast", 0.8 - 0.7 * np.exp(-x / 5), noise=0.001, seed=1),
    )
    found = find_crossing(one, LearningCurve("fast", two.values[:, :50], two.splits), "saturating")
    fits = [fit_trend(c.values.mean(axis=0)[:50], "saturating") for c in (one, two)]
    gap = lambda e: float(fits[0].evaluate_at(np.array([e]))[0] - fits[1].evaluate_at(np.array([e]))[0])  # noqa: E731
    assert found.n_epochs == 50 and found.epoch == pytest.approx(optimize.brentq(gap, 40, 200), rel=1e-3)
    assert found.low <= found.epoch <= found.high and found.warnings == ()


def test_what_never_meets_and_what_has_no_end_is_said() -> None:
    apart = find_crossing(learnt("a", 0.5 + 0.1 * np.log(X[:20])), learnt("b", 0.2 + 0.05 * np.log(X[:20])), "logarithmic")
    assert np.isinf(apart.epoch) and apart.warnings[0].startswith(
        f"by this form it does not overtake within {MAX_EPOCH_RATIO:g} times"
    )
    unsure = find_crossing(
        learnt("a", 0.5 + 0.1 * np.log(X[:20])), learnt("b", 0.4 + 0.13 * np.log(X[:20]), noise=0.08), "logarithmic"
    )
    assert np.isinf(unsure.high) and any("has no end" in w for w in unsure.warnings)
    single = find_crossing(learnt("a", 0.5 + 0.1 * np.log(X[:20]), 1), learnt("b", 0.4 + 0.14 * np.log(X[:20]), 1), "logarithmic")
    assert np.isnan(single.low) and any("of one run" in w for w in single.warnings)


def test_a_trend_above_one_hundred_per_cent_is_called_out() -> None:
    found = find_crossing(
        learnt("a", 0.9 + 0.01 * np.log(X[:10]), noise=0.001),
        learnt("b", 0.7 + 0.08 * np.log(X[:10]), noise=0.001),
        "logarithmic",
    )
    assert found.overtaking == "b" and 15 < found.epoch < 20 and found.warnings == ()
    high = find_crossing(
        learnt("a", 0.97 + 0.01 * np.log(X[:10]), noise=0.001),
        learnt("b", 0.7 + 0.08 * np.log(X[:10]), noise=0.001),
        "logarithmic",
    )
    assert any("above 100 %" in w for w in high.warnings)


def test_only_pairs_that_meet_later_are_listed() -> None:
    curves = [
        learnt("a", 0.5 + 0.1 * np.log(X[:20])),
        learnt("b", 0.4 + 0.12 * np.log(X[:20])),
        learnt("c", 0.1 + 0.02 * np.log(X[:20])),
    ]
    assert {(c.overtaking, c.overtaken) for c in find_crossings(curves)} == {("b", "a")}
    assert [c.form for c in find_crossings(curves)] == ["logarithmic", "saturating"]
    with pytest.raises(ValueError, match="5 epochs"):
        fit_trend(np.ones(4), "logarithmic")
