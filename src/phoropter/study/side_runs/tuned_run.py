"""Chooses the tuned values of a run by its finished trials, and records the choice.

A trial's runs test each row of the training part once, on inner folds. Its score is the metric over all these rows; of equal
scores the first in the order of the grid wins. Rows that the run itself is tested on are in none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from phoropter.core.errors import RunError
from phoropter.core.extensions import Extension
from phoropter.results.metrics.custom import Metric
from phoropter.results.metrics.registry import get_metric
from phoropter.results.store import Predictions, Store
from phoropter.study.plan import PlannedRun, TrialRuns
from phoropter.study.records.run_record import compute_scores
from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate import Candidate


def settle_tuned_run(run: PlannedRun, store: Store, study: StudySpec) -> PlannedRun:
    """A run whose trials are finished → the run with the values they choose, which `tuning` records; any other run as it is.

    Raises RunError where no trial has a score.
    """
    if not run.trials or run.tuning is not None or study.tune is None:
        return run
    metric = study.tune.metric or study.metrics[0]
    scores = [_score_trial(run, trial, store, metric) for trial in run.trials]
    record = get_metric(metric)
    best = choose_trial(scores, record.higher_is_better)
    if best is None:
        raise RunError(f"tune: {record.title} is undefined on the inner folds of {run.split.name}; choose another tune: metric")
    chosen = run.trials[best]
    tuning = {
        "chosen": _describe_settings(chosen),
        "metric": record.name,
        "folds": len(chosen.keys),
        "scores": [
            {"settings": _describe_settings(trial), "value": None if np.isnan(score) else score}
            for trial, score in zip(run.trials, scores, strict=True)
        ],
    }
    return replace(run, candidate=chosen.candidate, tuning=tuning)


def recall_tuned_run(run: PlannedRun, tuning: Mapping[str, Any]) -> PlannedRun:
    """A run that is to be tuned, with the values that its record says were chosen."""
    place = choose_trial(_read_scores(tuning), get_metric(tuning["metric"]).higher_is_better)
    return run if place is None else replace(run, candidate=run.trials[place].candidate, tuning=dict(tuning))


def choose_for_all_rows(runs: Sequence[PlannedRun]) -> Candidate:
    """The candidate with the values that are to be used on all rows: those with the best mean of their scores over the splits.

    runs: of one candidate, settled. The inner folds of all splits together hold all rows.
    """
    first = runs[0]
    if first.tuning is None:
        return first.candidate
    means = np.mean([_read_scores(run.tuning) for run in runs if run.tuning is not None], axis=0)
    place = choose_trial([float(mean) for mean in means], get_metric(first.tuning["metric"]).higher_is_better)
    return first.candidate if place is None else first.trials[place].candidate


def _read_scores(tuning: Mapping[str, Any]) -> list[float]:
    return [float("nan") if each["value"] is None else float(each["value"]) for each in tuning["scores"]]


def choose_trial(scores: list[float], higher_is_better: bool) -> int | None:
    """The place of the best score, the first of equal ones; None where all are NaN."""
    known = [place for place, score in enumerate(scores) if not np.isnan(score)]
    return min(known, key=lambda place: (-scores[place] if higher_is_better else scores[place], place), default=None)


def _score_trial(run: PlannedRun, trial: TrialRuns, store: Store, metric: str | Metric) -> float:
    parts = [found for key in trial.keys if (found := store.run(key).load_predictions()) is not None]
    ids, labels, logits = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "labels", "logits"))
    value = compute_scores(run, (metric,), Predictions(ids, labels, logits))[get_metric(metric).name]
    return float("nan") if value is None else value


def _describe_settings(trial: TrialRuns) -> dict[str, Any]:
    return {path: value.name if isinstance(value, Extension) else value for path, value in trial.settings.items()}
