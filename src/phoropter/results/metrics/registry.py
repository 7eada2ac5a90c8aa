"""The metrics: (labels, probabilities) → numbers. Reports recompute them from stored predictions, so a new one needs no new run.

    >>> import numpy as np
    >>> compute_metrics(["accuracy", "macro_f1"], np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    {'accuracy': 0.6666666666666666, 'macro_f1': 0.6666666666666666}

Values and conventions are scikit-learn's (zero where precision, recall or F1 divide by zero; macro means over the classes that
occur), with three exceptions, each NaN (`undefined_reason` says why) where scikit-learn warns and returns a number: top-5
with five classes or fewer, average precision where a class is absent, and any metric of no rows.

Left out: thresholds other than the most likely class, and one-vs-one AUC; no report uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SpecError, did_you_mean, join_words
from phoropter.core.extensions import is_code_trusted, resolve_reference
from phoropter.results.metrics import ranking, sufficient_sums
from phoropter.results.metrics.custom import Metric, make_stored_record
from phoropter.results.metrics.metric_record import MetricNeed, MetricRecord
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities, MetricSums


def get_metric(metric: str | Metric) -> MetricRecord:
    """The record of a built-in or registered metric. Raises SpecError for an unknown name, with the nearest known one."""
    if isinstance(metric, Metric):
        return register_metric(metric)
    if metric not in METRICS:
        hint = did_you_mean(metric, METRICS) or f"; known are {join_words(METRICS, 30)}"
        raise SpecError(f"there is no metric '{metric}'{hint}")
    return METRICS[metric]


def register_metric(metric: Metric) -> MetricRecord:
    """Makes a user's metric known by its name, in place of an earlier one. Raises SpecError for a built-in name."""
    if metric.name in _BUILT_IN:
        raise SpecError(f"'{metric.name}' is a metric of phoropter: give yours another name")
    if _REGISTERED.get(metric.name) is not metric:
        _REGISTERED[metric.name], METRICS[metric.name] = metric, metric.to_record()
    return METRICS[metric.name]


def register_stored_metric(described: dict[str, Any]) -> MetricRecord:
    """Makes a metric that study.json describes (`Metric.describe`) known by its name.

    It is the metric itself where this process has it, or may import it because code is trusted, and its code is unchanged; else a
    record that only shows the values which the runs recorded.
    """
    name, version, reference = str(described["name"]), described["version"], described.get("reference")
    metric = _REGISTERED.get(name)
    reason = f"the code of the metric '{name}' (version {version}) is not at hand"
    if (metric is None or metric.version != version) and reference and is_code_trusted():
        try:
            metric = resolve_reference(str(reference), Metric)
        except ValueError as error:
            reason = f"{reason} ({error})"
    if metric is not None and metric.version == version:
        if metric.source_digest() == described.get("source_digest"):
            return register_metric(metric)
        reason = f"the code of the metric '{name}' (version {version}) has changed since the runs"
    _REGISTERED.pop(name, None)
    METRICS[name] = make_stored_record(described, reason)
    return METRICS[name]


def check_metrics(metrics: Iterable[str | Metric], n_classes: int) -> None:
    """Calls each of the user's own metrics on three rows a class, so that a mistake shows before anything is trained.

    Raises DataError for a metric that fails, or whose value is no number inside its range.
    """
    labels = np.tile(np.arange(n_classes), 3)
    favoured = np.where(np.arange(len(labels)) < 2 * n_classes, labels, 0)  # some right, some wrong
    probabilities = softmax(np.eye(n_classes)[favoured] * np.linspace(1, 2, len(labels))[:, None])
    predictions = LabelledProbabilities.from_arrays(labels, probabilities)
    for metric in metrics:
        if isinstance(metric, Metric):
            record = get_metric(metric)
            record.compute_from_sums(record.compute_sums(predictions)) if metric.mean_over_rows else record.compute_value(
                predictions
            )


def check_label_kind(metrics: Iterable[str | Metric], multi_label: bool) -> None:
    """Raises SpecError for a metric of rows with one class each where they may have several labels, or the reverse."""
    for metric in map(get_metric, metrics):
        if not metric.suits_rows(multi_label):
            known = list_metrics(multi_label)
            rows = "may have several labels" if multi_label else "have one class each"
            raise SpecError(f"the metric '{metric.name}' has no meaning where rows {rows}; choose among {join_words(known, 30)}")


