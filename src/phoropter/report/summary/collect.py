"""A results folder → StudySummary. Each predictions file is read once, one candidate at a time.

The few candidates whose curves are drawn are read a second time (`compute_roc_curves`, `fit_temperature_scaling`), which costs
less than ranking the scores of all candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import StoreError
from phoropter.core.files import digest, digest_array
from phoropter.report.summary.column_cache import ColumnCache
from phoropter.report.summary.model import (
    CandidateResults,
    ExternalTest,
    Floats,
    Ints,
    Mistake,
    RunSummary,
    StudySummary,
    TemperatureScaling,
    finite_std,
)
from phoropter.results.intervals.bootstrap import RESAMPLES, Bootstrap
from phoropter.results.intervals.bootstrap_intervals import bootstrap_interval
from phoropter.results.metrics import calibration
from phoropter.results.metrics.by_group import score_by_group
from phoropter.results.metrics.ranking import Ranking, mean_auc_of_rankings, rank_classes
from phoropter.results.metrics.registry import METRICS, compute_metrics_checked, metric_names, register_stored_metric, softmax
from phoropter.results.metrics.sufficient_sums import N_BINS, LabelledProbabilities, assign_bins
from phoropter.results.stats import compare
from phoropter.results.stats.no_information import value_without_information
from phoropter.results.store import Predictions, Run, Store

DEFAULT_METRICS = ("accuracy", "macro_f1", "log_loss", "ece")
# The area under the ROC curve sorts once per class and run: with more classes or scores, it is computed only on request.
MAX_RANKED_CLASSES, MAX_RANKED_SCORES = 20, 15_000_000
FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)  # where ROC curves of different runs are averaged
MAX_MISTAKES = 12
# Fewer resamples for many units halve the time and move the bounds by a twentieth of the interval.
MANY_UNITS, FEWER_RESAMPLES = 5000, 800

ReadProgress = Callable[[int, int], None]


def collect_summary(store: Store, progress: ReadProgress | None = None) -> StudySummary:
    """Reads a results folder. Raises StoreError when it holds no finished run, or a run with unreadable files."""
    study = store.study
    for described in study.get("custom_metrics", ()):
        register_stored_metric(described)
    planned: dict[str, list[Mapping[str, Any]]] = {}
    for item in study["plan"]:
        planned.setdefault(str(item["candidate"]), []).append(item)
    runs = [(name, store.run(str(i["key"]))) for name, items in planned.items() for i in items if str(i["key"]) in store]
    if not runs:
        failures = list(store.read_failures().values())
        failed = f" ({len(failures)} failed, the first with: {failures[0]['error']})" if failures else ""
        raise StoreError(
            f"{store.folder} holds no finished run of its plan of {len(study['plan'])}{failed}: run the study, then report"
        )
    classes = tuple(map(str, runs[0][1].record["classes"]))
    reader = _CandidateReader(_choose_metrics(study, len(classes)), classes, len(runs), progress)
    candidates, absent = [], []
    for name, items in planned.items():
        finished = [run for owner, run in runs if owner == name]
        if finished:
            candidates.append(reader.read_candidate(name, len(items), dict(items[0].get("settings") or {}), finished))
        else:
            absent.append(name)
    ranking = METRICS[reader.metrics[0]]
    candidates.sort(
        key=lambda e: (not e.is_complete, _leaderboard_key(e.metric_mean(ranking.name), ranking.higher_is_better), e.name)
    )
    return StudySummary(
        store.folder,
        study,
        candidates,
        reader.metrics,
        classes,
        reader.grouped,
        len(reader.known.seen),
        store.read_failures(),
        absent,
    )


def _leaderboard_key(value: float, higher_is_better: bool) -> float:
    return float("inf") if not np.isfinite(value) else -value if higher_is_better else value


def _choose_metrics(study: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    requested = metric_names((study.get("study") or {}).get("metrics") or ())
    scores = classes * sum(int(item.get("n_test") or 0) for item in study["plan"])
    ranked = ("roc_auc",) if classes <= MAX_RANKED_CLASSES and scores <= MAX_RANKED_SCORES else ()
    return tuple(m for m in dict.fromkeys([*requested, *DEFAULT_METRICS[:2], *ranked, *DEFAULT_METRICS[2:]]) if m in METRICS)


class _CandidateReader:
    """Reads candidates one by one and shares units and resamples between them."""

    def __init__(self, metrics: tuple[str, ...], classes: tuple[str, ...], total: int, progress: ReadProgress | None) -> None:
        self.metrics, self.classes = metrics, classes
        self.total, self.done, self.progress = total, 0, progress
        self.grouped = False
        self.known = ColumnCache()
        self._bootstrap: tuple[str, Bootstrap] | None = None

    def read_candidate(self, name: str, planned: int, settings: dict[str, Any], runs: list[Run]) -> CandidateResults:
        candidate = CandidateResults(name, planned, settings, confusion=np.zeros((len(self.classes),) * 2, dtype=np.int64))
        rows: list[tuple[Ints, Ints, Ints, Floats]] = []
        externals: list[Predictions] = []
        for number, run in enumerate(runs):
            predictions = self._read_predictions(run)
            labelled = LabelledProbabilities.from_arrays(predictions.labels, predictions.probabilities)
            external = run.load_predictions("external")
            externals += [external] if external else []
            candidate.runs.append(self._summarize_run(run, predictions, labelled, external))
            self._accumulate_run(candidate, run, predictions, labelled)
            rows.append(
                (
                    predictions.labels,
                    self._number_units(predictions),
                    np.full(len(predictions.labels), number),
                    labelled.probabilities,
                )
            )
            self.done += 1
            if self.progress:
                self.progress(self.done, self.total)
        labels, units, splits, probabilities = (np.concatenate(column) for column in zip(*rows, strict=True))
        bootstrap = self._shared_bootstrap(labels, units, splits)
        if not METRICS[self.metrics[0]].unavailable:
            candidate.replicates = bootstrap.compute_replicates(self.metrics[0], probabilities)
            candidate.no_information = value_without_information(self.metrics[0], labels, probabilities, splits)
        candidate.external_test = self._score_external_ensemble(externals) if externals else None
        return candidate

    def _read_predictions(self, run: Run) -> Predictions:
        predictions = run.load_predictions()
        if (
            predictions is None
            or predictions.logits.shape[1:] != (len(self.classes),)
            or len(predictions.labels) != len(predictions.logits)
        ):
            raise StoreError(f"{run.folder}/predictions.npz is missing or has not {len(self.classes)} classes: delete the folder")
        return predictions

    def _summarize_run(
        self, run: Run, predictions: Predictions, labelled: LabelledProbabilities, external: Predictions | None
    ) -> RunSummary:
        record = run.record
        part = record["split"]
        return RunSummary(
            run.key,
            (int(record["seed"]), int(part["repeat"]), int(part["fold"])),
            self.known.digest(predictions.ids),
            0 if predictions.groups is None else len(self.known.find_unique(predictions.groups)[0]),
            int(part["n_train"]) + int(part.get("n_validation") or 0),
            int(part["n_test"]),
            self._compute_scores(labelled) | self._stored_scores(record),
            self._compute_scores(LabelledProbabilities.from_arrays(external.labels, external.probabilities)) if external else {},
            {k: v for k, v in record["cost"].items() if v is not None},
            {k: v for k, v in record.items() if k not in ("classes", "metrics", "cost")},
        )

    def _score_external_ensemble(self, externals: list[Predictions]) -> ExternalTest:
        ensemble = compare.ensemble_predictions(externals)
        name, labels, probabilities = self.metrics[0], ensemble.labels, ensemble.probabilities
        interval = bootstrap_interval(name, labels, probabilities, ensemble.groups)
        by_site = [] if ensemble.sites is None else score_by_group(name, labels, probabilities, ensemble.sites)
        scores = self._compute_scores(LabelledProbabilities.from_arrays(labels, probabilities))
        return ExternalTest(len(labels), len(externals), scores, interval, {score.group: score.value for score in by_site})

    def _accumulate_run(
        self, candidate: CandidateResults, run: Run, predictions: Predictions, labelled: LabelledProbabilities
    ) -> None:
        """Adds the rows of one run to the sums of its candidate."""
        correct = labelled.predicted_labels == labelled.labels
        size = len(self.classes)
        candidate.confusion += np.bincount(labelled.labels * size + labelled.predicted_labels, minlength=size * size).reshape(
            size, size
        )
        confidence = labelled.probabilities.max(axis=1)
        candidate.confidence_bins += _bin_confidence(confidence, correct)
        if predictions.groups is not None:
            candidate.group_accuracy.add_rows(*self.known.find_unique(predictions.groups), correct)
        if predictions.sites is not None:
            candidate.site_accuracy.add_rows(*self.known.find_unique(predictions.sites), correct)
        candidate.mistakes = _keep_most_confident(
            [*candidate.mistakes, *_find_mistakes(run.key, predictions, labelled.predicted_labels, confidence)]
        )
        for row_name, values in _numeric_columns(run.history).items():
            candidate.history.setdefault(row_name, []).append(values)

    def _stored_scores(self, record: Mapping[str, Any]) -> dict[str, float]:
        """Of metrics that cannot be computed here: what the run recorded."""
        stored = {m: record["metrics"].get(m) for m in self.metrics if METRICS[m].unavailable}
        return {m: float("nan") if value is None else float(value) for m, value in stored.items()}

    def _compute_scores(self, labelled: LabelledProbabilities) -> dict[str, float]:
        return compute_metrics_checked(self.metrics, labelled)

    def _number_units(self, predictions: Predictions) -> Ints:
        """(n,) the number of each row's independent unit: its group, or the row itself."""
        self.grouped |= predictions.groups is not None
        return self.known.number_units(predictions.ids if predictions.groups is None else predictions.groups)

    def _shared_bootstrap(self, labels: Ints, units: Ints, splits: Ints) -> Bootstrap:
        """The same Bootstrap for all candidates that were tested on the same rows."""
        key = digest([digest_array(column) for column in (labels, units, splits)])
        if self._bootstrap is None or self._bootstrap[0] != key:
            many = len(self.known.seen) > MANY_UNITS
            bootstrap = Bootstrap(labels, units, splits, resamples=FEWER_RESAMPLES if many else RESAMPLES)
            if self._bootstrap is not None:
                return bootstrap
            self._bootstrap = (key, bootstrap)
        return self._bootstrap[1]


