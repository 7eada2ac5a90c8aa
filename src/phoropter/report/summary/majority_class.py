"""The baseline that always predicts the most frequent class of the held-out rows."""

from __future__ import annotations

import numpy as np

from phoropter.report.summary.model import StudySummary
from phoropter.results.metrics import registry

BASELINE_NAME = "majority-class baseline"
MAX_PROBABILITIES = 20_000_000  # rows × classes up to which every metric is computed; accuracy alone beyond
_LABEL_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "macro_recall",
    "macro_precision",
    "weighted_f1",
    "weighted_recall",
)


def majority_class_scores(summary: StudySummary) -> dict[str, float]:
    """Metric → its value for this baseline, or for a user's metric its own value without information.

    Other metrics of probabilities are left out, because the baseline has none.
    """
    support = summary.candidates[0].confusion.sum(axis=1)
    n_classes = len(support)
    metrics = [m for m in summary.metrics if m in _LABEL_METRICS]
    labels = np.repeat(np.arange(n_classes), support)
    records = [registry.METRICS[m] for m in summary.metrics]
    own = {r.name: value for r in records if callable(r.chance) and (value := r.chance_value(labels)) is not None}
    if labels.size * n_classes > MAX_PROBABILITIES:
        return {"accuracy": float(support.max() / support.sum()), **own}
    probabilities = np.zeros((labels.size, n_classes))
    probabilities[:, int(support.argmax())] = 1
    return registry.compute_metrics(metrics, labels, probabilities) | own
