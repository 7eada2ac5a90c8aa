"""Paired tests of two candidates, each with its difference, interval and effect size besides p.

    corrected_resampled_ttest  scores of folds whose training sets overlap (Nadeau & Bengio 2003)
    wilcoxon_signed_rank       one value per independent group: leave-one-subject-out
    delong_test                two AUCs on the same independent cases
    mcnemar_test               two accuracies on the same independent cases
    paired_z_test              any metric over many independent units

Permutation tests are in permutation.py. Where there is nothing to test, p is NaN and `note` gives the reason.
SciPy's own test is used where it has one.

Left out: tests that treat folds as independent (paired t, Wilcoxon over folds): their false-positive rate is many times α, as
tests/results/stats/test_compare.py measures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.results.intervals.bootstrap import UnitRows
from phoropter.results.intervals.interval_rules import clip_difference
from phoropter.results.metrics.ranking import Ranking
from phoropter.results.metrics.sufficient_sums import Floats

ROUNDING_TOLERANCE = 1e-12  # differences of scores below this are rounding

NAN = float("nan")


@dataclass(frozen=True)
class PairedTest:
    """One test of a difference a - b; `low` and `high` at `level`, NaN where this test has no interval.

    effect, effect_kind: an effect size without unit, and its definition
    se, df: of the difference; df is infinite for a normal law · n_units: independent units, or folds · note: why p is NaN
    least_p: the smallest p that any outcome could have had, of a test that counts; n_counted: what it counts (units that moved)
    """

    test: str
    difference: float
    p: float
    low: float = NAN
    high: float = NAN
    level: float = 0.95
    statistic: float = NAN
    se: float = NAN
    df: float = np.inf
    effect: float = NAN
    effect_kind: str = ""
    n_units: int = 0
    note: str = ""
    least_p: float = 0.0
    n_counted: int = 0

    def with_bounds_within(self, value_range: tuple[float, float]) -> PairedTest:
        """The same with an interval that holds no difference between two values in this range, which there cannot be."""
        low, high = clip_difference(self.low, self.high, value_range)
        return replace(self, low=low, high=high)


def corrected_resampled_ttest(differences: Floats | list[float], test_to_train: float, level: float = 0.95) -> PairedTest:
    """Nadeau & Bengio's corrected resampled t, over J splits (k folds × r repeats: Bouckaert & Frank 2004).

    differences (J,) a - b, one a split · test_to_train: rows tested / rows trained on, 1/(k-1) for k folds. Raises DataError for
    a ratio that is not positive: without it the correction is none.
    """
    from scipy.special import stdtr, stdtrit

    d = drop_undefined(differences)
    if not test_to_train > 0:
        raise DataError(f"test_to_train is {test_to_train}: expected rows tested / rows trained on, as 1/9 for 10 folds")
    name, n = "corrected resampled t", len(d)
    if n < 2:
        return PairedTest(name, _mean_or_nan(d), NAN, level=level, n_units=n, note=f"{n} splits in common: a spread needs two")
    mean, spread = _mean_or_nan(d), float(d.std(ddof=1)) if np.ptp(d) > ROUNDING_TOLERANCE else 0.0
    se = float(np.sqrt(1 / n + test_to_train)) * spread
    t = mean / se if se else float(np.inf * np.sign(mean)) if mean else 0.0
    half = float(stdtrit(n - 1, (1 + level) / 2)) * se
    p = min(1.0, 2 * float(stdtr(n - 1, -abs(t))))
    return PairedTest(
        name, mean, p, mean - half, mean + half, level, t, se, n - 1, cohens_d(d), "mean / sd of the splits' differences", n
    )


def cohens_d(differences: Floats | list[float]) -> float:
    """Cohen's d of paired differences: mean / standard deviation (ddof 1); 0 for no difference, ±inf for a constant one."""
    d = drop_undefined(differences)
    if len(d) < 2:
        return NAN
    if np.ptp(d) <= ROUNDING_TOLERANCE:
        return float(np.inf * np.sign(d[0])) if d[0] else 0.0
    return float(d.mean() / d.std(ddof=1))