def _bin_confidence(confidence: Floats, correct: NDArray[np.bool_]) -> Floats:
    """(N_BINS, 3): rows, summed confidence, correct predictions."""
    member = assign_bins(confidence, N_BINS)
    weights = (None, confidence, correct.astype(np.float64))
    return np.stack([np.bincount(member, weights=w, minlength=N_BINS) for w in weights], axis=1).astype(np.float64)


def fit_temperature_scaling(store: Store, candidate: CandidateResults) -> TemperatureScaling | None:
    """None unless every run has inner validation rows."""
    temperatures, errors = [], []
    for line in candidate.runs:
        run = store.run(line.key)
        validation, predictions = run.load_predictions("validation"), run.load_predictions()
        if validation is None or predictions is None or not len(validation.labels):
            return None
        temperatures.append(calibration.fit_temperature(validation.labels, validation.logits))
        errors.append(
            METRICS["ece"].compute_value(
                LabelledProbabilities.from_arrays(predictions.labels, softmax(predictions.logits, temperatures[-1]))
            )
        )
    return TemperatureScaling(float(np.mean(temperatures)), finite_std(np.array(temperatures)), float(np.mean(errors)))


def compute_roc_curves(store: Store, candidate: CandidateResults) -> tuple[Floats, float]:
    """(J, 101) true positive rates at FALSE_POSITIVE_RATES, a row for each run in which every class occurs; and the mean area."""
    curves, areas = [], []
    for line in candidate.runs:
        predictions = store.run(line.key).load_predictions()
        if predictions is not None and len(np.unique(predictions.labels)) == predictions.logits.shape[1]:
            ranked = rank_classes(LabelledProbabilities.from_arrays(predictions.labels, predictions.probabilities))
            curves.append(_mean_roc_curve(ranked))
            areas.append(line.metrics["roc_auc"] if "roc_auc" in line.metrics else mean_auc_of_rankings(ranked))
    return np.array(curves).reshape(-1, len(FALSE_POSITIVE_RATES)), float(np.mean(areas)) if areas else float("nan")


