"""Predictions of a bundle by its torch network, prepared exactly as in its study.

The bundle holds what that needs: the recipe (test-time augmentation, precision), how images become square, and for recordings
the View and the sampling rate. A bundle saved by hand without them is refused.

Left out: objects in memory (bundle.py), and the files that predictions are written to (tables.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.errors import SpecError
from phoropter.core.extensions import Extension
from phoropter.data.dataset import Dataset
from phoropter.data.images.pixels import Pixels
from phoropter.deploy.described_bundle import DescribedBundle, read_described_bundle
from phoropter.deploy.predictions import BundlePredictions, SquarePredictor, predict_files, predict_rows_of
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.models.inference.folded_norms import fold_norms
from phoropter.results.metrics.probabilities import average_probabilities
from phoropter.signals.recording import OnBadInput
from phoropter.training.candidates.recipe import TtaViews
from phoropter.training.loop.devices import resolve_device
from phoropter.training.loop.precision import resolve_autocast_dtype
from phoropter.training.predict import predict_from_pixels


@dataclass(frozen=True, eq=False)
class Bundle(DescribedBundle):
    """A described bundle with its network. model: in eval mode; of an average of classifiers, `model.members` are these"""

    model: Classifier = field(kw_only=True)


def open_bundle(folder: Path | str, extensions: Sequence[Extension] = ()) -> Bundle:
    """Reads a bundle from its folder, or from a run or results folder that holds exactly one.

    extensions: the Backbones and the Database it needs, where they are your own; those of its training alone (loss, augmentation
    steps) may be left out, and so may the Database of a bundle that will only read files of common formats
    Raises WeightsError for a folder without a bundle, and for missing or changed code.
    """
    described = read_described_bundle(folder, extensions)
    model = classifiers.load_classifier(described.folder, extensions)
    for member, of in zip(model.members, described.member_candidates, strict=True):
        if of.recipe.channels_last:
            member.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Bundle(**{each.name: getattr(described, each.name) for each in fields(described)}, model=model)


def predict_paths(
    bundle: Bundle,
    paths: Sequence[Path],
    *,
    device: str = "auto",
    on_bad_input: OnBadInput = "skip",
    views: TtaViews | None = None,
) -> BundlePredictions:
    """Predicts every image of files and folders, or every window of recordings, their folders and manifests.

    device:       "auto", "cpu", "cuda" or "mps"
    on_bad_input: "skip": what cannot be read is listed and the rest is predicted · "stop": the first such input is an error
    views:        test-time augmentation (None: that of the recipe, with which the study evaluated it)

    Raises DataError for bad input under "stop", and where nothing can be read; SpecError for views the bundle cannot make.
    """
    predict_squares = make_square_predictor(bundle, resolve_device(device), views)
    return predict_files(bundle, predict_squares, paths, on_bad_input)


def predict_dataset(
    bundle: Bundle,
    dataset: Dataset,
    *,
    device: str = "auto",
    on_bad_input: OnBadInput = "skip",
    views: TtaViews | None = None,
) -> BundlePredictions:
    """As `predict_paths`, of a Dataset whose pictures or windows are made as in the bundle's study."""
    predict_squares = make_square_predictor(bundle, resolve_device(device), views)
    return predict_rows_of(bundle, predict_squares, dataset, on_bad_input)


def make_square_predictor(
    bundle: Bundle, device: torch.device, views: TtaViews | None = None, dtype: torch.dtype | None = None
) -> SquarePredictor:
    """The function that predicts squares: (N, 3, S, S) pixels → (N, C) logits, with the views and precision of the bundle.

    views: None: those with which the study evaluated it · dtype: None: that of its recipe. Raises what `choose_views` raises.
    """
    # A frozen candidate was trained on features computed in float32 with folded norms, so its predictions are too.
    dtypes = [
        dtype or (torch.float32 if candidate.stores_features else resolve_autocast_dtype(candidate.recipe, device))
        for candidate in bundle.member_candidates
    ]
    networks = [
        fold_norms(member) if candidate.stores_features else member
        for member, candidate in zip(bundle.model.to(device).members, bundle.member_candidates, strict=True)
    ]
    parts = list(zip(networks, choose_views(bundle, views), dtypes, strict=True))

    def predict_squares(pixels: Pixels) -> NDArray[np.float32]:
        rows = np.arange(len(pixels), dtype=np.int64)
        logits = [predict_from_pixels(model, pixels, rows, device, chosen, dtype)[0] for model, chosen, dtype in parts]
        return logits[0] if len(logits) == 1 else average_probabilities(logits, bundle.model.member_weights, bundle.multi_label)

    return predict_squares


def choose_views(bundle: Bundle, views: TtaViews | None) -> tuple[TtaViews, ...]:
    """The views of each member: those asked for, or (None) those with which the study evaluated it.

    Raises SpecError for ten crops of one that was trained on complete images.
    """
    chosen = tuple(candidate.recipe.tta if views is None else views for candidate in bundle.member_candidates)
    if any(of == "ten-crop" and m.spec.center_crop is None for of, m in zip(chosen, bundle.model.members, strict=True)):
        raise SpecError(
            f"views: bundle {bundle.folder} was trained on complete images, without center_crop, and ten-crop needs one; "
            "choose flip or none"
        )
    return chosen
