"""Whether the ranking metric can rank: not where it is undefined, and accuracy hardly where one class is rare."""

from __future__ import annotations

import numpy as np

from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.summary.model import StudySummary
from phoropter.results.metrics.registry import METRICS
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities

BLIND_SHARE = 0.85  # of the commonest class: finding all other rows is worth at most 15 points of accuracy
_BLIND = (
    "accuracy",
    "weighted_recall",
    "weighted_precision",
    "weighted_f1",
)  # mostly of the commonest class
_SEEING = ("roc_auc", "average_precision", "balanced_accuracy", "macro_recall", "mcc", "macro_f1")


def describe_undefined_metric(summary: StudySummary) -> str:
    """Why nobody comes first: the ranking metric has no value for any candidate; empty where it has."""
    if any(np.isfinite(c.metric_mean(summary.metrics[0])) for c in summary.candidates):
        return ""
    if summary.is_multi_label:
        scale = MetricFormat.from_metric(summary.ranking_metric)
        return f"No candidate can be put first by {scale.inline_title}: some label has no held-out row, or every one."
    support = summary.baseline.confusion.sum(axis=1)
    labels = np.flatnonzero(support)
    occurring = LabelledProbabilities(labels, np.full((len(labels), len(support)), 1 / len(support)))
    scale = MetricFormat.from_metric(summary.ranking_metric)
    absent = [name for name, rows in zip(summary.classes, support, strict=True) if not rows]
    if absent and summary.ranking_metric.undefined_reason(occurring):
        reason = f"no held-out row is of class {absent[0]}, and {scale.inline_title} needs every class"
    else:
        reason = summary.ranking_metric.undefined_reason(occurring) or "it is undefined for their answers"
    return f"No candidate can be put first by {scale.inline_title}: {reason}."


def describe_blind_metric(summary: StudySummary) -> str:
    """`Accuracy is nearly blind here: …`, and who comes first by a metric that is not; empty where it is not blind."""
    metric = summary.ranking_metric
    if metric.name not in _BLIND:
        return ""
    support = summary.baseline.confusion.sum(axis=1)
    common = int(support.argmax())
    share = float(support[common] / support.sum())
    if share < BLIND_SHARE:
        return ""
    others = "the others" if len(summary.classes) > 2 else summary.classes[1 - common]
    text = (
        f"{metric.title} is nearly blind here: only {(1 - share) * 100:.1f} % of the rows are {others}, and a rule that always "
        f"answers ‘{summary.classes[common]}’ would reach {share * 100:.1f} % accuracy."
    )
    seeing = next((m for m in _SEEING if m in summary.metrics and np.isfinite(summary.candidates[0].metric_mean(m))), None)
    if seeing is None:
        return f"{text} Rank by `roc_auc` or `average_precision` instead."
    scale = MetricFormat.from_metric(METRICS[seeing])
    sign = 1 if scale.higher_is_better else -1
    known = [c for c in summary.candidates if np.isfinite(c.metric_mean(seeing))]
    best = max(known, key=lambda c: sign * c.metric_mean(seeing))
    value = scale.format_value(best.metric_mean(seeing))
    guess = METRICS[seeing].chance_value(np.repeat(np.arange(len(support)), support))
    chance = "" if guess is None else f"; chance is {scale.format_value(guess)}"
    if len(known) == 1:
        return f"{text} {scale.title} is not: {best.name} reaches {value}{chance}."
    return f"{text} {scale.title} is not: by it, {best.name} comes first with {value}{chance}."