def _mean_roc_curve(ranked: list[Ranking]) -> Floats:
    """(101,) one-vs-rest, averaged over classes."""
    curves = []
    for ranking in ranked:
        true_positives = np.concatenate([[0], np.cumsum(ranking.positives[::-1])])
        false_positives = np.concatenate([[0], np.cumsum(ranking.negatives[::-1])])
        curves.append(np.interp(FALSE_POSITIVE_RATES, false_positives / false_positives[-1], true_positives / true_positives[-1]))
    return np.asarray(np.mean(curves, axis=0))


def _find_mistakes(key: str, predictions: Predictions, predicted: Ints, confidence: Floats) -> list[Mistake]:
    wrong = np.flatnonzero(predicted != predictions.labels)
    sure = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_MISTAKES]
    return [
        Mistake(
            key,
            str(predictions.ids[i]),
            int(predictions.labels[i]),
            int(predicted[i]),
            float(confidence[i]),
            None if predictions.groups is None else str(predictions.groups[i]),
            None if predictions.spans is None else (float(predictions.spans[i][0]), float(predictions.spans[i][1])),
        )
        for i in sure
    ]


def _keep_most_confident(mistakes: list[Mistake]) -> list[Mistake]:
    """The most confident errors, each sample once."""
    best: dict[str, Mistake] = {}
    for m in sorted(mistakes, key=lambda m: (-m.confidence, m.id)):
        best.setdefault(m.id, m)
    return list(best.values())[:MAX_MISTAKES]


def _numeric_columns(history: list[dict[str, float | str]]) -> dict[str, Floats]:
    """Column → (epochs,) values; columns of text are left out."""
    names = [n for n in (history[0] if history else {}) if all(isinstance(row.get(n), float) for row in history)]
    return {n: np.array([row[n] for row in history], dtype=np.float64) for n in names}
