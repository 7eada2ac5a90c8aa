"""What a study knows of a candidate, for the bundle that is made after it: the estimate with its interval, and a temperature.

Both come from held-out predictions of the study's models. The classifier made afterwards has met all rows and cannot be measured
on them; its figures are those of the procedure that made it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from phoropter.refit.finished_study import FinishedStudy
from phoropter.refit.made_classifier import MadeClassifier
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.summary.clinical.collect import find_positive_column, read_clinical_spec
from phoropter.report.summary.model import CandidateResults
from phoropter.results.clinical.levels import Aggregation, find_levels
from phoropter.results.clinical.operating_points import ScoredRows, choose_threshold
from phoropter.results.metrics.calibration import fit_temperature
from phoropter.results.metrics.registry import METRICS
from phoropter.results.run_folder import Predictions
from phoropter.training.candidates.refit_record import RefitRecord, StudyEvidence, StudyFigure


def describe_refit(study: FinishedStudy, candidate: CandidateResults, made: MadeClassifier) -> RefitRecord:
    """The record of a classifier made after a study."""
    temperature, rows = fit_held_out_temperature(study, candidate)
    return RefitRecord(
        how="all" if made.fold_models is None else "folds",
        n_rows=len(made.seen_rows),
        n_models=len(made.model.members),
        epochs=made.epochs,
        fold_models=made.fold_models,
        evidence=collect_evidence(study, candidate),
        temperature=temperature,
        temperature_rows=rows,
        **choose_final_threshold(study, candidate, temperature),
    )


def describe_evidence(record: RefitRecord) -> list[str]:
    """Sentences for the terminal and the model card: what the study measured, of which rows, and what the classifier has met."""
    evidence, figure = record.evidence, record.evidence.figure
    scale = MetricFormat.from_metric(METRICS[figure.metric])
    bounds = ""
    if figure.low is not None and figure.high is not None:
        bounds = f" (95 % interval {scale.format_value(figure.low)} to {scale.format_value(figure.high)})"
    models = f"{evidence.n_runs} models" if evidence.n_runs > 1 else "one model"
    told = "does not tell" if figure.value is None else "estimates"
    value = "" if figure.value is None else f" {scale.format_value(figure.value)}{bounds}"
    undefined = ", of which it is not defined" if figure.value is None else ""
    return [
        f"The study {evidence.study} {told} {scale.inline_title}{value} for {evidence.candidate}, from {evidence.n_rows:,} "
        f"held-out predictions of {models}{undefined}.",
        *_describe_making(record),
        f"Its logits are divided by a temperature of {record.temperature:.3f}, fitted on {record.temperature_rows:,} held-out "
        "predictions of the study's models.",
        *_describe_decision(record),
    ]


def _describe_decision(record: RefitRecord) -> list[str]:
    """When it decides for the positive class."""
    if record.threshold is None:
        return []
    whose = {"row": "rows", "recording": "recordings", "group": "subjects"}
    return [
        f"It decides for ‘{record.positive_class}’ from a probability of {record.threshold:.3f} on, chosen for "
        f"{record.threshold_goal} on {record.threshold_rows:,} held-out {whose[record.threshold_level]}, by the study's models."
    ]


def _describe_making(record: RefitRecord) -> list[str]:
    """Sentences on which models it is made of, and which rows they have met."""
    if record.n_rows == 0:
        return ["Nothing in it was trained on rows of the study."]
    if record.fold_models is None:
        several = record.n_models > 1
        made = f"This classifier is the average of {record.n_models}, each" if several else "This classifier is"
        return [f"{made} trained anew on {record.n_rows:,} rows of the study and cannot be measured on them."]
    folds = record.fold_models
    lines = [
        f"This classifier averages the probabilities of the study's own {record.n_models} models; together they have met "
        f"{record.n_rows:,} rows of the study, so that the average cannot be measured on them."
        if record.n_models > 1
        else f"This classifier is the study's own model, trained on {record.n_rows:,} rows."
    ]
    if folds.retrained:
        difference = (
            ""
            if folds.difference is None
            else (f"; on their held-out rows their probabilities differ from the study's by at most {folds.difference:.2g}")
        )
        lines.append(f"{folds.retrained} of the models had not been kept and were trained again by their recipe{difference}.")
    if record.n_models > 1:
        lines.append("An average is less sure of itself than each of its models, for whom the temperature was fitted.")
    return lines


def collect_evidence(study: FinishedStudy, candidate: CandidateResults) -> StudyEvidence:
    """The figures of the report's leaderboard for a candidate."""
    summary = study.summary
    ranking = summary.metrics[0]
    values = {name: float(candidate.metric_mean(name)) for name in summary.metrics}
    bounds: dict[str, Any] = {}
    if candidate.replicates is not None:
        interval = candidate.replicates.confidence_interval()
        known = np.isfinite(interval.low) and np.isfinite(interval.high)
        bounds = {"low": float(interval.low), "high": float(interval.high)} if known else {}
        bounds["method"] = interval.method
    return StudyEvidence(
        study=str(summary.study.get("name", "")) + (" (a smoke version)" if summary.study.get("scale") else ""),
        candidate=candidate.name,
        fingerprint=str((summary.study.get("dataset") or {}).get("fingerprint", "")),
        figure=StudyFigure(metric=ranking, value=values[ranking] if np.isfinite(values[ranking]) else None, **bounds),
        metrics={name: value for name, value in values.items() if np.isfinite(value)},
        n_runs=len(candidate.runs),
        n_rows=sum(run.n_test for run in candidate.runs),
    )