def wilcoxon_signed_rank(differences: Floats | list[float]) -> PairedTest:
    """Signed ranks over independent units, zeros dropped; exact for few. The effect is rank-biserial, from -1 to 1."""
    from scipy import stats

    d = drop_undefined(differences)
    moved = d[d != 0]
    name, kind = "Wilcoxon signed-rank", "rank-biserial correlation"
    if len(d) < 2:
        return PairedTest(name, _mean_or_nan(d), NAN, n_units=len(d), note=f"{len(d)} units in common: at least two are needed")
    if not len(moved):
        return PairedTest(name, 0.0, 1.0, statistic=0.0, effect=0.0, effect_kind=kind, n_units=len(d), least_p=1.0)
    found = stats.wilcoxon(np.round(moved, 12))
    ranks = stats.rankdata(np.abs(np.round(moved, 12)))
    effect = float((ranks * np.sign(moved)).sum() / ranks.sum())
    return PairedTest(
        name,
        _mean_or_nan(d),
        float(found.pvalue),
        statistic=float(found.statistic),
        effect=effect,
        effect_kind=kind,
        n_units=len(d),
        least_p=2.0 ** (1 - len(moved)),
        n_counted=len(moved),
    )


def delong_test(positive: NDArray[Any], a: NDArray[Any], b: NDArray[Any], level: float = 0.95) -> PairedTest:
    """Two AUCs of the same independent cases (DeLong 1988, by the midranks of Sun & Xu 2014).

    positive (N,) bool or 0/1 · a, b (N,) scores. Variance 0 gives z 0 and p 1. The effect is the difference / its standard error
    for one case, so that it does not grow with their number.
    """
    from scipy.special import ndtr, ndtri

    truth = np.asarray(positive).astype(bool)
    m, n = int(truth.sum()), int((~truth).sum())
    if min(m, n) < 2:
        note = f"{m} positive and {n} negative cases: DeLong's variance needs two of each"
        return PairedTest("DeLong", NAN, NAN, level=level, n_units=m + n, note=note)
    areas, covariance = auc_covariance(truth, [np.asarray(a), np.asarray(b)])
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    se = float(np.sqrt(variance)) if variance > ROUNDING_TOLERANCE**2 else 0.0
    z = difference / se if se else 0.0
    half = float(ndtri((1 + level) / 2)) * se
    low, high = max(-1.0, difference - half), min(1.0, difference + half)
    effect = z / float(np.sqrt(m + n))
    kind = "difference / its standard error, over √cases"
    return PairedTest(
        "DeLong", difference, min(1.0, 2 * float(ndtr(-abs(z)))), low, high, level, z, se, np.inf, effect, kind, m + n
    )


def auc_covariance(positive: NDArray[np.bool_], scores: list[NDArray[Any]]) -> tuple[Floats, Floats]:
    """K score vectors (N,) of the same cases → their AUCs (K,) and the covariance of those (K, K)."""
    placed = [Ranking.from_scores(positive, s).placement_values() for s in scores]
    v10, v01 = np.stack([p[0] for p in placed]), np.stack([p[1] for p in placed])
    covariance = np.atleast_2d(np.cov(v10)) / v10.shape[1] + np.atleast_2d(np.cov(v01)) / v01.shape[1]
    return v10.mean(axis=1), covariance


