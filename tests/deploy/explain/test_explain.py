"""A bundle explains what it is given: the probabilities are those of predict, the maps lie where the views do, time is time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explained_networks import make_classifier, make_pictures
from PIL import Image

import phoropter as ph
from phoropter.core.errors import DataError, SpecError
from phoropter.deploy.explain.class_maps import MapMaker
from phoropter.deploy.explain.explain import PlacedView, explain_views, list_views, resolve_targets
from phoropter.models.classifier import average_classifiers
from phoropter.signals.simulate import ctg_simulate, ecg_simulate
from phoropter.training.predict import average_views, make_tta_views
from small_recordings import BIRTHS, PEOPLE


def test_pictures_are_explained_with_the_probabilities_of_predict(
    explained_studies: dict[str, Path], explained_bundles: dict[str, Path]
) -> None:
    files = sorted((explained_studies["shapes"] / "pictures").glob("*/*.png"))
    for name, count in (("net", 1), ("fusion", 2)):
        model = ph.load(explained_bundles[name])
        found, predicted = model.explain(files, device="cpu"), model.predict(files, device="cpu")
        np.testing.assert_allclose([e.probabilities for e in found], predicted.probabilities, atol=1e-6)
        assert [e.name for e in found] == predicted.dataset.ids.tolist()
        for e, file in zip(found, files, strict=True):
            assert e.target == e.predicted == int(e.probabilities.argmax()) and e.classes == model.classes
            assert e.map.shape == (64, 64) and e.map.dtype == np.float32 and e.map.min() >= 0
            assert e.map.max() == pytest.approx(float(e.raw_max > 0)) and e.seen == (0, 0, 64, 64)
            assert np.array_equal(e.shown, model.preprocess(Image.open(file))[0].permute(1, 2, 0).numpy())
            assert len(e.branches) == count and sum(b.weight for b in e.branches.values()) == pytest.approx(1)
            mixed = sum(b.weight * b.map for b in e.branches.values())
            np.testing.assert_allclose(e.map, mixed / max(mixed.max(), 1e-30), atol=1e-6)
            assert e.window is None and e.time_map is None and e.time_s is None
    images = [Image.open(file) for file in files[:2]]
    again = model.explain(images, device="cpu", target=["light", 0])
    assert [e.target for e in again] == [model.classes.index("light"), 0] and [e.name for e in again] == ["0", "1"]


@pytest.mark.parametrize(("name", "channels", "units"), [("people", ["ECG"], ("mV",)), ("births", 3, ("bpm", "nd", "bpm"))])
def test_recordings_are_explained_along_their_own_time(
    explained_bundles: dict[str, Path], name: str, channels: Any, units: tuple[str, ...]
) -> None:
    recordings = ecg_simulate(PEOPLE)[:1] if name == "people" else ctg_simulate(BIRTHS)[:1]
    model = ph.load(explained_bundles[name])
    found, predicted = model.explain(recordings, device="cpu"), model.predict(recordings, device="cpu")
    np.testing.assert_allclose([e.probabilities for e in found], predicted.probabilities, atol=1e-6)
    assert predicted.dataset.spans is not None
    for e, (start, stop) in zip(found, predicted.dataset.spans, strict=True):
        window, seconds, along = e.window, e.time_s, e.time_map
        assert window is not None and seconds is not None and along is not None
        assert (window.recording, window.start_s, window.stop_s) == (recordings[0].id, start, stop) and window.units == units
        rate = recordings[0].rate_hz
        np.testing.assert_allclose(seconds, np.arange(round(start * rate), round(stop * rate)) / rate)
        assert along.shape == seconds.shape and along.min() >= 0 and along.max() == pytest.approx(float(e.map.max() > 0))
        if name == "people":
            drawn = recordings[0].channel("ECG")[round(start * rate) : round(stop * rate)]
            assert list(window.signals) == channels and np.array_equal(window.signals["ECG"], drawn)
            assert window.axes.row_hz is not None and window.axes.row_hz.max() <= rate / 2
        else:
            assert len(window.signals) == channels and window.axes.row_hz is None


def test_inputs_and_classes_that_cannot_be_used_are_refused_or_left_out(
    explained_studies: dict[str, Path], explained_bundles: dict[str, Path], tmp_path: Path
) -> None:
    model = ph.load(explained_bundles["fusion"])
    good = sorted((explained_studies["shapes"] / "pictures" / "dark").glob("*.png"))[:2]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    assert len(model.explain([*good, bad, tmp_path / "none.png"], on_bad_input="skip", device="cpu")) == 2
    with pytest.raises(DataError, match=r"bad\.png"):
        model.explain([*good, bad], device="cpu")
    with pytest.raises(SpecError, match="target: 'lihgt' is no class; there are dark or light; did you mean 'light'"):
        model.explain(good, target="lihgt", device="cpu")
    with pytest.raises(
        SpecError, match="layer: the bundle has the branches test_resnet and test_vit; name the branch too, as in"
    ):
        model.explain(good, layer="layer4", device="cpu")
    with pytest.raises(SpecError, match=r"views: .* was trained on complete images"):
        model.explain(good, views="ten-crop", device="cpu")
    named = model.explain(good, layer={"test_resnet": "layer2", "test_vit": "blocks.1"}, device="cpu")
    assert [b.layer for b in named[0].branches.values()] == ["layer2", "blocks.1"]


def test_targets_are_names_or_indices_one_or_one_of_each() -> None:
    classes = ("cat", "dog")
    assert resolve_targets(None, classes, 3) is None
    for target in ("dog", 1, np.int64(1), ["dog", 1, "dog"]):
        found = resolve_targets(target, classes, 3)  # type: ignore[arg-type]
        assert found is not None and found.tolist() == [1, 1, 1]
    with pytest.raises(SpecError, match="2 classes came for 3 inputs"):
        resolve_targets(["dog", "cat"], classes, 3)
    with pytest.raises(SpecError, match="target: 2 is no class; there are 2, counted from 0"):
        resolve_targets(2, classes, 3)


@pytest.mark.parametrize("views", ["none", "flip", "ten-crop"])
@pytest.mark.parametrize(("side", "crop"), [(64, None), (70, 64), (69, 64)])
def test_views_are_those_of_a_prediction_and_lie_where_they_were_cut(views: Any, side: int, crop: int | None) -> None:
    if views == "ten-crop" and crop is None:
        return
    pictures = make_pictures(side)
    model = make_classifier("test_resnet", picture=side, center_crop=crop)
    placed = list_views(side, crop, views)
    seen = min(side, crop or side)
    for view, tensor in zip(placed, make_tta_views(pictures, views, crop), strict=True):
        start = (tensor.shape[-1] - seen) // 2
        assert torch.equal(view.cut(pictures), tensor[..., start : start + seen, start : start + seen])
        onto = torch.zeros(3, side, side)
        view.place(view.cut(pictures)[:, 0].float(), onto)
        inside = onto[:, view.top : view.top + seen, view.left : view.left + seen]
        assert torch.equal(inside, pictures[:, 0, view.top : view.top + seen, view.left : view.left + seen].float())
    with torch.no_grad():
        expected = average_views([model(view) for view in make_tta_views(pictures, views, crop)])
    found = explain_views(MapMaker(model), pictures, [placed], None)
    torch.testing.assert_close(found.logits, expected, atol=1e-5, rtol=1e-4)
    assert found.targets.tolist() == expected.argmax(1).tolist() and found.maps[0].shape == (3, side, side)


def test_the_map_of_several_views_is_their_mean_where_they_lie() -> None:
    model, pictures = make_classifier("test_resnet"), make_pictures(64, 2)
    maker, targets = MapMaker(model), torch.tensor([0, 1])
    plain = maker.make_maps(pictures, targets).maps[0]
    mirrored = maker.make_maps(pictures.flip(-1), targets).maps[0].flip(-1)
    both = explain_views(maker, pictures, [list_views(64, None, "flip")], targets).maps[0]
    torch.testing.assert_close(both, (plain + mirrored) / 2)
    part = explain_views(maker, make_pictures(96, 2), [[PlacedView(8, 24, 64)]], targets).maps[0]
    assert part[:, :24].sum() == part[:, :, :8].sum() == part[:, 88:].sum() == 0 < part.sum()


def test_members_of_an_average_are_each_shown_their_own_views() -> None:
    """One sees the middle, mirrored too; the other everything: probabilities are those of each alone, averaged."""
    members = [make_classifier("test_resnet", picture=96, center_crop=64), make_classifier("test_resnet", picture=96, seed=1)]
    views: list[Any] = [list_views(96, 64, "flip"), list_views(96, None, "none")]
    pictures, targets = make_pictures(96), torch.tensor([0, 1, 2])
    found = explain_views(MapMaker(average_classifiers(members)), pictures, views, targets)
    alone = [explain_views(MapMaker(m), pictures, [v], targets) for m, v in zip(members, views, strict=True)]
    torch.testing.assert_close(found.maps, (alone[0].maps[0], alone[1].maps[0]))
    assert found.maps[0][:, :16].sum() == 0 < found.maps[1][:, :16].sum()
    mean = torch.stack([a.logits.softmax(1) for a in alone]).mean(0)
    torch.testing.assert_close(found.logits.softmax(1), mean)
    given = torch.cat([a.logits.softmax(1).gather(1, targets[:, None]) for a in alone], 1)
    torch.testing.assert_close(found.shares, given / given.sum(1, keepdim=True))
    unasked = explain_views(MapMaker(average_classifiers(members)), pictures, views, None)
    assert unasked.targets.tolist() == mean.argmax(1).tolist()
