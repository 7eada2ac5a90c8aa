"""What a study knows of a candidate, for the bundle that is made after it: the estimate with its interval, and a temperature.

Both come from held-out predictions of the study's models. The classifier made afterwards has met all rows and cannot be measured
on them; its figures are those of the procedure that made it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from phoropter.refit.finished_study import FinishedStudy
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.summary.model import CandidateResults
from phoropter.results.metrics.calibration import fit_temperature
from phoropter.results.metrics.registry import METRICS
from phoropter.results.run_folder import Predictions
from phoropter.training.candidates.refit_record import RefitRecord, StudyEvidence, StudyFigure


def describe_refit(study: FinishedStudy, candidate: CandidateResults, *, n_rows: int, epochs: dict[str, int]) -> RefitRecord:
    """The record of a classifier made after a study."""
    temperature, rows = fit_held_out_temperature(study, candidate)
    classes = study.summary.classes
    return RefitRecord(
        n_rows=n_rows,
        epochs=epochs,
        evidence=collect_evidence(study, candidate),
        temperature=temperature,
        temperature_rows=rows,
        positive_class=classes[1] if len(classes) == 2 else None,
    )


def describe_evidence(record: RefitRecord) -> list[str]:
    """Sentences for the terminal and the model card: what the study measured, of which rows, and what the classifier has met."""
    evidence, figure = record.evidence, record.evidence.figure
    scale = MetricFormat.from_metric(METRICS[figure.metric])
    bounds = ""
    if figure.low is not None and figure.high is not None:
        bounds = f" (95 % interval {scale.format_value(figure.low)} to {scale.format_value(figure.high)})"
    models = f"{evidence.n_runs} models" if evidence.n_runs > 1 else "one model"
    return [
        f"The study {evidence.study} estimates {scale.inline_title} {scale.format_value(figure.value)}{bounds} for "
        f"{evidence.candidate}, from {evidence.n_rows:,} held-out predictions of {models}.",
        f"This classifier is trained anew on {record.n_rows:,} rows of the study and cannot be measured on them.",
        f"Its logits are divided by a temperature of {record.temperature:.3f}, fitted on {record.temperature_rows:,} held-out "
        "predictions of the study's models.",
    ]


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
        study=str(summary.study.get("name", "")),
        candidate=candidate.name,
        fingerprint=str((summary.study.get("dataset") or {}).get("fingerprint", "")),
        figure=StudyFigure(metric=ranking, value=values[ranking], **bounds),
        metrics={name: value for name, value in values.items() if np.isfinite(value)},
        n_runs=len(candidate.runs),
        n_rows=sum(run.n_test for run in candidate.runs),
    )


def fit_held_out_temperature(study: FinishedStudy, candidate: CandidateResults) -> tuple[float, int]:
    """The temperature of least log-loss over the held-out predictions of all runs, and their number (Guo et al. 2017, §4.2)."""
    parts = [study.store.run(run.key).load_predictions() for run in candidate.runs]
    held_out: list[Predictions] = [part for part in parts if part is not None]
    labels, logits = np.concatenate([p.labels for p in held_out]), np.concatenate([p.logits for p in held_out])
    return float(fit_temperature(labels, logits)), len(labels)
