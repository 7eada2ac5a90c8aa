"""(labels, probabilities) → numbers. A new metric needs no new run: everything is recomputed from the stored predictions.

    >>> import numpy as np
    >>> compute_metrics(["accuracy", "macro_f1"], np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    {'accuracy': 0.6666666666666666, 'macro_f1': 0.6666666666666666}

Values and conventions are scikit-learn's (zero where precision, recall or F1 divide by zero; macro means over the classes that
occur), with three exceptions, each NaN (`undefined_reason` says why) where scikit-learn warns and returns a number: top-5
with five classes or fewer, average precision where a class is absent, and any metric of no rows.

Left out: thresholds other than the likeliest class, and one-vs-one AUC; nothing in the reports reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SpecError, did_you_mean, join_words
from phoropter.results.metrics import ranking, sufficient_sums
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities, Layout, MetricSums, SumsFunction

MetricNeed = Literal["probabilities", "every class", "ranks"]


@dataclass(frozen=True, eq=False)
class Metric:
    """One number about predictions.

    percent: shown as 0–100 · needs: `probabilities`, not the likeliest class alone; `every class` among the labels of a
    resample; `ranks`, so every class must be among the labels for it to exist at all, and classes are resampled separately ·
    rows, value: what a row adds to which sums, and the metric as a function of the sums (see results/sums.py) · slope: its
    derivatives by the sums, where counting them out would be slow
    """

    name: str
    title: str
    compute_sums: Callable[[LabelledProbabilities], MetricSums]
    value_from_sums: SumsFunction
    higher_is_better: bool = True
    percent: bool = False
    needs: frozenset[MetricNeed] = frozenset()
    analytic_gradient: Callable[[Floats, Layout], Floats] | None = None

    def compute_value(self, answers: LabelledProbabilities) -> float:
        """The value, NaN where it is undefined."""
        return float("nan") if self.undefined_reason(answers) else self.compute_from_sums(self.compute_sums(answers))

    def compute_from_sums(self, added: MetricSums) -> float:
        return float(self.value_from_sums(added.total_column(), added.layout)[0])

    def compute_gradient(self, added: MetricSums) -> Floats:
        """(M,) derivatives by the sums."""
        if self.analytic_gradient:
            return self.analytic_gradient(added.total_column(), added.layout)
        return sufficient_sums.numeric_gradient(self.value_from_sums, added.total_column(), added.layout)

    @property
    def value_range(self) -> tuple[float, float]:
        """Bounds of the value: shares and agreements end at 1, losses begin at 0."""
        lowest = 0.0 if self.name not in ("mcc", "kappa") else -1.0
        return lowest, 1.0 if self.higher_is_better else float("inf")

    def undefined_reason(self, answers: LabelledProbabilities) -> str:
        """Why the metric cannot exist for these labels, or an empty string."""
        if not len(answers.labels):
            return "there are no predictions"
        if "ranks" in self.needs and (answers.support == 0).any():
            absent = int(np.flatnonzero(answers.support == 0)[0])
            return f"{self.title} needs every class among the labels; class {absent} is not among them"
        if self.compute_sums is sufficient_sums.top_k_sums and answers.n_classes <= sufficient_sums.TOP_K:
            return f"with {answers.n_classes} classes every answer is among the first {sufficient_sums.TOP_K}"
        return ""


@dataclass(frozen=True, eq=False)
class PerClassMetrics:
    """(C,) arrays, one entry a class; 0 where a share has no rows.

    accuracy is that of the question «this class or not», true negatives included; recall is the share of the class found.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    accuracy: Floats
    support: Ints


def get_metric(name: str) -> Metric:
    """Raises SpecError for an unknown name, with the nearest known one."""
    if name not in METRICS:
        hint = did_you_mean(name, METRICS) or f"; known are {join_words(METRICS, 30)}"
        raise SpecError(f"there is no metric '{name}'{hint}")
    return METRICS[name]


def compute_metrics(names: Iterable[str], labels: NDArray[Any], probabilities: NDArray[Any]) -> dict[str, float]:
    """name → value, NaN where undefined. labels (N,) int64, probabilities (N, C).

    Raises SpecError for an unknown name and DataError for arrays that do not fit.
    """
    return compute_metrics_checked(names, LabelledProbabilities.from_arrays(labels, probabilities))


def compute_metrics_checked(names: Iterable[str], answers: LabelledProbabilities) -> dict[str, float]:
    """The same of answers already checked; what several metrics are functions of is added up once."""
    shared: dict[Callable[[LabelledProbabilities], MetricSums], MetricSums] = {}
    values = {}
    for name in names:
        asked = get_metric(name)
        if asked.undefined_reason(answers):
            values[name] = float("nan")
            continue
        if asked.compute_sums not in shared:
            shared[asked.compute_sums] = asked.compute_sums(answers)
        values[name] = asked.compute_from_sums(shared[asked.compute_sums])
    return values