def list_metrics(multi_label: bool = False) -> list[str]:
    """Names of the known metrics of rows with one class each, or of rows that may have several labels."""
    return [name for name, metric in METRICS.items() if metric.suits_rows(multi_label)]


def metric_names(metrics: Iterable[Any]) -> list[str]:
    """Names of metrics given as names, as Metric objects, or as study.json records these ({"name", "version"})."""
    return [m.name if isinstance(m, Metric) else str(m["name"]) if isinstance(m, Mapping) else str(m) for m in metrics]


def compute_metrics(names: Iterable[str | Metric], labels: NDArray[Any], probabilities: NDArray[Any]) -> dict[str, float]:
    """name → value, NaN where undefined. labels (N,) int64, probabilities (N, C).

    Raises SpecError for an unknown name and DataError for arrays that do not fit.
    """
    return compute_metrics_checked(names, LabelledProbabilities.from_arrays(labels, probabilities))


def compute_metrics_checked(names: Iterable[str | Metric], predictions: LabelledProbabilities) -> dict[str, float]:
    """The same for arrays already checked; sums that several metrics share are computed once."""
    shared: dict[Callable[[LabelledProbabilities], MetricSums], MetricSums] = {}
    values = {}
    for metric in map(get_metric, names):
        if metric.direct_value or metric.undefined_reason(predictions):
            values[metric.name] = metric.compute_value(predictions)
            continue
        if metric.compute_sums not in shared:
            shared[metric.compute_sums] = metric.compute_sums(predictions)
        values[metric.name] = metric.compute_from_sums(shared[metric.compute_sums])
    return values


