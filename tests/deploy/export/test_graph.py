"""The module that is exported computes what the bundle predicts, for every kind of classifier and view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_bundles import CONVOLUTIONS, draw_squares, make_bundle, make_classifier
from torch.nn import functional as F

from phoropter.core.errors import SpecError
from phoropter.deploy.export.graph import ExportedClassifier, make_resize_weights
from phoropter.deploy.export.proof import ProofInputs, compute_reference
from phoropter.deploy.predict import choose_views
from phoropter.models.classifier import Classifier, build_ensemble

DEIT = {"name": "deit_tiny_distilled_patch16_224", "size": 32}
KINDS: dict[str, dict[str, Any]] = {
    "resized": {},
    "as stored": {"backbones": [CONVOLUTIONS], "picture": 16},
    "cropped": {"center_crop": 18},
    "dense head": {"head": {"kind": "dense", "hidden": 6, "dropout": 0.5}},
    "fusion of logits": {"backbones": [CONVOLUTIONS, {"name": "test_vit", "size": 32}], "fusion": {"mode": "logits"}},
    "fusion of features": {"backbones": [CONVOLUTIONS, {"name": "test_resnet", "size": 32}], "fusion": {"mode": "concat"}},
    "token student": {"backbones": [DEIT], "student": "token"},
}


def make_kind(kind: str, seed: int = 0) -> Classifier:
    options = dict(KINDS[kind])
    return make_classifier(*options.pop("backbones", ()), seed=seed, **options)


def compare(bundle: Any, side: int = 20) -> None:
    """The graph in one batch against the path of predictions, on squares that get several answers or at least differ."""
    inputs = ProofInputs(draw_squares(9, side), "drawn")
    reference = compute_reference(bundle, inputs, None)
    assert np.ptp(reference.probabilities, axis=0).max() > 1e-3
    with torch.no_grad():
        logits, probabilities = ExportedClassifier(bundle)(torch.from_numpy(inputs.squares))
    np.testing.assert_allclose(probabilities.numpy(), reference.probabilities, atol=2e-6)
    assert logits.shape == (9, 3) and logits.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_classifier_computes_what_its_bundle_predicts(tmp_path: Path, kind: str) -> None:
    model = make_kind(kind)
    compare(make_bundle(tmp_path / "b", model), model.spec.picture)


@pytest.mark.parametrize("views", ["flip", "ten-crop"])
def test_views_and_temperature_are_in_the_graph(tmp_path: Path, views: str) -> None:
    crop = {"center_crop": 16} if views == "ten-crop" else {}
    bundle = make_bundle(tmp_path / "b", make_classifier(**crop), temperature=2.5, tta=views, **crop)
    compare(bundle)
    with torch.no_grad():
        logits, probabilities = ExportedClassifier(bundle)(torch.from_numpy(draw_squares(4)))
    np.testing.assert_allclose(probabilities, (logits / 2.5).softmax(1), atol=1e-6)


def test_bags_are_averaged_in_the_graph(tmp_path: Path) -> None:
    compare(make_bundle(tmp_path / "b", build_ensemble([make_kind("dense head", seed) for seed in range(3)])))


def test_an_average_has_the_crop_of_each_member(tmp_path: Path) -> None:
    compare(make_bundle(tmp_path / "b", make_kind("resized"), make_kind("cropped", 1), make_kind("fusion of logits", 2)))


def test_ten_crops_need_a_crop(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    assert choose_views(bundle, "flip") == ("flip",)
    with pytest.raises(SpecError, match="without center_crop"):
        ExportedClassifier(bundle, "ten-crop")


def test_the_bundle_itself_is_left_as_it_was(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    before, x = {k: v.clone() for k, v in bundle.model.state_dict().items()}, torch.from_numpy(draw_squares(2))
    logits = bundle.model(x)
    graph = ExportedClassifier(bundle)
    assert not any(module.training for module in graph.modules())
    assert all(torch.equal(before[k], v) for k, v in bundle.model.state_dict().items())
    assert torch.equal(bundle.model(x), logits) and type(bundle.model.branches[0]).__name__ == "BackboneModule"


@pytest.mark.parametrize(("side", "to"), [(80, 64), (20, 33), (7, 7)])
def test_two_products_resize_as_torch_does(side: int, to: int) -> None:
    weights = make_resize_weights(side, to)
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 255
    expected = F.interpolate(x, size=(to, to), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(weights @ x @ weights.T, expected, atol=1e-3, rtol=0)
