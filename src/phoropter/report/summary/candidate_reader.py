"""The runs of one candidate → CandidateResults. Each predictions file is read once; only one candidate's rows are held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from phoropter.core.errors import StoreError
from phoropter.core.files import digest, digest_array
from phoropter.report.summary.column_cache import ColumnCache
from phoropter.report.summary.model import CandidateResults, ExampleAnswer, ExternalTest, RunSummary, finite_mean, finite_std
from phoropter.report.summary.unit_scores import score_units
from phoropter.results.clinical.calibration_line import estimate_calibration_line
from phoropter.results.intervals.bootstrap import RESAMPLES, Bootstrap
from phoropter.results.intervals.bootstrap_intervals import bootstrap_interval
from phoropter.results.judged_answers import find_confused_rows
from phoropter.results.metrics.by_group import score_by_group
from phoropter.results.metrics.registry import METRICS, compute_metrics_checked
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities
from phoropter.results.stats import compare
from phoropter.results.stats.calibration_error import estimate_calibration_error
from phoropter.results.stats.estimand import Estimand, compute_values
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.stats.no_information import value_without_information
from phoropter.results.stats.pairs.unit_contributions import ContributionReader, SplitKey, UnitContributions
from phoropter.results.store import Predictions

MAX_EXAMPLES = 12  # wrong answers of a candidate that are kept, and right ones
MAX_PAIRS, MAX_OF_PAIR = 6, 3  # confusions of a run whose surest answers are kept, and how many of each
# Fewer resamples for many units halve the time and move the bounds by a twentieth of the interval.
MANY_UNITS, FEWER_RESAMPLES = 5000, 800

ReadProgress = Callable[[int, int], None]


class ReadableRun(Protocol):
    """What is read of a finished run: `store.Run`, or the baseline in its place."""

    @property
    def key(self) -> str: ...
    @property
    def folder(self) -> object: ...
    @property
    def record(self) -> Mapping[str, Any]: ...
    @property
    def history(self) -> list[dict[str, float | str]]: ...

    def load_predictions(self, part: str = "predictions") -> Predictions | None: ...


@dataclass(frozen=True, eq=False)
class _RunRows:
    """The predictions of a run with the numbers of their units and of their round."""

    predictions: Predictions
    units: Ints
    repeat: tuple[int, int]


class SharedBootstrap:
    """One Bootstrap for candidates that follow one another and were tested on the same rows."""

    def __init__(self) -> None:
        self._kept: tuple[str, Bootstrap] | None = None

    def find_or_make(self, estimand: Estimand, rows: HeldOutRows, n_units: int) -> Bootstrap:
        """n_units: of the study, by which the number of resamples is chosen"""
        parts = estimand.part_numbers(rows)
        columns = (rows.labels, rows.unit_names, np.zeros(0) if parts is None else parts)
        key = digest([digest_array(column) for column in columns])
        if self._kept is None or self._kept[0] != key:
            resamples = FEWER_RESAMPLES if n_units > MANY_UNITS else RESAMPLES
            self._kept = (key, estimand.make_bootstrap(rows, resamples=resamples))
        return self._kept[1]


class CandidateReader:
    """Reads candidates one by one and shares units and resamples between them. total: runs to be read, for the progress

    contributions: reads what units contribute to the pairs, where pairs are compared
    """

    def __init__(
        self, estimands: Mapping[str, Estimand], classes: tuple[str, ...], total: int, progress: ReadProgress | None
    ) -> None:
        self.estimands, self.metrics, self.classes = estimands, tuple(estimands), classes
        self.total, self.done, self.progress = total, 0, progress
        self.grouped = False
        self.contributions: ContributionReader | None = None
        self.known, self._sites = ColumnCache(), ColumnCache()
        self._bootstrap = SharedBootstrap()

    def restricted_to(self, names: Iterable[str]) -> CandidateReader:
        """A reader of some of the metrics, with the units and resamples of this one; it reports no progress."""
        other = copy(self)
        other.estimands = {name: self.estimands[name] for name in names}
        other.metrics, other.progress, other.contributions = tuple(other.estimands), None, None
        return other

    def read_candidate(
        self, name: str, planned: int, settings: dict[str, Any], runs: Sequence[ReadableRun]
    ) -> tuple[CandidateResults, UnitContributions | None]:
        """Its figures, and where pairs are compared, what its units contribute: both while its rows are held.

        Raises StoreError for a run with unreadable files.
        """
        candidate = CandidateResults(name, planned, settings, confusion=np.zeros((len(self.classes),) * 2, dtype=np.int64))
        read: list[_RunRows] = []
        externals: list[Predictions] = []
        for run in runs:
            predictions = read_checked_predictions(run, len(self.classes))
            external = run.load_predictions("external")
            externals += [external] if external else []
            line = self._summarize_run(run, predictions, external)
            candidate.runs.append(line)
            self._accumulate_run(candidate, run, predictions)
            read.append(_RunRows(predictions, self._number_units(predictions), line.split[:2]))
            self.done += 1
            if self.progress:
                self.progress(self.done, self.total)
        rows = _join_rows(read)
        self._estimate_values(candidate, rows)
        self._describe_rows(candidate, rows, [r.predictions for r in read])
        candidate.external_test = self._score_external_ensemble(externals) if externals else None
        return candidate, self._read_contributions(candidate, [r.predictions for r in read])

    def _read_contributions(self, candidate: CandidateResults, read: Sequence[Predictions]) -> UnitContributions | None:
        if self.contributions is None:
            return None
        predictions = {tested_rows(line): of_run for line, of_run in zip(candidate.runs, read, strict=True)}
        return self.contributions.read_candidate(predictions, {key: key[1] for key in predictions})

    def _summarize_run(self, run: ReadableRun, predictions: Predictions, external: Predictions | None) -> RunSummary:
        record = run.record
        part = record["split"]
        return RunSummary(
            run.key,
            (int(record["seed"]), int(part["repeat"]), int(part["fold"])),
            self.known.digest(predictions.ids),
            0 if predictions.groups is None else len(self.known.find_unique(predictions.groups)[0]),
            int(part["n_train"]) + int(part.get("n_validation") or 0),
            int(part["n_test"]),
            self._compute_scores(predictions.labelled) | self._stored_scores(record),
            self._compute_scores(external.labelled) if external else {},
            {k: v for k, v in record["cost"].items() if v is not None},
            {k: v for k, v in record.items() if k not in ("classes", "metrics", "cost")},
        )

    def _accumulate_run(self, candidate: CandidateResults, run: ReadableRun, predictions: Predictions) -> None:
        """Adds the rows of one run to the counts of its candidate."""
        size, labelled = len(self.classes), predictions.labelled
        if not labelled.is_multi_label:
            pairs = np.bincount(labelled.labels * size + labelled.predicted_labels, minlength=size * size)
            candidate.confusion += pairs.reshape(size, size)
            wrong, right, confused = _find_examples(run.key, predictions, labelled.predicted_labels, labelled.confidence)
            candidate.mistakes = _keep_most_confident([*candidate.mistakes, *wrong])
            candidate.right_answers = _keep_most_confident([*candidate.right_answers, *right])
            for pair, answers in confused.items():
                kept = _keep_most_confident([*candidate.confused.get(pair, ()), *answers])
                candidate.confused[pair] = kept[:MAX_OF_PAIR]
        for row_name, values in _numeric_columns(run.history).items():
            candidate.history.setdefault(row_name, []).append(values)

    def _estimate_values(self, candidate: CandidateResults, rows: HeldOutRows) -> None:
        """Every metric by its estimand, its spread over splits, and the replicates of the ranking metric."""
        candidate.values = compute_values(list(self.estimands.values()), rows)
        for name, estimand in self.estimands.items():
            of_runs = candidate.metric_values(name)
            if METRICS[name].unavailable:
                candidate.values[name] = finite_mean(of_runs)
            candidate.spreads[name] = finite_std(of_runs) if estimand.has_spread else float("nan")
            if estimand.compares_scores:
                candidate.within_splits[name] = estimand.within_split_mean(rows)
        first = self.estimands[self.metrics[0]]
        if METRICS[first.metric].unavailable:
            return
        bootstrap = self._bootstrap.find_or_make(first, rows, len(self.known.seen))
        candidate.replicates = bootstrap.compute_replicates(first.metric, rows.probabilities)
        candidate.no_information = value_without_information(
            first.metric, rows.labels, rows.probabilities, first.part_numbers(rows), weigh_rows=first.weighs_rows
        )

    def _describe_rows(self, candidate: CandidateResults, rows: HeldOutRows, read: Sequence[Predictions]) -> None:
        """Calibration, and the ranking metric by group and site."""
        candidate.calibration = estimate_calibration_error(rows)
        if len(self.classes) == 2 and rows.labels.ndim == 1:
            candidate.positive_calibration = estimate_calibration_error(rows, 1)
            candidate.calibration_line = estimate_calibration_line(rows)
        if METRICS[self.metrics[0]].unavailable:
            return
        first = self.estimands[self.metrics[0]]
        if all(p.groups is not None for p in read):
            candidate.group_scores = score_units(first, rows.labelled, list(self.known.seen), rows.unit_names, rows.repeats)
        sites = [p.sites for p in read]
        if all(names is not None for names in sites):
            site_of = np.concatenate([self._sites.number_units(names) for names in sites if names is not None])
            candidate.site_scores = score_units(first, rows.labelled, list(self._sites.seen), site_of, rows.repeats)

    def _score_external_ensemble(self, externals: list[Predictions]) -> ExternalTest:
        ensemble = compare.ensemble_predictions(externals)
        name, labels, probabilities = self.metrics[0], ensemble.labels, ensemble.probabilities
        interval = bootstrap_interval(name, labels, probabilities, ensemble.groups)
        by_site = [] if ensemble.sites is None else score_by_group(name, labels, probabilities, ensemble.sites)
        scores = self._compute_scores(ensemble.labelled)
        return ExternalTest(len(labels), len(externals), scores, interval, {score.group: score.value for score in by_site})

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


def tested_rows(line: RunSummary) -> SplitKey:
    """How comparisons name the test rows of a run, and its round."""
    return line.test_rows_digest, line.split[:2]


def read_checked_predictions(run: ReadableRun, n_classes: int) -> Predictions:
    """Raises StoreError where they are missing or are not those of `n_classes` classes."""
    found = run.load_predictions()
    if found is None or found.logits.shape[1:] != (n_classes,) or len(found.labels) != len(found.logits):
        raise StoreError(f"{run.folder}/predictions.npz is missing or has not {n_classes} classes: delete the folder")
    return found


def _join_rows(read: Sequence[_RunRows]) -> HeldOutRows:
    """In the order of the runs, which all candidates share; rounds by (seed, repeat)."""
    rounds = {name: number for number, name in enumerate(dict.fromkeys(r.repeat for r in read))}
    sizes = [len(r.units) for r in read]
    labelled = LabelledProbabilities.join([r.predictions.labelled for r in read])
    rows = HeldOutRows(
        labelled.labels,
        labelled.probabilities,
        np.concatenate([r.units for r in read]),
        np.repeat(np.arange(len(read)), sizes),
        np.repeat([rounds[r.repeat] for r in read], sizes),
    )
    vars(rows)["labelled"] = labelled  # with the answers that were found run by run
    return rows


def _find_examples(
    key: str, predictions: Predictions, predicted: Ints, confidence: Floats
) -> tuple[list[ExampleAnswer], list[ExampleAnswer], dict[tuple[int, int], list[ExampleAnswer]]]:
    """The most confident wrong answers, the most confident right answer of each class, and the most confident answers of each
    frequent confusion, (true, predicted) class → answers.
    """
    surest = np.argsort(-confidence, kind="stable")
    is_right = predicted == predictions.labels
    wrong, right = surest[~is_right[surest]], surest[is_right[surest]]
    _, first = np.unique(predictions.labels[right], return_index=True)
    n_classes = predictions.logits.shape[1]
    confused = find_confused_rows(wrong, predictions.labels, predicted, n_classes, MAX_PAIRS, MAX_OF_PAIR)

    def make_examples(rows: Ints) -> list[ExampleAnswer]:
        return [_make_example(key, predictions, predicted, confidence, int(i)) for i in rows]

    return (
        make_examples(wrong[:MAX_EXAMPLES]),
        make_examples(right[np.sort(first)][:MAX_EXAMPLES]),
        {pair: make_examples(rows) for pair, rows in confused.items()},
    )


def _make_example(key: str, predictions: Predictions, predicted: Ints, confidence: Floats, i: int) -> ExampleAnswer:
    return ExampleAnswer(
        key,
        str(predictions.ids[i]),
        int(predictions.labels[i]),
        int(predicted[i]),
        float(confidence[i]),
        None if predictions.groups is None else str(predictions.groups[i]),
        None if predictions.spans is None else (float(predictions.spans[i][0]), float(predictions.spans[i][1])),
    )


def _keep_most_confident(examples: list[ExampleAnswer]) -> list[ExampleAnswer]:
    """The most confident answers, each sample once."""
    best: dict[str, ExampleAnswer] = {}
    for m in sorted(examples, key=lambda m: (-m.confidence, m.id)):
        best.setdefault(m.id, m)
    return list(best.values())[:MAX_EXAMPLES]


def _numeric_columns(history: list[dict[str, float | str]]) -> dict[str, Floats]:
    """Column → (epochs,) values; columns of text are left out."""
    names = [n for n in (history[0] if history else {}) if all(isinstance(row.get(n), float) for row in history)]
    return {n: np.array([row[n] for row in history], dtype=np.float64) for n in names}
