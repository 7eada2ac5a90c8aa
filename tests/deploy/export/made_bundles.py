"""Bundles made without a study, small enough that an exporter takes a second; their batch norms have statistics of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phoropter.core.spec import validate_as
from phoropter.data.spec import DataSpec
from phoropter.deploy.export.proof import ProofInputs, Reference, compute_reference
from phoropter.deploy.predict import Bundle
from phoropter.models.classifier import Classifier, average_classifiers, build_classifier, save_classifier
from phoropter.models.spec import Backbone, ClassifierSpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.refit_record import RefitRecord
from trained_norms import train_statistics

SIDE = 20


def build_convolutions() -> nn.Module:
    """(B, 3, s, s) → (B, 8), with a batch norm between two convolutions, of which exporters make one."""
    first = [nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU())


def build_products() -> nn.Module:
    """(B, 3, 16, 16) → (B, 8): matrix products alone."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 16), nn.ReLU(), nn.Linear(16, 8))


CONVOLUTIONS = Backbone("convolutions", build=build_convolutions, width=8, input_size=16)
PRODUCTS = Backbone("products", build=build_products, width=8, input_size=16)


def draw_squares(count: int, side: int = SIDE, seed: int = 0) -> NDArray[np.uint8]:
    """(N, 3, side, side) uint8: smooth fields of very different brightness, so that their classes differ."""
    draw = np.random.default_rng(seed)
    base = draw.uniform(0, 255, (count, 3, 1, 1)) + draw.uniform(-60, 60, (count, 3, side, side))
    return np.clip(base, 0, 255).astype(np.uint8)


def make_classifier(*backbones: Any, classes: tuple[str, ...] = ("a", "b", "c"), seed: int = 0, **options: Any) -> Classifier:
    """A classifier whose batch norms have been trained: means, variances and scales far from 0, 1 and 1."""
    named = [{"name": b} if isinstance(b, (str, Backbone)) else b for b in backbones or (CONVOLUTIONS,)]
    plain = [{"weights": "random", **b} for b in named]
    spec = ClassifierSpec.model_validate({"backbones": plain, "classes": classes, "picture": SIDE, **options})
    model = build_classifier(spec, seed=seed)
    train_statistics(model, seed)
    for head in (m for m in model.head.modules() if isinstance(m, nn.Linear)):
        head.weight.data.mul_(6)  # so that probabilities are far from equal
    model.eval()
    with torch.no_grad():  # and so that every class is the answer somewhere
        logits = model(torch.from_numpy(draw_squares(32, seed=9)))
        for head in [m for m in model.head.modules() if isinstance(m, nn.Linear) and m.out_features == len(classes)][-1:]:
            head.bias -= logits.mean(0)
    return model


def make_bundle(folder: Path, *members: Classifier, temperature: float | None = None, **recipe: Any) -> Bundle:
    """A bundle of one classifier, or of the average of several. temperature: None: of a run's own model, which has none"""
    models = members or (make_classifier(),)
    model = models[0] if len(models) == 1 else average_classifiers(models)
    plain = {
        "name": "net",
        "backbones": [{"name": "test_resnet", "weights": "random"}],
        "recipe": {"preset": "scratch", **recipe},
    }
    candidate = validate_as(Candidate, {**plain, "recipe": make_recipe(**recipe)})
    if not folder.exists():
        save_classifier(model, folder)
    refit = None if temperature is None else make_refit(temperature)
    data = DataSpec(digits=True, resize="pad")
    of_members = (candidate,) * len(models) if len(models) > 1 else ()
    return Bundle(folder, model.spec, candidate, data, None, refit, of_members, model=model)


def make_recipe(**options: Any) -> dict[str, Any]:
    """A recipe as a bundle records it."""
    from phoropter.training.candidates.recipe import Recipe

    return validate_as(Recipe, {"phases": [], **options}).plain()


def make_refit(temperature: float) -> RefitRecord:
    """What a bundle says that was refitted on all rows."""
    figure = {"metric": "accuracy", "value": 0.75}
    evidence = {"study": "made", "candidate": "net", "fingerprint": "f", "figure": figure, "n_runs": 2, "n_rows": 40}
    return validate_as(RefitRecord, {"n_rows": 40, "evidence": evidence, "temperature": temperature, "temperature_rows": 40})


def make_reference(bundle: Bundle, count: int = 9) -> Reference:
    """The bundle's outputs for drawn squares, whose answers are of several classes."""
    reference = compute_reference(bundle, ProofInputs(draw_squares(count), "drawn squares"), None)
    assert len(set(reference.probabilities.argmax(1).tolist())) > 1
    return reference
