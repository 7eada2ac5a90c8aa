"""The first question: are these trained models different on new rows like these? What is drawn again are the independent units.

splits by folds                        t of the units' contributions to the difference (Bayle et al. 2020, "Cross-validation
                                       confidence intervals for test error", with clusters as units)
one group a split                      Wilcoxon's signed ranks over the groups
one test set, several rows or runs
  a unit, or another metric            unit-swap permutation, paired bootstrap interval
one test set of independent rows, one
  run: accuracy · AUC of two classes   exact McNemar · DeLong
the same with over 500 units           paired z
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from phoropter.core.seeds import named_generator
from phoropter.results.intervals.bootstrap import RESAMPLES, Bootstrap, UnitRows
from phoropter.results.intervals.interval_rules import MIN_UNITS, stretched_percentiles
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.stats.paired_tests import (
    NAN,
    ROUNDING_TOLERANCE,
    PairedTest,
    delong_test,
    drop_undefined,
    mcnemar_test,
    paired_z_test,
    wilcoxon_signed_rank,
)
from phoropter.results.stats.pairs.aligned_predictions import align_predictions
from phoropter.results.stats.pairs.unit_contributions import SplitKey, UnitContributions
from phoropter.results.stats.permutation import unit_swap_test
from phoropter.results.store import Predictions

NORMAL_LAW_UNITS = 500  # above, the normal law serves as well as permutations and resamples


def row_variance(difference: UnitContributions) -> tuple[float, float]:
    """The variance of the mean difference from the units, times G / (G - 1), and its degrees of freedom.

    These are those of a variance of G values with the kurtosis κ of these, 2G / (κ - 1) (at most G - 1): where few units carry
    the difference (rare classes, few rows that only one gets right), few degrees of freedom are left.
    """
    influences = difference.mean_influences
    squares, n = influences**2, len(influences)
    total = float(squares.sum())
    if n < MIN_UNITS or total <= ROUNDING_TOLERANCE**2:
        return (0.0 if n >= MIN_UNITS else NAN), max(n - 1, 1)
    kurtosis = n * float((squares**2).sum()) / total**2
    df = float(np.clip(2 * n / max(kurtosis - 1, ROUNDING_TOLERANCE), 1, n - 1))
    return total * n / (n - 1), df


def unit_t_test(difference: UnitContributions, level: float = 0.95) -> PairedTest:
    """Student's t of the units' contributions. Where all are equal, the sign test: they all point one way."""
    from scipy.special import stdtr, stdtrit

    name, value, n = "paired t over units", float(difference.values.mean()), len(difference.layout.units)
    variance, df = row_variance(difference)
    if n < MIN_UNITS:
        return PairedTest(
            name, value, NAN, level=level, n_units=n, note=f"{n} independent units: at least {MIN_UNITS} are needed"
        )
    if variance == 0:
        p = 2.0 ** (1 - n) if abs(value) > ROUNDING_TOLERANCE else 1.0
        return PairedTest("sign test", value, p, value, value, level, n_units=n, least_p=2.0 ** (1 - n), n_counted=n)
    se = float(np.sqrt(variance))
    half, t = float(stdtrit(df, (1 + level) / 2)) * se, value / se
    p, kind = min(1.0, 2 * float(stdtr(df, -abs(t)))), "mean / sd of the units' parts"
    return PairedTest(name, value, p, value - half, value + half, level, t, se, df, t / float(np.sqrt(n)), kind, n)


def group_rank_test(differences: Floats, ranked: Floats, level: float, seed: int) -> PairedTest:
    """Signed ranks of one difference per left-out group, and the bootstrap interval of their mean.

    differences: (G,) each with the share its group has in the mean · ranked: (G,) by themselves, as they are ranked
    """
    known, test = drop_undefined(differences), wilcoxon_signed_rank(ranked)
    n = len(known)
    if n < MIN_UNITS:
        return test
    drawn = named_generator(seed, "bootstrap").integers(0, n, (RESAMPLES, n))
    error = float(known.std(ddof=1) / np.sqrt(n))
    test = replace(test, difference=float(known.mean()), se=error, df=n - 1)
    return add_interval(test, known[drawn].mean(axis=1), level)


def add_interval(test: PairedTest, drawn: Floats, level: float) -> PairedTest:
    """Stretched percentiles of the replicates; their spread becomes the standard error where the test has none."""
    low, high = stretched_percentiles(test.difference, drawn, test.n_units, level)
    if np.isnan(test.se):
        test = replace(test, se=float(np.std(drawn, ddof=1)), df=max(test.n_units - 1, 1))
    return replace(test, low=low, high=high, level=level)


def compare_on_test_set(
    a: Mapping[SplitKey, Predictions],
    b: Mapping[SplitKey, Predictions],
    keys: Sequence[SplitKey],
    name: str,
    level: float,
    seed: int,
) -> PairedTest:
    """Two candidates on the rows of one test set, over all runs that both have."""
    sheets = [align_predictions(a[k], b[k]) for k in keys if k in a and k in b]
    if not sheets:
        return PairedTest("none", NAN, NAN, note=f"{len(keys)} splits in common and no predictions of both: nothing to test")
    labels, units, pa, pb = (np.concatenate(column) for column in zip(*sheets, strict=True))
    once = len(np.unique(units)) == len(units)
    if once and name == "accuracy":
        return mcnemar_test(pa.argmax(axis=1) == labels, pb.argmax(axis=1) == labels, level=level)
    if once and name == "roc_auc" and pa.shape[1] == 2 and labels.ndim == 1:
        return delong_test(labels == 1, pa[:, 1], pb[:, 1], level)
    runs = np.repeat(np.arange(len(sheets)), [len(s[0]) for s in sheets]) if len(sheets) > 1 else None
    rows, metric = UnitRows(labels, units, runs), get_metric(name)
    if metric.unavailable:
        return PairedTest("none", NAN, NAN, n_units=rows.count, note=metric.unavailable)
    if rows.count > NORMAL_LAW_UNITS or (metric.max_exact_rows is not None and len(labels) > metric.max_exact_rows):
        return paired_z_test(name, rows, pa, pb, level)
    test = unit_swap_test(name, labels, pa, pb, units, runs, seed=seed)
    draws = Bootstrap(labels, units, runs, seed=seed)
    values = draws.compute_replicates(name, pa).paired_values(draws.compute_replicates(name, pb))
    known = values[~np.isnan(values)]
    return add_interval(test, known, level) if rows.count >= MIN_UNITS and len(known) > len(values) / 2 else test
