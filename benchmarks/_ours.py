"""What our side is made of: a training that goes on epoch by epoch, and a classifier laid out as a candidate's is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def epochs_of(name: str, side: int, folder: Path, cache: Path, recipe: dict[str, Any]) -> Callable[[], None]:
    """Each call trains an epoch more of a network with random weights, by a recipe, on all pictures of a folder."""
    import numpy as np
    import torch

    from phoropter.data.images.cache import prepare_pixels
    from phoropter.data.sources.folder import open_folder
    from phoropter.data.splits.protocol import Split
    from phoropter.training.candidates.candidate_entry import parse_candidates
    from phoropter.training.candidates.presets import parse_recipe
    from phoropter.training.fit import TrainingTask, fit
    from phoropter.training.loop.training_loop import StepProgress

    dataset, pixels = prepare_pixels(open_folder(folder), side, cache=cache)
    every = np.arange(len(dataset), dtype=np.int64)
    candidate = parse_candidates([{"backbone": name, "weights": "random", "size": side}], parse_recipe(recipe))[0]
    split = Split(0, 0, 0, 1, "all", every, every[:0])
    going = fit(TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), cache))

    def epoch() -> None:
        while isinstance(next(going), StepProgress):
            pass

    return epoch


def classifier_of(name: str, side: int, classes: tuple[str, ...]) -> Any:
    """A classifier of one network with random weights, in the memory layout that a candidate is built in."""
    import torch

    from phoropter.models.classifier import build_classifier
    from phoropter.models.spec import BackboneSpec, ClassifierSpec

    backbone = BackboneSpec(name=name, weights="random", size=side)
    model = build_classifier(ClassifierSpec(backbones=(backbone,), classes=classes, picture=side), seed=0)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
