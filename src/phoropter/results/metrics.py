"""(labels, probabilities) → numbers. A new metric needs no new run: everything is recomputed from the stored predictions.

    >>> import numpy as np
    >>> score(["accuracy", "macro_f1"], np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    {'accuracy': 0.6666666666666666, 'macro_f1': 0.6666666666666666}

Values and conventions are scikit-learn's (zero where precision, recall or F1 divide by zero; macro means over the classes that
occur), with three exceptions, each NaN with a reason from `why_undefined` where scikit-learn warns and returns a number: top-5
with five classes or fewer, average precision where a class is absent, and any metric of no rows.

Left out: thresholds other than the likeliest class, and one-vs-one AUC; nothing in the reports reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SpecError, listing, nearest
from phoropter.results import rankings, sums
from phoropter.results.sums import Answers, Floats, Ints, Layout, OfSums, Sums

Need = Literal["probabilities", "every class", "ranks"]


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
    rows: Callable[[Answers], Sums]
    value: OfSums
    higher_is_better: bool = True
    percent: bool = False
    needs: frozenset[Need] = frozenset()
    slope: Callable[[Floats, Layout], Floats] | None = None

    def of(self, answers: Answers) -> float:
        """The value, NaN where it is undefined."""
        return float("nan") if self.missing(answers) else self.of_sums(self.rows(answers))

    def of_sums(self, added: Sums) -> float:
        return float(self.value(added.total(), added.layout)[0])

    def gradient(self, added: Sums) -> Floats:
        """(M,) derivatives by the sums."""
        if self.slope:
            return self.slope(added.total(), added.layout)
        return sums.numeric_gradient(self.value, added.total(), added.layout)

    @property
    def limits(self) -> tuple[float, float]:
        """Bounds of the value: shares and agreements end at 1, losses begin at 0."""
        lowest = 0.0 if self.name not in ("mcc", "kappa") else -1.0
        return lowest, 1.0 if self.higher_is_better else float("inf")

    def missing(self, answers: Answers) -> str:
        """Why the metric cannot exist for these labels, or an empty string."""
        if not len(answers.labels):
            return "there are no predictions"
        if "ranks" in self.needs and (answers.support == 0).any():
            absent = int(np.flatnonzero(answers.support == 0)[0])
            return f"{self.title} needs every class among the labels; class {absent} is not among them"
        if self.rows is sums.top_hits and answers.classes <= sums.TOP:
            return f"with {answers.classes} classes every answer is among the first {sums.TOP}"
        return ""


@dataclass(frozen=True, eq=False)
class PerClass:
    """(C,) arrays, one entry a class; 0 where a share has no rows.

    accuracy is that of the question «this class or not», true negatives included; recall is the share of the class found.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    accuracy: Floats
    support: Ints


def metric(name: str) -> Metric:
    """Raises SpecError for an unknown name, with the nearest known one."""
    if name not in METRICS:
        hint = nearest(name, METRICS) or f"; known are {listing(METRICS, 30)}"
        raise SpecError(f"there is no metric '{name}'{hint}")
    return METRICS[name]


def score(names: Iterable[str], labels: NDArray[Any], probabilities: NDArray[Any]) -> dict[str, float]:
    """name → value, NaN where undefined. labels (N,) int64, probabilities (N, C).

    Raises SpecError for an unknown name and DataError for arrays that do not fit.
    """
    return score_all(names, Answers.checked(labels, probabilities))


def score_all(names: Iterable[str], answers: Answers) -> dict[str, float]:
    """The same of answers already checked; what several metrics are functions of is added up once."""
    shared: dict[Callable[[Answers], Sums], Sums] = {}
    values = {}
    for name in names:
        asked = metric(name)
        if asked.missing(answers):
            values[name] = float("nan")
            continue
        if asked.rows not in shared:
            shared[asked.rows] = asked.rows(answers)
        values[name] = asked.of_sums(shared[asked.rows])
    return values