def compute_per_class(labels: NDArray[Any], probabilities: NDArray[Any]) -> PerClassMetrics:
    """Precision, recall, F1, accuracy and support of each class."""
    answers = LabelledProbabilities.from_arrays(labels, probabilities)
    right, actual, predicted = sufficient_sums.class_count_sums(answers).total_column()[:, 0].reshape(3, -1)
    n = max(len(answers.labels), 1)
    return PerClassMetrics(
        sufficient_sums.precision_per_class(right, actual, predicted),
        sufficient_sums.recall_per_class(right, actual, predicted),
        sufficient_sums.f1_per_class(right, actual, predicted),
        (n - actual - predicted + 2 * right) / n,
        answers.support,
    )


def compute_confusion_matrix(labels: NDArray[Any], probabilities: NDArray[Any]) -> Ints:
    """(C, C) counts: row the true class, column the likeliest."""
    answers = LabelledProbabilities.from_arrays(labels, probabilities)
    c = answers.n_classes
    return np.bincount(answers.labels * c + answers.predicted_labels, minlength=c * c).reshape(c, c)


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """(N, C) logits of any float type → (N, C) float64 probabilities, without overflow."""
    shifted = np.asarray(logits, dtype=np.float64) / temperature
    shifted = shifted - shifted.max(axis=1, keepdims=True, initial=-np.inf)
    np.exp(shifted, out=shifted)
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


_NEEDS_CLASSES: frozenset[MetricNeed] = frozenset({"every class"})
_NEEDS_PROBABILITIES: frozenset[MetricNeed] = frozenset({"probabilities"})
_NEEDS_RANKS: frozenset[MetricNeed] = frozenset({"probabilities", "every class", "ranks"})
_ALL_METRICS = [
    Metric("accuracy", "Accuracy", sufficient_sums.class_count_sums, sufficient_sums.accuracy_from_sums, percent=True),
    Metric(
        "top5_accuracy",
        "Top-5 accuracy",
        sufficient_sums.top_k_sums,
        sufficient_sums.mean_from_sums,
        percent=True,
        needs=_NEEDS_PROBABILITIES,
    ),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy",
        sufficient_sums.class_count_sums,
        sufficient_sums.balanced_accuracy_from_sums,
        percent=True,
        needs=_NEEDS_CLASSES,
    ),
    Metric(
        "macro_precision",
        "Macro precision",
        sufficient_sums.class_count_sums,
        sufficient_sums.macro_average(sufficient_sums.precision_per_class),
        percent=True,
        needs=_NEEDS_CLASSES,
    ),
    Metric(
        "macro_recall",
        "Macro recall",
        sufficient_sums.class_count_sums,
        sufficient_sums.macro_average(sufficient_sums.recall_per_class),
        percent=True,
        needs=_NEEDS_CLASSES,
    ),
    Metric(
        "macro_f1",
        "Macro F1",
        sufficient_sums.class_count_sums,
        sufficient_sums.macro_average(sufficient_sums.f1_per_class),
        percent=True,
        needs=_NEEDS_CLASSES,
    ),
    Metric(
        "weighted_precision",
        "Weighted precision",
        sufficient_sums.class_count_sums,
        sufficient_sums.weighted_average(sufficient_sums.precision_per_class),
        percent=True,
        needs=_NEEDS_CLASSES,
    ),
    Metric(
        "weighted_recall",
        "Weighted recall",
        sufficient_sums.class_count_sums,
        sufficient_sums.weighted_average(sufficient_sums.recall_per_class),
        percent=True,
        needs=_NEEDS_CLASSES,
    ),
    Metric(
        "weighted_f1",
        "Weighted F1",
        sufficient_sums.class_count_sums,
        sufficient_sums.weighted_average(sufficient_sums.f1_per_class),
        percent=True,
        needs=_NEEDS_CLASSES,
    ),
    Metric(
        "roc_auc",
        "ROC-AUC",
        ranking.roc_auc_sums,
        ranking.roc_auc_from_sums,
        needs=_NEEDS_RANKS,
        analytic_gradient=ranking.roc_auc_gradient,
    ),
    Metric(
        "average_precision",
        "Average precision",
        ranking.average_precision_sums,
        ranking.average_precision_from_sums,
        needs=_NEEDS_RANKS,
        analytic_gradient=ranking.average_precision_gradient,
    ),
    Metric(
        "log_loss",
        "Log-loss",
        sufficient_sums.log_loss_sums,
        sufficient_sums.mean_from_sums,
        higher_is_better=False,
        needs=_NEEDS_PROBABILITIES,
    ),
    Metric(
        "brier",
        "Brier score",
        sufficient_sums.brier_sums,
        sufficient_sums.mean_from_sums,
        higher_is_better=False,
        needs=_NEEDS_PROBABILITIES,
    ),
    Metric(
        "ece",
        "Calibration error",
        sufficient_sums.calibration_sums,
        sufficient_sums.calibration_error_from_sums,
        higher_is_better=False,
        needs=_NEEDS_PROBABILITIES,
    ),
    Metric(
        "mcc", "Matthews correlation", sufficient_sums.class_count_sums, sufficient_sums.matthews_from_sums, needs=_NEEDS_CLASSES
    ),
    Metric("kappa", "Cohen's kappa", sufficient_sums.class_count_sums, sufficient_sums.kappa_from_sums, needs=_NEEDS_CLASSES),
]
METRICS: dict[str, Metric] = {m.name: m for m in _ALL_METRICS}
