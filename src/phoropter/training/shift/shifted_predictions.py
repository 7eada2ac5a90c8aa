"""A trained classifier on corrupted rows: the same computation as on the rows as they are, from other pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.data.images.pixels import Pixels
from phoropter.models.classifier import Classifier
from phoropter.training.array_cache import ProgressFunction
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.feature_cache import extract_features
from phoropter.training.loop.precision import resolve_autocast_dtype
from phoropter.training.predict import predict_from_features, predict_from_pixels


def predict_shifted(
    model: Classifier,
    candidate: Candidate,
    pixels: Pixels,
    rows: NDArray[np.int64],
    cache: Path,
    identities: Sequence[str] = (),
    progress: ProgressFunction | None = None,
) -> NDArray[np.float32]:
    """(n,) rows of corrupted pixels → (n, C) logits, on the model's device.

    The features of a frozen candidate are computed of all rows of the pixels and cached, for all its splits, heads and seeds.
    identities: of the first of the model's backbones, where they are known; bags repeat them
    """
    device, recipe = next(model.parameters()).device, candidate.recipe
    if not candidate.stores_features:
        return predict_from_pixels(model, pixels, rows, device, recipe.tta, resolve_autocast_dtype(recipe, device))[0]
    known = tuple(identities) * (len(model.branches) // len(identities)) if identities else None
    features = extract_features(model, pixels, cache, device, progress, known, *recipe.feature_format)
    return predict_from_features(model, features, rows, device)[0]
