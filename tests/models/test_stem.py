"""The CIFAR stem has the published parameter counts of CIFAR ResNets and survives a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from phoropter.core.errors import SpecError
from phoropter.models import backbones, classifier
from phoropter.models.spec import BackboneSpec, ClassifierSpec

STEM: dict[str, float | int | str | bool | None] = {"stem": "cifar"}


@pytest.mark.parametrize(("name", "parameters", "width"), [("resnet18", 11_173_962, 512), ("resnet50", 23_520_842, 2048)])
def test_the_cifar_stem_has_the_published_parameter_counts(name: str, parameters: int, width: int) -> None:
    backbone = backbones.build_backbone(BackboneSpec(name=name, weights="random", size=32, options=STEM), seed=0)
    assert sum(p.numel() for p in backbone.parameters()) + 10 * width + 10 == parameters
    with torch.inference_mode():
        places = backbone.eval().body.forward_features(torch.zeros(1, 3, 32, 32)).shape[-2:]
    assert places == (4, 4)  # 32 halved three times, not five


def test_a_bundle_keeps_the_cifar_stem(tmp_path: Path) -> None:
    spec = BackboneSpec(name="resnet18", weights="random", size=32, options=STEM)
    made = classifier.build_classifier(ClassifierSpec(backbones=(spec,), classes=("a", "b"), picture=32), seed=0)
    again = classifier.build_classifier(ClassifierSpec(backbones=(spec,), classes=("a", "b"), picture=32), seed=0)
    assert made.branches[0].identity == again.branches[0].identity  # drawn from the seed
    classifier.save_classifier(made, tmp_path / "bundle")
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(classifier.load_classifier(tmp_path / "bundle")(x), made(x))


@pytest.mark.parametrize(("name", "stem"), [("test_vit", "cifar"), ("resnet18", "cifra")])
def test_a_network_without_a_7x7_first_layer_is_refused(name: str, stem: str) -> None:
    with pytest.raises(SpecError, match=f"backbone '{name}': option stem is '{stem}', expected 'cifar', for a ResNet"):
        backbones.build_backbone(BackboneSpec(name=name, weights="random", size=32, options={"stem": stem}), seed=0)