_NEEDS_CLASSES: frozenset[MetricNeed] = frozenset({"every class"})
_NEEDS_PROBABILITIES: frozenset[MetricNeed] = frozenset({"probabilities"})
_NEEDS_RANKS: frozenset[MetricNeed] = frozenset({"probabilities", "every class", "ranks"})
_MANY_RAREST = 50  # of 10 rows of a class that is a tenth, average precision is 5 points too high, Matthews correlation 5 too low
_ALL_METRICS = [
    MetricRecord(
        "accuracy",
        "Accuracy",
        sufficient_sums.class_count_sums,
        sufficient_sums.accuracy_from_sums,
        percent=True,
        interval="proportion",
        mean_over_rows=True,
    ),
    MetricRecord(
        "top5_accuracy",
        "Top-5 accuracy",
        sufficient_sums.top_k_sums,
        sufficient_sums.mean_from_sums,
        percent=True,
        needs=_NEEDS_PROBABILITIES,
        interval="proportion",
        mean_over_rows=True,
    ),
    MetricRecord(
        "balanced_accuracy",
        "Balanced accuracy",
        sufficient_sums.class_count_sums,
        sufficient_sums.balanced_accuracy_from_sums,
        percent=True,
        needs=_NEEDS_CLASSES,
    ),
    MetricRecord(
        "macro_precision",
        "Macro precision",
        sufficient_sums.class_count_sums,
        sufficient_sums.macro_average(sufficient_sums.precision_per_class),
        percent=True,
        needs=_NEEDS_CLASSES,
        label_kind="both",
    ),
    MetricRecord(
        "macro_recall",
        "Macro recall",
        sufficient_sums.class_count_sums,
        sufficient_sums.macro_average(sufficient_sums.recall_per_class),
        percent=True,
        needs=_NEEDS_CLASSES,
        label_kind="both",
    ),
    MetricRecord(
        "macro_f1",
        "Macro F1",
        sufficient_sums.class_count_sums,
        sufficient_sums.macro_average(sufficient_sums.f1_per_class),
        percent=True,
        needs=_NEEDS_CLASSES,
        label_kind="both",
    ),
    MetricRecord(
        "weighted_precision",
        "Weighted precision",
        sufficient_sums.class_count_sums,
        sufficient_sums.weighted_average(sufficient_sums.precision_per_class),
        percent=True,
        needs=_NEEDS_CLASSES,
    ),
    MetricRecord(
        "weighted_recall",
        "Weighted recall",
        sufficient_sums.class_count_sums,
        sufficient_sums.weighted_average(sufficient_sums.recall_per_class),
        percent=True,
        mean_over_rows=True,
        needs=_NEEDS_CLASSES,
    ),
    MetricRecord(
        "weighted_f1",
        "Weighted F1",
        sufficient_sums.class_count_sums,
        sufficient_sums.weighted_average(sufficient_sums.f1_per_class),
        percent=True,
        needs=_NEEDS_CLASSES,
    ),
    MetricRecord(
        "roc_auc",
        "ROC-AUC",
        ranking.roc_auc_sums,
        ranking.roc_auc_from_sums,
        needs=_NEEDS_RANKS,
        is_proper_name=True,
        analytic_gradient=ranking.roc_auc_gradient,
        chance=0.5,
        interval="delong",
        label_kind="both",
    ),
    MetricRecord(
        "average_precision",
        "Average precision",
        ranking.average_precision_sums,
        ranking.average_precision_from_sums,
        needs=_NEEDS_RANKS,
        analytic_gradient=ranking.average_precision_gradient,
        min_rarest=_MANY_RAREST,
        label_kind="both",
    ),
    MetricRecord(
        "log_loss",
        "Log-loss",
        sufficient_sums.log_loss_sums,
        sufficient_sums.mean_from_sums,
        higher_is_better=False,
        mean_over_rows=True,
        needs=_NEEDS_PROBABILITIES,
        label_kind="both",
    ),
    MetricRecord(
        "brier",
        "Brier score",
        sufficient_sums.brier_sums,
        sufficient_sums.mean_from_sums,
        higher_is_better=False,
        mean_over_rows=True,
        is_proper_name=True,
        needs=_NEEDS_PROBABILITIES,
        label_kind="both",
    ),
    MetricRecord(
        "ece",
        "Calibration error",
        sufficient_sums.calibration_sums,
        sufficient_sums.calibration_error_from_sums,
        higher_is_better=False,
        needs=_NEEDS_PROBABILITIES,
        label_kind="both",
    ),
    MetricRecord(
        "mcc",
        "Matthews correlation",
        sufficient_sums.class_count_sums,
        sufficient_sums.matthews_from_sums,
        min_rarest=_MANY_RAREST,
        needs=_NEEDS_CLASSES,
        lowest=-1.0,
        chance=0.0,
        is_proper_name=True,
    ),
    MetricRecord(
        "kappa",
        "Cohen's kappa",
        sufficient_sums.class_count_sums,
        sufficient_sums.kappa_from_sums,
        needs=_NEEDS_CLASSES,
        lowest=-1.0,
        chance=0.0,
        is_proper_name=True,
    ),
    MetricRecord(
        "micro_f1",
        "Micro F1",
        sufficient_sums.class_count_sums,
        sufficient_sums.micro_f1_from_sums,
        percent=True,
        label_kind="several",
    ),
    MetricRecord(
        "micro_roc_auc",
        "Micro ROC-AUC",
        ranking.micro_roc_auc_sums,
        ranking.roc_auc_from_sums,
        needs=_NEEDS_PROBABILITIES,
        analytic_gradient=ranking.roc_auc_gradient,
        label_kind="several",
    ),
    MetricRecord(
        "micro_average_precision",
        "Micro average precision",
        ranking.micro_average_precision_sums,
        ranking.average_precision_from_sums,
        needs=_NEEDS_PROBABILITIES,
        analytic_gradient=ranking.average_precision_gradient,
        min_rarest=_MANY_RAREST,
        label_kind="several",
    ),
    MetricRecord(
        "hamming_loss",
        "Hamming loss",
        sufficient_sums.hamming_sums,
        sufficient_sums.mean_from_sums,
        higher_is_better=False,
        highest=1.0,
        mean_over_rows=True,
        is_proper_name=True,
        label_kind="several",
    ),
    MetricRecord(
        "exact_match",
        "Exact match",
        sufficient_sums.exact_match_sums,
        sufficient_sums.mean_from_sums,
        percent=True,
        interval="proportion",
        mean_over_rows=True,
        label_kind="several",
    ),
]
_BUILT_IN: dict[str, MetricRecord] = {m.name: m for m in _ALL_METRICS}
_REGISTERED: dict[str, Metric] = {}  # by the name, the last one given
METRICS: dict[str, MetricRecord] = dict(_BUILT_IN)
