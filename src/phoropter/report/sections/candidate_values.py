"""Cells and words that several sections share: the value of a metric, what it estimates, the interval of the ranking metric."""

from __future__ import annotations

from collections.abc import Sequence

from phoropter.report.render.metric_format import MetricFormat, metric_column
from phoropter.report.render.table import Column, IntervalBounds, MeanStd
from phoropter.report.render.wording import list_names
from phoropter.report.summary.model import CandidateResults, StudySummary, finite_mean, finite_std
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats.estimand import Estimand

MAX_OTHER_CANDIDATES = 3  # candidates besides the first in the page's tables of classes and groups; the files have all
PROBABILITY_METRICS = ("roc_auc", "log_loss", "brier", "ece")  # shown in the calibration table, unless the study names them


def mean_std_over_runs(candidate: CandidateResults, metric: str, external: bool = False) -> MeanStd:
    """The value by the estimand of the study, and its standard deviation over splits where single splits can carry it.

    external: the mean over models on the rows of the external test, which all of them predict.
    """
    if external:
        values = candidate.metric_values(metric, external)
        return MeanStd(finite_mean(values), finite_std(values))
    return MeanStd(candidate.metric_mean(metric), candidate.spreads.get(metric, float("nan")))


def describe_estimands(summary: StudySummary, metrics: Sequence[str]) -> str:
    """What the values of these metrics are: means over rows, means over splits, or pooled, and why."""
    sentences, chosen = [], [summary.estimands[m] for m in metrics]
    row_means = [e for e in chosen if METRICS[e.metric].mean_over_rows]
    by_reason: dict[tuple[str, str], list[Estimand]] = {}
    for e in chosen:
        if e not in row_means:
            by_reason.setdefault((e.kind, e.reason), []).append(e)
    if row_means:
        sentences.append(f"{_name_metrics(row_means)}: mean over all held-out rows.")
    for (kind, reason), some in by_reason.items():
        how = "mean over splits" if kind == "per-split" else "of all held-out rows of a repeat together, not averaged over splits"
        sentences.append(f"{_name_metrics(some)}: {how}, because {reason}.")
    if ranked := [e for e in chosen if e.compares_scores]:
        rank = "ranks" if len(ranked) == 1 else "rank"
        sentences.append(f"{_name_metrics(ranked)} then {rank} scores of models of different splits against each other.")
    if any(e.has_spread for e in chosen) and any(len(c.runs) > 1 for c in summary.candidates):
        sentences.append("±: standard deviation over splits.")
    return " ".join(sentences)


def within_split_column(summary: StudySummary, metric: str) -> Column | None:
    """The second figure of a metric that ranks scores of different models together; None where no split can carry it."""
    used = [c.within_splits[metric][1:] for c in summary.candidates if metric in c.within_splits]
    if not any(n for n, _ in used):
        return None
    n_used, n_all = max(used)
    first = metric_column(METRICS[metric])
    words = f"mean over the {n_used} of {n_all} splits that can carry it: scores of one model are ranked among themselves"
    return Column(f"{first.name} within splits", first.kind, words, first.digits)


def _name_metrics(estimands: Sequence[Estimand]) -> str:
    """`Macro F1 and ROC-AUC`: the first with its capital, the others as inside a sentence."""
    first, *others = [METRICS[e.metric] for e in estimands]
    return list_names([first.title, *(MetricFormat.from_metric(m).inline_title for m in others)])


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
