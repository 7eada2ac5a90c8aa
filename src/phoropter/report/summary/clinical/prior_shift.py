"""What is left of a candidate's miscalibration when its probabilities are corrected for the classes it was trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.clinical.calibration_line import CalibrationLine, estimate_calibration_line
from phoropter.results.clinical.prior_correction import changes_shares, correct_priors, effective_shares
from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.stats.calibration_error import CalibrationEstimate, estimate_calibration_error
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.store import Predictions, Store

MIN_SHIFT = 0.01  # of the share of the positive class: what differs less is left as it is


@dataclass(frozen=True, eq=False)
class PriorShift:
    """Shares of the positive class, means over runs: trained, as the loss saw it; data, of the training rows; observed, of the
    held-out rows. predicted, corrected: mean probability before and after. line, calibration: after. pooled over held-out rows
    """

    trained: float
    data: float
    observed: float
    predicted: float
    corrected: float
    line: CalibrationLine
    calibration: CalibrationEstimate


def shift_candidate_priors(store: Store, summary: StudySummary, candidate: CandidateResults, positive: int) -> PriorShift | None:
    """None where its recipe neither draws nor weights the classes otherwise, or the rows it was trained on are not known."""
    if not any(changes_shares(line.record.get("recipe") or {}) for line in candidate.runs):
        return None  # before any predictions are read
    parts: list[Predictions] = []
    corrected, trained, data = [], [], []
    for line in candidate.runs:
        run = store.run(line.key)
        predictions = run.load_predictions()
        counts = None if predictions is None else _training_counts(summary, predictions, run.load_predictions("validation"))
        if predictions is None or counts is None:
            return None
        shares = effective_shares(counts, line.record.get("recipe") or {}, summary.classes)
        here = counts / counts.sum()
        parts.append(predictions)
        corrected.append(correct_priors(predictions.probabilities, shares, here))
        trained.append(shares[positive])
        data.append(here[positive])
    if abs(np.mean(trained) - np.mean(data)) < MIN_SHIFT:
        return None
    rounds = [line.split[:2] for line in candidate.runs]
    before = HeldOutRows.from_predictions(parts, rounds)
    logits = [np.log(np.maximum(p, 1e-300)) for p in corrected]
    after = HeldOutRows.from_predictions([replace(p, logits=z) for p, z in zip(parts, logits, strict=True)], rounds)
    return PriorShift(
        float(np.mean(trained)),
        float(np.mean(data)),
        float((before.labels == positive).mean()),
        float(before.probabilities[:, positive].mean()),
        float(after.probabilities[:, positive].mean()),
        estimate_calibration_line(after, positive),
        estimate_calibration_error(after, positive),
    )


def _training_counts(summary: StudySummary, test: Predictions, validation: Predictions | None) -> Floats | None:
    """(C,) rows of each class that are neither tested nor of the inner validation part; None where that is not known."""
    counts = np.array((summary.study.get("dataset") or {}).get("counts") or (), dtype=np.float64)
    if len(counts) != len(summary.classes):
        return None
    for part in (test, validation):
        counts = counts - (0 if part is None else np.bincount(part.labels, minlength=len(counts)))
    return counts if (counts >= 0).all() and counts.sum() > 0 else None
