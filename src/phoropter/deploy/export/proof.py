"""Compares an exported file with the classifier it came from, on real inputs, in batches of several sizes.

The reference is the path that predictions of a bundle take (training/predict.py), in float32, and not the exported module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.data.images.pixels import InMemoryPixels
from phoropter.deploy.predict import Bundle, make_square_predictor
from phoropter.results.metrics.probabilities import to_probabilities
from phoropter.training.candidates.recipe import TtaViews

BATCHES = (1, 2, 7)  # a batch of one is what exporters freeze, and 7 divides nothing
MAX_DIFFERENCE = 1e-4  # in a probability
MAX_INPUTS = 64

RunFunction = Callable[[NDArray[np.uint8]], tuple[Any, Any]]


@dataclass(frozen=True, eq=False)
class ProofInputs:
    """squares: (N, 3, S, S) uint8, N at least 1 · source: what they are, in words"""

    squares: NDArray[np.uint8]
    source: str


@dataclass(frozen=True)
class Difference:
    """Between an exported file and the original, over all inputs and batch sizes.

    probability: the largest difference of a probability · logit: of a logit · answers: inputs whose likeliest class differs
    """

    probability: float
    logit: float
    answers: int

    @property
    def is_small(self) -> bool:
        """Whether the file may be kept; NaN is not small."""
        return self.probability < MAX_DIFFERENCE and self.answers == 0

    def describe(self) -> str:
        if np.isnan(self.probability):
            return "its outputs are not numbers"
        answers = f", and {self.answers} answers differ" if self.answers else ""
        return f"a probability differs by {self.probability:.2g}, expected less than {MAX_DIFFERENCE:g}{answers}"


@dataclass(frozen=True, eq=False)
class Reference:
    """The original's outputs for the inputs of a proof: (N, C) logits and calibrated probabilities."""

    inputs: ProofInputs
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    multi_label: bool = False


def _answers_otherwise(one: NDArray[np.float64], other: NDArray[np.float64], multi_label: bool) -> NDArray[np.bool_]:
    """(n,) whether the likeliest class is another, or of several labels which are above a half."""
    if multi_label:
        return np.asarray(((one > 0.5) != (other > 0.5)).any(axis=1))
    return np.asarray(one.argmax(1) != other.argmax(1))


def compute_reference(bundle: Bundle, inputs: ProofInputs, views: TtaViews | None) -> Reference:
    """What the bundle predicts for the inputs, in float32 on the CPU. Raises SpecError for views it cannot make."""
    squares = inputs.squares
    if len(squares) < max(BATCHES):  # so that the largest batch is a full one
        squares = squares[np.arange(max(BATCHES)) % len(squares)]
    predict_squares = make_square_predictor(bundle, torch.device("cpu"), views, torch.float32)
    logits = predict_squares(InMemoryPixels(squares))
    return Reference(
        ProofInputs(squares, inputs.source),
        logits,
        to_probabilities(logits, bundle.multi_label, bundle.temperature),
        bundle.multi_label,
    )


def measure_difference(run: RunFunction, reference: Reference) -> Difference:
    """Runs all inputs in batches of 1, 2 and 7 and returns the largest differences. run: squares → logits, probabilities"""
    squares, expected = reference.inputs.squares, reference.probabilities
    worst_p, worst_logit, wrong = 0.0, 0.0, np.zeros(len(squares), dtype=bool)
    for size in BATCHES:
        for start in range(0, len(squares), size):
            batch = slice(start, start + size)
            logits, probabilities = (np.asarray(o, dtype=np.float64) for o in run(squares[batch]))
            if probabilities.shape != expected[batch].shape or not np.isfinite(probabilities).all():
                return Difference(float("nan"), float("nan"), len(squares))
            worst_p = max(worst_p, float(np.abs(probabilities - expected[batch]).max()))
            worst_logit = max(worst_logit, float(np.abs(logits - reference.logits[batch]).max()))
            wrong[batch] |= _answers_otherwise(probabilities, expected[batch], reference.multi_label)
    return Difference(worst_p, worst_logit, int(wrong.sum()))