def why_undefined(name: str, labels: NDArray[Any], probabilities: NDArray[Any]) -> str:
    """The reason of a NaN in `score`, as a clause; an empty string where the metric is defined."""
    asked, answers = metric(name), Answers.checked(labels, probabilities)
    reason = asked.missing(answers)
    if reason or not np.isnan(asked.of(answers)):
        return reason
    return f"{asked.title} is 0/0: labels and predictions are all of one class"


def per_class(labels: NDArray[Any], probabilities: NDArray[Any]) -> PerClass:
    """Precision, recall, F1, accuracy and support of each class."""
    answers = Answers.checked(labels, probabilities)
    right, actual, predicted = sums.counts(answers).total()[:, 0].reshape(3, -1)
    n = max(len(answers.labels), 1)
    return PerClass(
        sums.precision(right, actual, predicted),
        sums.recall(right, actual, predicted),
        sums.f1(right, actual, predicted),
        (n - actual - predicted + 2 * right) / n,
        answers.support,
    )


def confusion(labels: NDArray[Any], probabilities: NDArray[Any]) -> Ints:
    """(C, C) counts: row the true class, column the likeliest."""
    answers = Answers.checked(labels, probabilities)
    c = answers.classes
    return np.bincount(answers.labels * c + answers.predicted, minlength=c * c).reshape(c, c)


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """(N, C) logits of any float type → (N, C) float64 probabilities, without overflow."""
    shifted = np.asarray(logits, dtype=np.float64) / temperature
    shifted = shifted - shifted.max(axis=1, keepdims=True, initial=-np.inf)
    np.exp(shifted, out=shifted)
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


_COUNTED: frozenset[Need] = frozenset({"every class"})
_SCORED: frozenset[Need] = frozenset({"probabilities"})
_RANKED: frozenset[Need] = frozenset({"probabilities", "every class", "ranks"})
_ALL = [
    Metric("accuracy", "Accuracy", sums.counts, sums.accuracy, percent=True),
    Metric("top5_accuracy", "Top-5 accuracy", sums.top_hits, sums.mean, percent=True, needs=_SCORED),
    Metric("balanced_accuracy", "Balanced accuracy", sums.counts, sums.balanced_accuracy, percent=True, needs=_COUNTED),
    Metric("macro_precision", "Macro precision", sums.counts, sums.macro(sums.precision), percent=True, needs=_COUNTED),
    Metric("macro_recall", "Macro recall", sums.counts, sums.macro(sums.recall), percent=True, needs=_COUNTED),
    Metric("macro_f1", "Macro F1", sums.counts, sums.macro(sums.f1), percent=True, needs=_COUNTED),
    Metric("weighted_precision", "Weighted precision", sums.counts, sums.weighted(sums.precision), percent=True, needs=_COUNTED),
    Metric("weighted_recall", "Weighted recall", sums.counts, sums.weighted(sums.recall), percent=True, needs=_COUNTED),
    Metric("weighted_f1", "Weighted F1", sums.counts, sums.weighted(sums.f1), percent=True, needs=_COUNTED),
    Metric("roc_auc", "ROC-AUC", rankings.roc_slots, rankings.roc_auc, needs=_RANKED, slope=rankings.roc_auc_gradient),
    Metric(
        "average_precision",
        "Average precision",
        rankings.precision_slots,
        rankings.average_precision,
        needs=_RANKED,
        slope=rankings.average_precision_gradient,
    ),
    Metric("log_loss", "Log-loss", sums.log_losses, sums.mean, higher_is_better=False, needs=_SCORED),
    Metric("brier", "Brier score", sums.squared_errors, sums.mean, higher_is_better=False, needs=_SCORED),
    Metric("ece", "Calibration error", sums.calibration_gaps, sums.calibration_error, higher_is_better=False, needs=_SCORED),
    Metric("mcc", "Matthews correlation", sums.counts, sums.matthews, needs=_COUNTED),
    Metric("kappa", "Cohen's kappa", sums.counts, sums.kappa, needs=_COUNTED),
]
METRICS: dict[str, Metric] = {m.name: m for m in _ALL}
