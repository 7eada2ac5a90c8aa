"""Probabilities for another share of the classes than the one that a model was trained on.

A model that met rare classes more often than they are, or weighted them more, predicts for that world. Its odds are multiplied by
the ratio of the classes' odds here and there (Elkan 2001; Saerens, Latinne & Decaestecker 2002). No held-out label is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.results.metrics.sufficient_sums import Floats


def correct_priors(probabilities: NDArray[Any], trained: NDArray[Any], here: NDArray[Any]) -> Floats:
    """(N, C) probabilities of a model trained on the shares `trained` (C,) → those where classes have the shares `here` (C,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(trained > 0, here / trained, 0.0)
    shifted = np.asarray(probabilities, dtype=np.float64) * ratio
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def changes_shares(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe, plain as a run records it, draws or weights classes; else its loss sees the shares of the rows."""
    return _undersampling(recipe) is not None or _class_weights(recipe) not in ("none", {})


def effective_shares(counts: NDArray[Any], recipe: Mapping[str, Any], classes: tuple[str, ...]) -> Floats:
    """(C,) the shares that the loss of a recipe saw, of (C,) training rows of each class: after drawing and weighting.

    recipe: plain, as a run records it: `imbalance.undersample`, `loss.class_weights`
    """
    rows = np.asarray(counts, dtype=np.float64)
    filled = rows[rows > 0]
    kept = _undersampling(recipe)
    if kept is not None and len(filled):
        rows = np.minimum(rows, np.floor(kept * filled.min() + 0.5))  # as training/batches/loading.py draws them
    weights = _class_weights(recipe)
    if weights == "auto":  # by the rows of the split; of bags, by those of the bag
        bagged = (recipe.get("imbalance") or {}).get("n_bags", 1) > 1
        rows = rows / np.maximum(rows if bagged else counts, 1)
    elif isinstance(weights, dict):
        rows = rows * np.array([float(weights.get(name, 1.0)) for name in classes])
    return np.asarray(rows / rows.sum())


def _undersampling(recipe: Mapping[str, Any]) -> float | None:
    found: float | None = (recipe.get("imbalance") or {}).get("undersample")
    return found


def _class_weights(recipe: Mapping[str, Any]) -> Any:
    """`none`, `auto`, or class → weight."""
    loss = recipe.get("loss") or {}
    return loss.get("class_weights", "none") if isinstance(loss, dict) else "none"
