"""Predictions from pixels, with test-time augmentation, and from cached features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.models.classifier import build_classifier
from phoropter.models.spec import BackboneSpec, ClassifierSpec
from phoropter.training.feature_cache import extract_features
from phoropter.training.predict import make_tta_views, predict_from_features, predict_from_pixels

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(few_digits: Any) -> Any:
    dataset, pixels = few_digits
    spec = ClassifierSpec(
        backbones=(BackboneSpec(name="test_resnet", weights="random", size=32),), classes=dataset.classes, picture=pixels.size
    )
    return build_classifier(spec, seed=0)


def test_ten_crops_are_the_corners_and_the_centre_mirrored() -> None:
    images = torch.arange(2 * 3 * 6 * 6).view(2, 3, 6, 6)
    views = make_tta_views(images, "ten-crop", 4)
    assert len(views) == 10 and all(v.shape == (2, 3, 4, 4) for v in views)
    assert torch.equal(views[0], images[..., :4, :4]) and torch.equal(views[6], images[..., 2:, 2:])
    assert torch.equal(views[8], images[..., 1:5, 1:5]) and torch.equal(views[9], views[8].flip(-1))


def test_views_are_averaged_as_probabilities(few_digits: Any, model: Any) -> None:
    _, pixels = few_digits
    rows = np.arange(7)
    images = torch.from_numpy(pixels.batch(rows))
    with torch.inference_mode():
        expected = (model(images).softmax(1) + model(images.flip(-1)).softmax(1)) / 2
    logits, _ = predict_from_pixels(model, pixels, rows, CPU, "flip")
    np.testing.assert_allclose(np.exp(logits), expected.numpy(), rtol=1e-5)


def test_cached_features_predict_as_pixels_do(few_digits: Any, model: Any, tmp_path: Path) -> None:
    _, pixels = few_digits
    rows = np.arange(40, 60)
    features = extract_features(model, pixels, tmp_path, CPU)
    for from_features, from_pixels in zip(
        predict_from_features(model, features, rows, CPU), predict_from_pixels(model, pixels, rows, CPU), strict=True
    ):
        assert from_features.dtype == from_pixels.dtype
        np.testing.assert_allclose(from_features, from_pixels, rtol=2e-3, atol=1e-3)
