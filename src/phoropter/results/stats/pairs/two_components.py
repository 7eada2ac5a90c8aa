"""Would training again repeat a difference? The variances of rows and of training kept apart.

A split's difference of two candidates varies because other rows could have been drawn and because another training part could
have been. The first is known from the rows themselves; only the second must be learnt from the few splits, and only it is shared
by splits with common training rows. The corrected resampled t (Nadeau & Bengio 2003) multiplies the sum of both by
1/J + n_test/n_train and gives it J - 1 degrees of freedom; here this is done to the second part alone:

    V = A + (1/J + n_test/n_train) · (s² - v)

    A  variance of the mean difference from rows     s²  variance of the splits' differences within a round (repeat)
    v  what rows contribute to s²                    J   splits, over all rounds

V is uncertain through s². Cut off at s² = v and plugged in, it finds too many differences (11 % in place of 5 % with 5 folds);
Satterthwaite's degrees of freedom lose the power again. Each part therefore has Student's quantile of its own degrees of
freedom, as Cochran & Cox (1957, Experimental Designs, §4.14) combine two variances:

    critical² = max(t_A² A,  t_A² (A - c v) + t_s² c s²)      c = 1/J + n_test/n_train

so that it becomes the corrected resampled t where training is all, and the test of the rows where it is nothing.
Bound, rates and power: docs/statistics.md, by benchmarks/comparison_power.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.stats.paired_tests import NAN, ROUNDING_TOLERANCE, PairedTest

NAME = "two-component t"
BISECTIONS = 40  # of a logarithm from -27.6 to 0: p is exact to ten digits


@dataclass(frozen=True)
class TwoComponents:
    """The parts of the variance of one difference, as in the head of this module.

    rows, rows_df:       A and its degrees of freedom
    spread, spread_df:   s² and its degrees of freedom: (splits - 1) of each round, added up
    rows_in_spread:      v
    factor:              c
    n_splits:            J
    """

    difference: float
    rows: float
    rows_df: float
    spread: float
    spread_df: float
    rows_in_spread: float
    factor: float
    n_splits: int

    @property
    def training_variance(self) -> float:
        """τ̂², of the difference of one split; 0 where the splits differ no more than their rows explain."""
        return max(0.0, self.spread - self.rows_in_spread)

    @property
    def standard_error(self) -> float:
        return float(np.sqrt(self.rows + self.factor * self.training_variance))

    def critical_value(self, alpha: float) -> float:
        """The smallest absolute difference with a two-sided p of at most `alpha`."""
        from scipy.special import stdtrit

        of_rows = float(stdtrit(self.rows_df, 1 - alpha / 2)) ** 2
        of_spread = float(stdtrit(self.spread_df, 1 - alpha / 2)) ** 2
        both = of_rows * (self.rows - self.factor * self.rows_in_spread) + of_spread * self.factor * self.spread
        return float(np.sqrt(max(of_rows * self.rows, both)))

    def p_value(self) -> float:
        """The level at which the difference is just critical, by bisection on its logarithm; at least 1e-12."""
        if abs(self.difference) <= ROUNDING_TOLERANCE:
            return 1.0
        low, high = np.log(1e-12), 0.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.critical_value(float(np.exp(middle))) <= abs(self.difference) else (middle, high)
        return float(np.exp(high))


def two_component_test(parts: TwoComponents, level: float = 0.95) -> PairedTest:
    """The test, with the interval of all differences that it does not refuse. No p where nothing varies."""
    se, d = parts.standard_error, parts.difference
    if not se > ROUNDING_TOLERANCE:
        note = "" if abs(d) <= ROUNDING_TOLERANCE else "every unit and every split has the same difference: no spread to test by"
        p = NAN if note else 1.0
        return PairedTest(NAME, d, p, d if not note else NAN, d if not note else NAN, level, n_units=parts.n_splits, note=note)
    half = parts.critical_value(1 - level)
    effect = d / float(np.sqrt(parts.spread)) if parts.spread > 0 else 0.0
    kind = "mean / sd of the splits' differences"
    df = effective_df(half, se, level)
    return PairedTest(NAME, d, parts.p_value(), d - half, d + half, level, d / se, se, df, effect, kind, parts.n_splits)


def effective_df(half_width: float, se: float, level: float = 0.95) -> float:
    """The degrees of freedom whose Student's t has this ratio of half-width to standard error; ∞ where it is below the normal."""
    from scipy.special import ndtri, stdtridf

    ratio = half_width / se
    return float(stdtridf((1 + level) / 2, ratio)) if ratio > float(ndtri((1 + level) / 2)) * (1 + 1e-9) else float("inf")


def average_variances(values: Floats, df: Floats) -> tuple[float, float]:
    """Variances of several rounds → their mean weighted by their degrees of freedom, and the sum of these."""
    total = float(df.sum())
    return (float((values * df).sum() / total), total) if total > 0 else (NAN, 0.0)
