"""Logits → probabilities, of one class a row and of several labels; and averages of the probabilities of several classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MAX_TURNED_CLASSES = 32  # with more, turning the array costs what its reductions save
_PARTIAL_SUMS = 8


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """(N, C) logits of any float type → (N, C) float64 probabilities, without overflow."""
    values = np.asarray(logits)
    if values.shape[1] > MAX_TURNED_CLASSES:
        shifted = values.astype(np.float64, order="C") / temperature
        shifted -= shifted.max(axis=1, keepdims=True)
        np.exp(shifted, out=shifted)
        shifted /= shifted.sum(axis=1, keepdims=True)
        return shifted
    turned = np.array(values.T, dtype=np.float64, order="C")  # (C, N): NumPy reduces ten short columns one row at a time
    turned /= temperature
    turned -= turned.max(axis=0, initial=-np.inf)
    np.exp(turned, out=turned)
    turned /= sum_classes(turned)
    return np.ascontiguousarray(turned.T)


def sum_classes(turned: Floats) -> Floats:
    """(C, N) → (N,) sums over C, added in the order in which NumPy adds a row of C up to 128 values: eight partial sums."""
    count = len(turned)
    if count < _PARTIAL_SUMS:
        return np.asarray(turned.sum(axis=0))
    whole = count - count % _PARTIAL_SUMS
    parts = turned[:_PARTIAL_SUMS].copy()
    for first in range(_PARTIAL_SUMS, whole, _PARTIAL_SUMS):
        parts += turned[first : first + _PARTIAL_SUMS]
    while len(parts) > 1:
        parts = parts[::2] + parts[1::2]
    for rest in turned[whole:]:
        parts[0] += rest
    return np.asarray(parts[0])


def apply_sigmoid(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """(N, C) logits of several labels → (N, C) float64, the probability of each label."""
    from scipy.special import expit

    return np.asarray(expit(np.asarray(logits, dtype=np.float64) / temperature))


def to_probabilities(logits: NDArray[Any], multi_label: bool, temperature: float = 1.0) -> Floats:
    """(N, C) logits → (N, C) float64: their softmax, or of several labels the sigmoid of each."""
    return apply_sigmoid(logits, temperature) if multi_label else softmax(logits, temperature)


def average_probabilities(
    logits: Sequence[NDArray[Any]], weights: Sequence[float] = (), multi_label: bool = False
) -> NDArray[np.float32]:
    """(N, C) logits of each of several classifiers → (N, C): the log of the mean of their probabilities.

    weights: of each classifier; empty: all are equal
    multi_label: logits are of several labels: the logit of the mean of each label's probabilities
    """
    probabilities = np.average([to_probabilities(each, multi_label) for each in logits], axis=0, weights=weights or None)
    if multi_label:
        against = np.average([apply_sigmoid(-np.asarray(each)) for each in logits], axis=0, weights=weights or None)
        return np.asarray(np.log(np.maximum(probabilities, 1e-30)) - np.log(np.maximum(against, 1e-30)), dtype=np.float32)
    return np.asarray(np.log(np.maximum(probabilities, 1e-30)), dtype=np.float32)
