"""Table cells that several sections share: the mean of a metric over runs, and the interval of the ranking metric."""

from __future__ import annotations

from phoropter.report.render.table import IntervalBounds, MeanStd
from phoropter.report.summary.model import CandidateResults, StudySummary, finite_mean, finite_std

MAX_OTHER_CANDIDATES = 3  # candidates besides the first in the page's tables of classes and groups; the files have all
PROBABILITY_METRICS = ("roc_auc", "log_loss", "ece")  # shown in the calibration table, unless the study names them


def mean_std_over_runs(candidate: CandidateResults, metric: str, external: bool = False) -> MeanStd:
    """external: on the rows of the external test instead of the held-out rows."""
    values = candidate.metric_values(metric, external)
    return MeanStd(finite_mean(values), finite_std(values))


def primary_metric_interval(candidate: CandidateResults) -> IntervalBounds:
    """95 % interval of the ranking metric; NaN bounds where there are too few units."""
    if candidate.replicates is None:
        return IntervalBounds(float("nan"), float("nan"))
    interval = candidate.replicates.confidence_interval()
    return IntervalBounds(interval.low, interval.high)


def describe_interval_methods(summary: StudySummary) -> str:
    """How the intervals of the candidates were computed, or why there is none: each method once, best candidate first."""
    found = [c.replicates.confidence_interval().method for c in summary.candidates if c.replicates is not None]
    return "; ".join(dict.fromkeys(found)) or "no interval: only the recorded values are known"
