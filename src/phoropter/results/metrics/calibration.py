"""Calibration by temperature scaling (Guo et al. 2017).

The expected calibration error is the metric `ece`; the bins of its curve are in stats/calibration_error.py. The temperature must
be fitted on rows that are not tested (the inner validation part); fitted on tested rows it makes the calibration look better than
it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.02, 50.0


def fit_temperature(labels: NDArray[Any], logits: NDArray[Any]) -> float:
    """The temperature T > 0 that minimises the mean negative log-likelihood of labels (N,) under softmax(logits / T).

    logits: (N, C). Of several labels a row, labels are (N, C) of 0 and 1, all under one temperature.
    The likelihood is convex in 1/T, so its only minimum is found, between MIN_TEMPERATURE and MAX_TEMPERATURE:
    rows that are all correct would give T = 0, rows no better than chance infinity.
    Raises DataError where there are no rows, or logits that are not finite.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    scores = np.asarray(logits, dtype=np.float64)
    truth = np.asarray(labels)
    if truth.ndim == 2 and truth.shape == scores.shape:  # each answer is one of two classes with the logits 0 and z
        truth, scores = truth.ravel(), np.stack([np.zeros(scores.size), scores.ravel()], axis=1)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or not len(truth) or not np.isfinite(scores).all():
        raise DataError(
            f"temperature takes labels (N,) and finite logits (N, C), N at least 1, not {truth.shape} and {scores.shape}"
        )
    own = scores[np.arange(len(truth)), truth].mean()

    def mean_log_loss(log_t: float) -> float:
        coldness = np.exp(-log_t)
        return float(logsumexp(scores * coldness, axis=1).mean() - own * coldness)

    result = minimize_scalar(
        mean_log_loss, bounds=(np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)), method="bounded", options={"xatol": 1e-7}
    )
    return float(np.exp(result.x))
