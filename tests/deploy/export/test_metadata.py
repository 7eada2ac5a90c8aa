"""What a file says of itself is enough to use it with Pillow and ONNX Runtime alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from made_bundles import make_bundle, make_classifier, make_reference
from PIL import Image

from phoropter.data.recordings.bundle_view import BundleView
from phoropter.data.recordings.views import ChannelView
from phoropter.deploy.bundle import Predictor
from phoropter.deploy.export import exporters
from phoropter.deploy.export.graph import ExportedClassifier
from phoropter.deploy.export.metadata import describe_exported, describe_preprocessing
from phoropter.deploy.predict import Bundle


def read_square(file: Path, how: dict[str, Any]) -> np.ndarray[Any, Any]:
    """A picture as the metadata describe it, by Pillow alone."""
    assert (how["resize"], how["interpolation"], how["channels"], how["layout"]) == ("pad", "bicubic", "RGB", "channels first")
    image, side = Image.open(file).convert(how["channels"]), how["side"]
    scale = side / max(image.size)
    image = image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square).transpose(2, 0, 1)


def test_a_program_that_knows_the_file_alone_gets_the_bundles_probabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporters, "EXPORTERS", {"tracing": exporters.EXPORTERS["tracing"]})
    bundle = make_bundle(tmp_path / "b", make_classifier(classes=("well", "ill")), temperature=1.7, tta="flip")
    draw = np.random.default_rng(0)
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for i, file in enumerate(files):
        Image.fromarray(draw.integers(0, 60 * (i + 1), (30 + 9 * i, 50, 3), dtype=np.uint8)).save(file)
    metadata = describe_exported(bundle, None)
    exporters.export_proved(lambda: ExportedClassifier(bundle), make_reference(bundle), metadata, tmp_path / "m.onnx")

    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    said = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    squares = np.stack([read_square(file, said["preprocessing"]) for file in files])
    logits, probabilities = session.run(said["outputs"], {said["input"]["name"]: squares})

    predictor = Predictor(bundle.folder, bundle.spec, bundle.candidate, bundle.data, None, bundle.refit, model=bundle.model)
    predicted = predictor.predict(files, device="cpu")
    np.testing.assert_allclose(probabilities, predicted.probabilities, atol=1e-6)
    odds = np.exp(logits / said["temperature"])
    np.testing.assert_allclose(probabilities, odds / odds.sum(axis=1, keepdims=True), atol=1e-6)
    assert said["classes"] == ["well", "ill"] and said["positive_class"] is None and said["threshold"] is None
    assert said["evidence"]["figure"]["value"] == 0.75 and set(said["digests"]) == {"bundle.json", "model.safetensors"}


def test_the_model_of_one_run_has_the_second_of_two_classes_as_the_positive_one(tmp_path: Path) -> None:
    said = describe_exported(make_bundle(tmp_path / "b", make_classifier(classes=("well", "ill"))), None)
    assert (said["positive_class"], said["temperature"], said["evidence"], said["aggregation"]) == ("ill", 1.0, None, "mean")


def test_of_recordings_it_says_how_a_window_is_drawn(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    view = BundleView(view=ChannelView(channel="ECG"), rate_hz=250.0)
    of_recordings = Bundle(bundle.folder, bundle.spec, bundle.candidate, bundle.data, view, model=bundle.model)
    said = describe_preprocessing(of_recordings, "flip")
    assert said["recordings"]["rate_hz"] == 250 and said["recordings"]["view"]["channel"] == "ECG" and "resize" not in said
    (branch,) = said["inside"]["branches"]
    assert said["inside"]["views"] == ["flip"] and branch["side"] == 16 and said["side"] == 20
