"""Curves and temperatures of the few candidates that show them, from a second reading of their predictions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from phoropter.report.summary.model import CandidateResults, Floats, TemperatureScaling, finite_std
from phoropter.results.metrics.calibration import fit_temperature
from phoropter.results.metrics.ranking import Ranking, rank_classes
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities
from phoropter.results.stats.calibration_error import estimate_calibration_error
from phoropter.results.stats.estimand import Estimand
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.store import Predictions, Store

FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)  # where ROC curves of different splits or rounds are averaged


def fit_temperature_scaling(store: Store, candidate: CandidateResults) -> TemperatureScaling | None:
    """The temperature of each run is fitted on its inner validation rows; None unless every run has them."""
    temperatures: list[float] = []
    scaled: list[Predictions] = []
    for line in candidate.runs:
        run = store.run(line.key)
        validation, predictions = run.load_predictions("validation"), run.load_predictions()
        if validation is None or predictions is None or not len(validation.labels):
            return None
        temperatures.append(fit_temperature(validation.labels, validation.logits))
        scaled.append(replace(predictions, logits=predictions.logits / np.float32(temperatures[-1])))
    rows = HeldOutRows.from_predictions(scaled, [line.split[:2] for line in candidate.runs])
    return TemperatureScaling(
        float(np.mean(temperatures)),
        finite_std(np.array(temperatures)),
        estimate_calibration_error(rows),
        estimate_calibration_error(rows, 1) if rows.probabilities.shape[1] == 2 else None,
    )


def compute_roc_curves(store: Store, candidate: CandidateResults, estimand: Estimand) -> Floats:
    """(J, 101) true positive rates at FALSE_POSITIVE_RATES: of each split, or pooled in each round, as the area is computed.

    A row for each of these in which every class occurs.
    """
    loaded = [(store.run(line.key).load_predictions(), line.split[:2]) for line in candidate.runs]
    rows = HeldOutRows.from_predictions([p for p, _ in loaded], [name for _, name in loaded])
    parts = rows.splits if estimand.kind == "per-split" else rows.repeats
    curves = []
    for number in np.unique(parts):
        part = LabelledProbabilities(rows.labels[parts == number], rows.probabilities[parts == number])
        if (part.answer_counts > 0).all():
            curves.append(_mean_roc_curve(rank_classes(part)))
    return np.array(curves).reshape(-1, len(FALSE_POSITIVE_RATES))


def _mean_roc_curve(ranked: list[Ranking]) -> Floats:
    """(101,) one-vs-rest, averaged over classes."""
    curves = []
    for ranking in ranked:
        true_positives = np.concatenate([[0], np.cumsum(ranking.positives[::-1])])
        false_positives = np.concatenate([[0], np.cumsum(ranking.negatives[::-1])])
        curves.append(np.interp(FALSE_POSITIVE_RATES, false_positives / false_positives[-1], true_positives / true_positives[-1]))
    return np.asarray(np.mean(curves, axis=0))
