"""How far the mean over small test parts, and the pooled value, lie from what the same answers are worth on endless rows.

Answers of one model of known skill (normal scores, two classes) in 5 test parts with m rows of the rarer class each, which is a
half or a tenth of the rows; a metric of a set is averaged over the parts, or taken of all their rows together. The bias is the
mean over studies minus the value on 400,000 rows. It is the reason for `min_rarest` of the metrics: the rows of the rarest class
from which the mean over parts is off by a point at most.

The second table: the plain and the debiased calibration error (results/stats/calibration_error.py) of calibrated and of
overconfident candidates, and the coverage of the interval, for independent rows and for groups of 20.

    python benchmarks/estimand_bias.py [--quick]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator
from phoropter.results.stats.calibration_error import summarize_bins
from phoropter.results.stats.estimand import Estimand
from phoropter.results.stats.held_out_rows import HeldOutRows

STUDIES, QUICK_STUDIES = 400, 20
PARTS, ENDLESS = 5, 400_000
RAREST, SHARES = (1, 2, 3, 5, 10, 20, 50), (0.5, 0.1)
METRICS = ("macro_f1", "balanced_accuracy", "mcc", "kappa", "roc_auc", "average_precision")
DISTANCE = 1.5  # of the two classes' mean scores, in standard deviations
SIZES, EXCESS, GROUP_ROWS, GROUP_SPREAD = (60, 120, 360, 1000), (0.0, 0.1, 0.25, 0.5), 20, 0.5
GROUPS = (5, 10, 28)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bias:
    """Of one metric with m rows of the rarer class a part: bias of the mean over parts, of the pooled value, and the standard
    deviation of the latter over studies."""

    metric: str
    share: float
    rarest: int
    averaged: float
    pooled: float
    deviation: float


def main(arguments: list[str] | None = None) -> None:
    """Prints both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STUDIES} studies a cell")
    studies = QUICK_STUDIES if parser.parse_args(arguments).quick else STUDIES
    print(bias_table([measure_bias(metric, share, m, studies) for metric in METRICS for share in SHARES for m in RAREST]))
    print(calibration_table(studies))


def make_rows(random: np.random.Generator, rare: int, common: int, parts: int) -> HeldOutRows:
    """One round of `parts` test parts with `rare` rows of the second class and `common` of the first in each."""
    labels = np.tile(np.repeat([1, 0], [rare, common]), parts)
    scores = 1 / (1 + np.exp(-(random.normal(size=len(labels)) + DISTANCE * (labels - 0.5) + np.log(rare / common))))
    splits = np.repeat(np.arange(parts), rare + common)
    return HeldOutRows(labels, np.stack([1 - scores, scores], 1), np.arange(len(labels)), splits, np.zeros_like(splits))


def measure_bias(metric: str, share: float, rarest: int, studies: int) -> Bias:
    """Of one cell; every cell has draws of its own."""
    common = round(rarest * (1 - share) / share)
    averaged, pooled = (Estimand(metric, kind, "", False) for kind in ("per-split", "pooled"))
    endless = make_rows(named_generator("endless", share), round(ENDLESS * share), round(ENDLESS * (1 - share)), 1)
    truth = pooled.compute_value(endless)
    random = named_generator("bias", metric, share, rarest)
    values = np.array(
        [
            [averaged.compute_value(rows), pooled.compute_value(rows)]
            for rows in (make_rows(random, rarest, common, PARTS) for _ in range(studies))
        ]
    )
    return Bias(metric, share, rarest, *(np.nanmean(values, axis=0) - truth).tolist(), float(np.nanstd(values[:, 1])))


def bias_table(found: list[Bias]) -> str:
    """A line for each metric and share: bias of the mean over parts / of the pooled value (its deviation), in points."""
    lines = ["| bias in points | " + " | ".join(map(str, RAREST)) + " |", "|---|" + "---:|" * len(RAREST)]
    for metric, share in dict.fromkeys((b.metric, b.share) for b in found):
        cells = [b for b in found if (b.metric, b.share) == (metric, share)]
        texts = [f"{b.averaged * 100:+.1f} / {b.pooled * 100:+.1f} ({b.deviation * 100:.1f})" for b in cells]
        lines.append(f"| {metric}, rarer class {share:.0%} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def calibration_table(studies: int) -> str:
    """A line for each true error: plain / debiased error (coverage of the interval in percent) by rows or groups."""
    sizes = [(n, 0) for n in SIZES] + [(g * GROUP_ROWS, g) for g in GROUPS]
    names = [f"{n:,} rows" if not g else f"{g} groups" for n, g in sizes]
    lines = ["| true error | " + " | ".join(names) + " |", "|---|" + "---:|" * len(sizes)]
    for excess in EXCESS:
        cells = [measure_calibration(excess, n, g, studies) for n, g in sizes]
        lines.append(f"| {0.25 * excess:.4g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def measure_calibration(excess: float, rows: int, groups: int, studies: int) -> str:
    """Confidences from 0.5 to 1, of which a share `excess` of what exceeds 0.5 is not earned; groups differ in their accuracy."""
    random = named_generator("calibration", excess, rows, groups)
    plain, debiased, covered, truth = [], [], 0, 0.25 * excess
    units, zeros = np.arange(rows) % groups if groups else np.arange(rows), np.zeros(rows, dtype=np.int64)
    for _ in range(studies):
        sure = 0.5 + 0.5 * random.beta(2, 2, rows)
        earned = 0.5 + (sure - 0.5) * (1 - excess)
        if groups:
            earned += (GROUP_SPREAD * random.uniform(-1, 1, groups))[units] * np.minimum(earned, 1 - earned)
        found = summarize_bins(sure, random.random(rows) < earned, units, zeros)
        plain.append(found.error)
        debiased.append(found.debiased)
        covered += found.low <= truth <= found.high
    return f"{np.mean(plain):.3f} / {np.mean(debiased):.3f} ({covered / studies * 100:.0f})"


if __name__ == "__main__":
    main()
