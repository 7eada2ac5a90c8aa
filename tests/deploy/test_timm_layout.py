"""timm's own layout: timm alone opens it and gives the classifier's logits, or the classifier is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from phoropter.core.errors import SpecError
from phoropter.data.images.decode import SquareResize
from phoropter.deploy import timm_layout
from phoropter.deploy.timm_layout import make_timm_module, write_timm_layout
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.models.spec import Backbone, BackboneSpec, ClassifierSpec, FusionSpec, HeadSpec
from phoropter.models.timm_compat import import_timm


def build(name: str = "test_resnet", side: int = 64, *, picture: int = 64, **fields: Any) -> Classifier:
    backbone = {"name": name, "weights": "random", "size": side, **fields.pop("backbone", {})}
    spec = ClassifierSpec(backbones=(BackboneSpec(**backbone),), classes=("a", "b", "c"), picture=picture, **fields)
    classifier = classifiers.build_classifier(spec, seed=3)
    for module in classifier.modules():  # as after training: statistics that are not 0 and 1
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return classifier.eval()


@pytest.mark.parametrize(
    "made",
    [
        {"name": "test_resnet"},
        {"name": "test_vit"},  # of a fixed size, which is not its own here
        {"name": "mobilenetv3_small_050"},  # a head between pooling and the last layer
        {"name": "test_resnet", "side": 48, "center_crop": 48, "backbone": {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}},
        {"name": "deit_tiny_distilled_patch16_224", "student": "token", "backbone": {"options": {"depth": 1}}},
        {"name": "test_resnet", "head": HeadSpec(dropout=0.5)},
    ],
    ids=["cnn", "vit", "mobilenet", "crop", "token", "dropout"],
)
def test_timm_alone_gives_the_same_logits(made: dict[str, Any], tmp_path: Path) -> None:
    classifier = build(**made)
    write_timm_layout(classifier, SquareResize(64, "pad", "bilinear"), tmp_path / "timm")
    timm = import_timm()
    alone = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    config = timm.data.resolve_data_config(model=alone)
    branch, x = classifier.branches[0], torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    assert {key: tuple(config[key]) for key in ("mean", "std", "input_size")} == {
        "mean": branch.mean,
        "std": branch.std,
        "input_size": (3, branch.side, branch.side),
    }
    assert config["interpolation"] == "bilinear" and config["crop_mode"] == "border"
    assert config["crop_pct"] == (48 / 64 if "center_crop" in made else 1.0)
    crop = (64 - 48) // 2 if "center_crop" in made else 0
    normalised = (
        x[..., crop : 64 - crop, crop : 64 - crop].float() / 255 - torch.tensor(branch.mean)[:, None, None]
    ) / torch.tensor(branch.std)[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(alone(normalised), classifier(x), rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["label_names"] == ["a", "b", "c"]


def make_own() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"head": HeadSpec(kind="dense")}, "a hidden layer"),
        ({"name": "alexnet"}, "not a network of timm"),
        ({"backbone": {"pooling": "average"}, "name": "mobilenetv3_small_050"}, "averaged over the last map"),
        ({"backbone": {"options": {"stem": "cifar"}}, "name": "resnet18"}, "first layer is not timm's"),
        ({"name": Backbone("own", make_own, width=3), "backbone": {"weights": "built"}}, "a network of your own"),
    ],
)
def test_what_timm_has_no_place_for_is_refused(made: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=f"cannot be written in timm's layout: .*{reason}.*use the bundle itself"):
        make_timm_module(build(**made))


def test_a_fusion_is_refused() -> None:
    branches = tuple(BackboneSpec(name=name, weights="random", size=32) for name in ("test_resnet", "test_vit"))
    spec = ClassifierSpec(backbones=branches, fusion=FusionSpec(), classes=("a", "b"), picture=32)
    with pytest.raises(SpecError, match=r"it joins 2 networks \(test_resnet \+ test_vit\)"):
        make_timm_module(classifiers.build_classifier(spec, seed=0))


def test_other_logits_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    load = timm_layout._load_weights

    def load_wrongly(module: Any, *parts: Any) -> None:
        load(module, *parts)
        module.get_classifier().bias.data += 0.01

    monkeypatch.setattr(timm_layout, "_load_weights", load_wrongly)
    with pytest.raises(SpecError, match="gives other logits with these weights"):
        make_timm_module(build())