def choose_final_threshold(study: FinishedStudy, candidate: CandidateResults, temperature: float) -> dict[str, Any]:
    """The fields of RefitRecord about decisions: rule of aggregation, positive class, and, where the study names it, a threshold.

    The threshold is that of the study's goal, chosen from all held-out predictions of its models, divided by the temperature, at
    the level that `predict` can form: people or recordings of recordings, else single rows. What it is worth is on the page, from
    thresholds that were chosen without the rows they are judged on.
    """
    summary, config = study.summary, study.summary.study_config
    column, stated = find_positive_column(summary)
    rule = str(config.get("aggregate") or "mean")
    if column is None or summary.is_multi_label:
        return {"aggregation": rule}
    found: dict[str, Any] = {"aggregation": rule, "positive_class": summary.classes[column]}
    if not stated:  # a study that looks for neither class has no reason to prefer one
        return found
    parts = _load_held_out(study, candidate)
    level = find_levels(parts)[0][-1] if parts[0].spans is not None else "row"
    answers = [Aggregation(level, rule, column, temperature).apply_to(part) for part in parts]
    labels, p = np.concatenate([a.labels for a in answers]), np.concatenate([a.probabilities for a in answers])
    goal = read_clinical_spec(summary).goal
    threshold = choose_threshold(ScoredRows.from_probabilities(labels, p, column), goal)
    if not np.isfinite(threshold):
        return found
    chosen = {"threshold": threshold, "threshold_goal": goal.title, "threshold_level": level, "threshold_rows": len(labels)}
    return found | chosen


def _load_held_out(study: FinishedStudy, candidate: CandidateResults) -> list[Predictions]:
    parts = [study.store.run(run.key).load_predictions() for run in candidate.runs]
    return [part for part in parts if part is not None]


def fit_held_out_temperature(study: FinishedStudy, candidate: CandidateResults) -> tuple[float, int]:
    """The temperature of least log-loss over the held-out predictions of all runs, and their number (Guo et al. 2017, §4.2)."""
    held_out = _load_held_out(study, candidate)
    labels, logits = np.concatenate([p.labels for p in held_out]), np.concatenate([p.logits for p in held_out])
    return float(fit_temperature(labels, logits)), len(labels)
