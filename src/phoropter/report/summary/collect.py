"""From a results folder to the summary: each predictions file is read once, a candidate at a time.

The few candidates whose curves are drawn are looked at a second time (`roc`, `calibrated`), which is cheaper than sorting the
scores of all.
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
from phoropter.results.metrics import calibration
from phoropter.results.metrics.by_group import score_by_group
from phoropter.results.metrics.ranking import Ranking, mean_auc_of_rankings, rank_classes
from phoropter.results.metrics.registry import METRICS, compute_metrics_checked, metric_names, register_stored_metric, softmax
from phoropter.results.metrics.sufficient_sums import N_BINS, LabelledProbabilities, assign_bins
from phoropter.results.stats import compare, intervals
from phoropter.results.stats.bootstrap import RESAMPLES, Bootstrap
from phoropter.results.store import Predictions, Run, Store

DEFAULT_METRICS = ("accuracy", "macro_f1", "log_loss", "ece")
MAX_RANKED_CLASSES, MAX_RANKED_SCORES = (
    20,
    15_000_000,
)  # areas under ROC curves cost a sort per class and run: past these only on request
FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)  # where ROC curves of different runs are averaged
MAX_MISTAKES = 12
MANY_UNITS, FEWER_RESAMPLES = (
    5000,
    800,
)  # resamples of so many units: the bounds then move by a twentieth of the width, for half the time

ReadProgress = Callable[[int, int], None]


def collect_summary(store: Store, progress: ReadProgress | None = None) -> StudySummary:
    """Reads a results folder. Raises StoreError when it holds no finished run, or one that is not what it should be."""
    study = store.study
    for described in study.get("custom_metrics", ()):
        register_stored_metric(described)
    planned: dict[str, list[Mapping[str, Any]]] = {}
    for item in study["plan"]:
        planned.setdefault(str(item["candidate"]), []).append(item)
    runs = [(name, store.run(str(i["key"]))) for name, items in planned.items() for i in items if str(i["key"]) in store]
    if not runs:
        raise StoreError(f"{store.folder} holds no finished run of its plan of {len(study['plan'])}: run the study, then report")
    classes = tuple(map(str, runs[0][1].record["classes"]))
    reader = _CandidateReader(_choose_metrics(study, len(classes)), classes, len(runs), progress)
    candidates, absent = [], []
    for name, items in planned.items():
        finished = [run for owner, run in runs if owner == name]
        if finished:
            candidates.append(reader.read_candidate(name, len(items), dict(items[0].get("settings") or {}), finished))
        else:
            absent.append(name)
    asked = METRICS[reader.metrics[0]]
    candidates.sort(
        key=lambda e: (not e.is_complete, _leaderboard_key(e.metric_mean(asked.name), asked.higher_is_better), e.name)
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
    asked = metric_names((study.get("study") or {}).get("metrics") or ())
    scores = classes * sum(int(item.get("n_test") or 0) for item in study["plan"])
    ranked = ("roc_auc",) if classes <= MAX_RANKED_CLASSES and scores <= MAX_RANKED_SCORES else ()
    return tuple(m for m in dict.fromkeys([*asked, *DEFAULT_METRICS[:2], *ranked, *DEFAULT_METRICS[2:]]) if m in METRICS)


class _CandidateReader:
    """Reads candidate after candidate; what they share (units, resamples) is made once."""

    def __init__(self, metrics: tuple[str, ...], classes: tuple[str, ...], total: int, progress: ReadProgress | None) -> None:
        self.metrics, self.classes = metrics, classes
        self.total, self.done, self.progress = total, 0, progress
        self.grouped = False
        self.known = ColumnCache()
        self._bootstrap: tuple[str, Bootstrap] | None = None

    def read_candidate(self, name: str, planned: int, settings: dict[str, Any], runs: list[Run]) -> CandidateResults:
        candidate = CandidateResults(name, planned, settings, confusion=np.zeros((len(self.classes),) * 2, dtype=np.int64))
        rows: list[tuple[Ints, Ints, Ints, Floats]] = []
        outside: list[Predictions] = []
        for number, run in enumerate(runs):
            said = self._read_predictions(run)
            answers = LabelledProbabilities.from_arrays(said.labels, said.probabilities)
            external = run.load_predictions("external")
            outside += [external] if external else []
            candidate.runs.append(self._summarize_run(run, said, answers, external))
            self._accumulate_run(candidate, run, said, answers)
            rows.append((said.labels, self._number_units(said), np.full(len(said.labels), number), answers.probabilities))
            self.done += 1
            if self.progress:
                self.progress(self.done, self.total)
        labels, units, splits, probabilities = (np.concatenate(column) for column in zip(*rows, strict=True))
        bootstrap = self._shared_bootstrap(labels, units, splits)
        if not METRICS[self.metrics[0]].unavailable:
            candidate.replicates = bootstrap.compute_replicates(self.metrics[0], probabilities)
        candidate.external_test = self._score_external_ensemble(outside) if outside else None
        return candidate

    def _read_predictions(self, run: Run) -> Predictions:
        said = run.load_predictions()
        if said is None or said.logits.shape[1:] != (len(self.classes),) or len(said.labels) != len(said.logits):
            raise StoreError(f"{run.folder}/predictions.npz is missing or has not {len(self.classes)} classes: delete the folder")
        return said

    def _summarize_run(
        self, run: Run, said: Predictions, answers: LabelledProbabilities, external: Predictions | None
    ) -> RunSummary:
        record = run.record
        part = record["split"]
        return RunSummary(
            run.key,
            (int(record["seed"]), int(part["repeat"]), int(part["fold"])),
            self.known.digest(said.ids),
            0 if said.groups is None else len(self.known.find_unique(said.groups)[0]),
            int(part["n_train"]) + int(part.get("n_validation") or 0),
            int(part["n_test"]),
            self._compute_scores(answers) | self._stored_scores(record),
            self._compute_scores(LabelledProbabilities.from_arrays(external.labels, external.probabilities)) if external else {},
            {k: v for k, v in record["cost"].items() if v is not None},
            {k: v for k, v in record.items() if k not in ("classes", "metrics", "cost")},
        )

    def _score_external_ensemble(self, outside: list[Predictions]) -> ExternalTest:
        together = compare.ensemble_predictions(outside)
        name, labels, probabilities = self.metrics[0], together.labels, together.probabilities
        found = intervals.bootstrap_interval(name, labels, probabilities, together.groups)
        each = [] if together.sites is None else score_by_group(name, labels, probabilities, together.sites)
        scores = self._compute_scores(LabelledProbabilities.from_arrays(labels, probabilities))
        return ExternalTest(len(labels), len(outside), scores, found, {score.group: score.value for score in each})

    def _accumulate_run(self, candidate: CandidateResults, run: Run, said: Predictions, answers: LabelledProbabilities) -> None:
        """One run's rows into the sums of its candidate."""
        right = answers.predicted_labels == answers.labels
        size = len(self.classes)
        candidate.confusion += np.bincount(answers.labels * size + answers.predicted_labels, minlength=size * size).reshape(
            size, size
        )
        confidence = answers.probabilities.max(axis=1)
        candidate.confidence_bins += _bin_confidence(confidence, right)
        if said.groups is not None:
            candidate.group_accuracy.add_rows(*self.known.find_unique(said.groups), right)
        if said.sites is not None:
            candidate.site_accuracy.add_rows(*self.known.find_unique(said.sites), right)
        candidate.mistakes = _keep_most_confident(
            [*candidate.mistakes, *_find_mistakes(run.key, said, answers.predicted_labels, confidence)]
        )
        for row_name, values in _numeric_columns(run.history).items():
            candidate.history.setdefault(row_name, []).append(values)

    def _stored_scores(self, record: Mapping[str, Any]) -> dict[str, float]:
        """Of metrics that cannot be computed here: what the run recorded."""
        stored = {m: record["metrics"].get(m) for m in self.metrics if METRICS[m].unavailable}
        return {m: float("nan") if value is None else float(value) for m, value in stored.items()}

    def _compute_scores(self, answers: LabelledProbabilities) -> dict[str, float]:
        return compute_metrics_checked(self.metrics, answers)

    def _number_units(self, said: Predictions) -> Ints:
        """(n,) the number of each row's independent unit."""
        self.grouped |= said.groups is not None
        return self.known.number_units(said.ids if said.groups is None else said.groups)

    def _shared_bootstrap(self, labels: Ints, units: Ints, splits: Ints) -> Bootstrap:
        """One Bootstrap for all candidates that were tested on the same rows."""
        key = digest([digest_array(column) for column in (labels, units, splits)])
        if self._bootstrap is None or self._bootstrap[0] != key:
            many = len(self.known.seen) > MANY_UNITS
            made = Bootstrap(labels, units, splits, resamples=FEWER_RESAMPLES if many else RESAMPLES)
            if self._bootstrap is not None:
                return made
            self._bootstrap = (key, made)
        return self._bootstrap[1]


