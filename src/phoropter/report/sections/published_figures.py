"""The figures that the source of a study published, each with ours beside it and a judgement whether the two agree.

Two figures agree where the interval of their difference, made of both intervals, holds zero. An interval of a published figure is
derived from what the source says of its rows and runs; where it says nothing, agreement cannot be judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from phoropter.report.render.table import MeanStd
from phoropter.report.sections.candidate_values import mean_std_over_runs, primary_metric_interval
from phoropter.report.summary.model import UNSEEN, CandidateResults, StudySummary
from phoropter.results.intervals.derived_intervals import (
    DerivedInterval,
    derive_auc_interval,
    derive_mean_interval,
    derive_share_interval,
    difference_bounds,
)
from phoropter.results.metrics.registry import METRICS

_SHARES = ("accuracy", "top5_accuracy")  # means of right answers over rows
Agreement = Literal["agrees", "higher here", "lower here", "cannot be judged"]


@dataclass(frozen=True)
class PublishedValue:
    """As printed in the source, a percentage as a fraction; std: NaN where none is printed."""

    value: float
    std: float = float("nan")


@dataclass(frozen=True)
class ComparedFigure:
    """A published figure and ours. metric: with `unseen_` before it where it is of unseen sites

    ours: NaN where it is not computed here · low, high: of ours, NaN where this study gives no interval of it
    derived: the interval of the published figure, None where the source says too little
    """

    candidate: str
    metric: str
    published: PublishedValue
    ours: float
    low: float
    high: float
    derived: DerivedInterval | None

    @property
    def is_unseen(self) -> bool:
        """Whether it is of sites that were never trained on."""
        return self.metric.startswith(UNSEEN)

    @property
    def scored_by(self) -> str:
        """The metric by its name alone."""
        return self.metric.removeprefix(UNSEEN)

    @property
    def agreement(self) -> Agreement:
        if self.derived is None or not np.isfinite([self.ours, self.low, self.high]).all():
            return "cannot be judged"
        theirs = (self.published.value, self.derived.low, self.derived.high)
        low, high = difference_bounds((self.ours, self.low, self.high), theirs)
        return "agrees" if low <= 0 <= high else "higher here" if low > 0 else "lower here"


def read_about(summary: StudySummary) -> dict[str, Any]:
    """`about` of the study file; empty where it has none."""
    return dict(summary.study_config.get("about") or {})


def read_published(summary: StudySummary) -> dict[str, dict[str, PublishedValue]]:
    """Candidate → metric → the published value; the study may give it as a fraction, × 100, or with its spread.

    Empty for a smoke version of a study, whose networks are not those that were published.
    """
    figures = {} if summary.study.get("scale") else read_about(summary).get("published") or {}
    found: dict[str, dict[str, PublishedValue]] = {}
    for candidate, by_metric in figures.items():
        given = {str(metric): value for metric, value in by_metric.items() if value is not None}
        found[str(candidate)] = {metric: _parse_value(metric, value) for metric, value in given.items()}
    return found


def _parse_value(metric: str, given: Any) -> PublishedValue:
    value, std = (given["value"], given.get("std")) if isinstance(given, Mapping) else (given, None)
    record = METRICS.get(metric.removeprefix(UNSEEN))
    factor = 0.01 if record is not None and record.percent and float(value) > 1 else 1.0
    return PublishedValue(float(value) * factor, float("nan") if std is None else float(std) * factor)


def published_name(candidate: CandidateResults, names: Mapping[str, Any]) -> str:
    """The name under which its figures were published: its own, or that without the settings of sweeps."""
    return candidate.name if candidate.name in names else candidate.base_name


def compare_figures(summary: StudySummary) -> list[ComparedFigure]:
    """Every published figure of a candidate of this study, by candidate in the order of the leaderboard."""
    published, sample = read_published(summary), dict(read_about(summary).get("published_sample") or {})
    found = []
    for candidate in summary.candidates:
        for metric, figure in published.get(published_name(candidate, published), {}).items():
            ours, low, high = _our_figure(summary, candidate, metric)
            derived = _derive_interval(metric, figure, sample)
            found.append(ComparedFigure(candidate.name, metric, figure, ours, low, high, derived))
    return found


def compare_ranking_figures(summary: StudySummary) -> list[ComparedFigure]:
    """Those of `compare_figures` that are of the ranking metric and have ours beside them."""
    return [f for f in compare_figures(summary) if f.scored_by == summary.metrics[0] and np.isfinite(f.ours)]


def our_value(candidate: CandidateResults, metric: str) -> MeanStd | None:
    """Ours beside a published one: of all models together on unseen sites, else by the estimand of the study."""
    name = metric.removeprefix(UNSEEN)
    if name not in METRICS:
        return None
    if not metric.startswith(UNSEEN):
        return mean_std_over_runs(candidate, name)
    external = candidate.external_test
    return None if external is None else MeanStd(external.metrics.get(name, float("nan")), float("nan"))


def _our_figure(summary: StudySummary, candidate: CandidateResults, metric: str) -> tuple[float, float, float]:
    """Value and bounds; there are bounds of the ranking metric alone."""
    value = our_value(candidate, metric)
    ours, bounds = float("nan") if value is None else value.mean, (float("nan"), float("nan"))
    if metric == summary.metrics[0]:
        bounds = primary_metric_interval(candidate)
    elif metric == UNSEEN + summary.metrics[0] and candidate.external_test is not None:
        bounds = (candidate.external_test.interval.low, candidate.external_test.interval.high)
    return ours, *bounds


def _derive_interval(metric: str, figure: PublishedValue, sample: Mapping[str, Any]) -> DerivedInterval | None:
    positives, negatives = sample.get("unseen_positives"), sample.get("unseen_negatives")
    if metric == f"{UNSEEN}roc_auc" and positives and negatives and 0 < figure.value < 1:
        return derive_auc_interval(figure.value, positives, negatives)
    if np.isfinite(figure.std) and sample.get("runs"):
        return derive_mean_interval(figure.value, figure.std, sample["runs"], sample["folds"])
    if metric in _SHARES and sample.get("rows"):
        return derive_share_interval(figure.value, sample["rows"])
    return None