def mcnemar_test(
    right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], *, mid_p: bool = False, level: float = 0.95
) -> PairedTest:
    """Two accuracies of the same independent cases: exact on the cases only one got right, or the less conservative mid-p.

    The interval is Bonett & Price's (2012) adjusted Wald, whose width does not vanish when the two never disagreed.
    """
    from scipy import stats
    from scipy.special import ndtri

    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    name, apart = f"McNemar {'mid-p' if mid_p else 'exact'}", only_a + only_b
    if not n:
        return PairedTest(name, NAN, NAN, level=level, note="no cases in common")
    law = stats.binom(apart, 0.5)
    fewer = min(only_a, only_b)
    p = min(1.0, 2 * float(law.cdf(fewer)) - (float(law.pmf(fewer)) if mid_p else 0.0)) if apart else 1.0
    up, down = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    se = float(np.sqrt((up + down - (up - down) ** 2) / (n + 2)))
    half = float(ndtri((1 + level) / 2)) * se
    low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
    effect = (only_a - only_b) / apart if apart else 0.0
    kind = "share of the cases only one got right, a minus b"
    least = float(0.5**apart if mid_p else min(1.0, 2 * 0.5**apart))
    test = PairedTest(name, (only_a - only_b) / n, p, low, high, level, float(fewer), se, np.inf, effect, kind, n)
    return replace(test, least_p=least, n_counted=apart)


def paired_z_test(name: str, rows: UnitRows, a: NDArray[Any], b: NDArray[Any], level: float = 0.95) -> PairedTest:
    """Any metric over many independent units: each unit's first-order part of the difference, under the normal law.

    a, b (N, C) probabilities of the rows. p is the limit of the unit-swap permutation, the interval that of the paired bootstrap.
    """
    from scipy.special import ndtr, ndtri

    (value_a, by_a), (value_b, by_b) = rows.compute_influences(name, a), rows.compute_influences(name, b)
    difference, n = value_a - value_b, rows.count
    if np.isnan(difference) or n < 2:
        return PairedTest("paired z", NAN, NAN, level=level, n_units=n, note="undefined" if n > 1 else f"{n} units in common")
    if np.isnan(by_a).any() or np.isnan(by_b).any():  # only of a user's metric, whose derivatives are taken by leaving units out
        return PairedTest("paired z", difference, NAN, level=level, n_units=n, note="undefined without some of the units")
    around = by_a - by_b  # these add up to 0, the units' parts of the difference to the difference
    apart = float(np.sqrt(np.square(around + difference / n).sum()))
    se = float(np.sqrt(np.square(around).sum()))
    z = difference / apart if apart > ROUNDING_TOLERANCE else 0.0
    half = float(ndtri((1 + level) / 2)) * se
    effect = difference / (se * float(np.sqrt(n))) if se > ROUNDING_TOLERANCE else 0.0
    kind = "mean / sd of the units' parts"
    return PairedTest(
        "paired z",
        difference,
        2 * float(ndtr(-abs(z))),
        difference - half,
        difference + half,
        level,
        z,
        se,
        np.inf,
        effect,
        kind,
        n,
    )


def adjust_holm(p: list[float] | Floats) -> Floats:
    """(K,) p → (K,) adjusted for K of them (Holm 1979); NaN stays NaN and does not count."""
    given = np.asarray(p, dtype=np.float64)
    out = np.full(given.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(given))
    order = tested[np.argsort(given[tested], kind="stable")]
    steps = given[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out


def minimum_detectable_effect(se: float, df: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The true difference that a two-sided test with this standard error detects with this power."""
    from scipy.special import nctdtrinc, ndtri, stdtrit

    if not se >= 0 or not df > 0:
        return NAN
    if np.isinf(df):
        return float(se * (ndtri(1 - alpha / 2) + ndtri(power)))
    return float(se * nctdtrinc(df, 1 - power, stdtrit(df, 1 - alpha / 2)))


def is_equivalent(low: float, high: float, margin: float) -> bool:
    """Whether the interval of a difference lies entirely within ±margin (two one-sided tests; Schuirmann 1987)."""
    return bool(-margin < low and high < margin)


def drop_undefined(differences: Floats | list[float]) -> Floats:
    """Without undefined values; rounding errors set to 0."""
    d = np.asarray(differences, dtype=np.float64)
    d = d[~np.isnan(d)]
    return np.where(np.abs(d) < ROUNDING_TOLERANCE, 0.0, d)


def _mean_or_nan(d: Floats) -> float:
    return float(d.mean()) if len(d) else NAN