def _bin_confidence(confidence: Floats, right: NDArray[np.bool_]) -> Floats:
    """(BINS, 3): rows, summed confidence, right answers."""
    member = assign_bins(confidence, N_BINS)
    weights = (None, confidence, right.astype(np.float64))
    return np.stack([np.bincount(member, weights=w, minlength=N_BINS) for w in weights], axis=1).astype(np.float64)


def fit_temperature_scaling(store: Store, candidate: CandidateResults) -> TemperatureScaling | None:
    """None unless every run set inner validation rows aside."""
    fitted, left = [], []
    for line in candidate.runs:
        run = store.run(line.key)
        aside, said = run.load_predictions("validation"), run.load_predictions()
        if aside is None or said is None or not len(aside.labels):
            return None
        fitted.append(calibration.fit_temperature(aside.labels, aside.logits))
        left.append(
            METRICS["ece"].compute_value(LabelledProbabilities.from_arrays(said.labels, softmax(said.logits, fitted[-1])))
        )
    return TemperatureScaling(float(np.mean(fitted)), finite_std(np.array(fitted)), float(np.mean(left)))


def compute_roc_curves(store: Store, candidate: CandidateResults) -> tuple[Floats, float]:
    """(J, 101) share found at each of FALSE_ALARMS, a row a run in which every class occurs; and their mean area."""
    curves, areas = [], []
    for line in candidate.runs:
        said = store.run(line.key).load_predictions()
        if said is not None and len(np.unique(said.labels)) == said.logits.shape[1]:
            ranked = rank_classes(LabelledProbabilities.from_arrays(said.labels, said.probabilities))
            curves.append(_mean_roc_curve(ranked))
            areas.append(line.metrics["roc_auc"] if "roc_auc" in line.metrics else mean_auc_of_rankings(ranked))
    return np.array(curves).reshape(-1, len(FALSE_POSITIVE_RATES)), float(np.mean(areas)) if areas else float("nan")


