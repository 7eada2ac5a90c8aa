"""A loaded bundle as a Python object: every kind of input gives the logits that its file gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import phoropter as ph
from phoropter.core.errors import DataError, SpecError
from phoropter.signals.simulate import ecg_simulate
from small_pictures import draw_dark_and_light, run_small_study
from small_recordings import ECG_STUDY, PEOPLE

PICTURES = """\
name: shapes
data: {folder: pictures, size: 48}
protocol: {split: hold-out, test_size: 0.5}
recipe: {preset: scratch, epochs: 1}
candidates: [{name: net, backbone: test_resnet, weights: random}]
"""
ECG = (
    ECG_STUDY
    + """\
recipe: {preset: scratch, epochs: 1}
candidates: [{name: cnn, backbone: test_resnet, weights: random}]
"""
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study in `out`, and its pictures."""
    folder = tmp_path_factory.mktemp("shapes")
    draw_dark_and_light(folder / "pictures", 6)
    run_small_study(folder, PICTURES)
    return folder


def test_every_kind_of_picture_gets_the_logits_of_its_file(pictures: Path) -> None:
    model = ph.load(pictures / "out")
    files = sorted((pictures / "pictures" / "light").glob("*.png"))
    by_path = model.predict(files, device="cpu")
    assert by_path.logits.shape == (6, 2) and model.positive_class == "light"
    images = [Image.open(file) for file in files]
    batch = np.stack([np.array(image) for image in images])
    tensors = torch.from_numpy(batch).permute(0, 3, 1, 2)
    frame = pd.DataFrame({"path": [str(file) for file in files]})
    for x in (images, batch, list(batch), tensors, tensors.float() / 255, frame):
        assert np.array_equal(model.predict(x, device="cpu").logits, by_path.logits), type(x)
    alone = model.predict(images[0], device="cpu")
    assert alone.dataset.ids.tolist() == ["0"]
    np.testing.assert_allclose(alone.logits, by_path.logits[:1], atol=1e-5)


def test_the_classifier_on_preprocessed_pictures_gives_the_same_logits(pictures: Path) -> None:
    model = ph.load(pictures / "out")
    image = Image.open(pictures / "pictures" / "dark" / "0.png")
    x = model.preprocess([image, image])
    assert x.shape == (2, 3, 48, 48) and x.dtype == torch.uint8
    with torch.inference_mode():
        np.testing.assert_allclose(model.classifier(x).numpy(), model.predict([image, image], device="cpu").logits, atol=1e-6)


def test_views_are_averaged_when_asked_for(pictures: Path) -> None:
    model = ph.load(pictures / "out")
    image = Image.open(pictures / "pictures" / "dark" / "0.png")
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    one, other = (model.predict(i, device="cpu").probabilities for i in (image, mirrored))
    both = model.predict(image, device="cpu", views="flip").probabilities
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)
    assert not np.array_equal(one, both)
    with pytest.raises(SpecError, match="without center_crop, and ten-crop needs one"):
        model.predict(image, views="ten-crop")


def test_recordings_in_memory_get_the_logits_of_the_study(tmp_path: Path) -> None:
    store = run_small_study(tmp_path, ECG)
    run = next(r for r in store.runs() if r.bundle_folder)
    held_out = run.load_predictions()
    assert held_out is not None and held_out.groups is not None and run.bundle_folder is not None
    recordings = [r for r in ecg_simulate(PEOPLE) if r.subject in set(held_out.groups.tolist())]
    model = ph.load(run.bundle_folder)
    predicted = model.predict(recordings, device="cpu")
    place = {name: row for row, name in enumerate(predicted.dataset.ids.tolist())}
    rows = [place[name] for name in held_out.ids.tolist()]
    np.testing.assert_allclose(predicted.logits[rows], held_out.logits, rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="predicts recordings, and ndarray came"):
        model.predict(np.zeros((8, 8, 3), np.uint8))


def test_inputs_that_cannot_be_used_are_refused_or_listed(pictures: Path) -> None:
    model = ph.load(pictures / "out")
    good, bad = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 7), np.uint8)
    with pytest.raises(DataError, match="input 1: the picture has the shape"):
        model.predict([good, bad], device="cpu")
    listed = model.predict([good, bad], device="cpu", on_bad_input="skip")
    assert listed.dataset.ids.tolist() == ["0"] and [p.where for p in listed.problems] == ["1"]
    with pytest.raises(DataError, match="has no column 'path'"):
        model.predict(pd.DataFrame({"file": ["a.png"]}))
    with pytest.raises(DataError, match="there is no input"):
        model.predict([])
    with pytest.raises(DataError, match="predicts images, and Recording came"):
        model.predict(ecg_simulate(PEOPLE)[0])