def _mean_roc_curve(ranked: list[Ranking]) -> Floats:
    """(101,) averaged over the rankings, each class against the rest."""
    curves = []
    for ranking in ranked:
        found = np.concatenate([[0], np.cumsum(ranking.positives[::-1])])
        alarms = np.concatenate([[0], np.cumsum(ranking.negatives[::-1])])
        curves.append(np.interp(FALSE_POSITIVE_RATES, alarms / alarms[-1], found / found[-1]))
    return np.asarray(np.mean(curves, axis=0))


def _find_mistakes(key: str, said: Predictions, answered: Ints, confidence: Floats) -> list[Mistake]:
    wrong = np.flatnonzero(answered != said.labels)
    sure = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_MISTAKES]
    return [
        Mistake(
            key,
            str(said.ids[i]),
            int(said.labels[i]),
            int(answered[i]),
            float(confidence[i]),
            None if said.groups is None else str(said.groups[i]),
            None if said.spans is None else (float(said.spans[i][0]), float(said.spans[i][1])),
        )
        for i in sure
    ]


def _keep_most_confident(mistakes: list[Mistake]) -> list[Mistake]:
    """The most confident ones, each sample once."""
    best: dict[str, Mistake] = {}
    for m in sorted(mistakes, key=lambda m: (-m.confidence, m.id)):
        best.setdefault(m.id, m)
    return list(best.values())[:MAX_MISTAKES]


def _numeric_columns(history: list[dict[str, float | str]]) -> dict[str, Floats]:
    """Column → (epochs,) of numbers; columns of words are left out."""
    names = [n for n in (history[0] if history else {}) if all(isinstance(row.get(n), float) for row in history)]
    return {n: np.array([row[n] for row in history], dtype=np.float64) for n in names}
