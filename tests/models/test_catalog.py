"""The catalogue works without torch, its figures are the published ones, and its refusals suggest a remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from phoropter.core.errors import SpecError, WeightsError
from phoropter.models import catalog
from phoropter.models.spec import Backbone, BackboneSpec

# Published counts with 1000 classes: the papers' tables, torchvision's and timm's model cards.
PARAMETERS = {
    "alexnet_2012": 62_378_344,
    "alexnet": 61_100_840,
    "vgg19": 143_667_240,
    "resnet50": 25_557_032,
    "resnet152": 60_192_808,
    "efficientnet_b0": 5_288_548,
    "convnext_tiny": 28_589_128,
    "vit_small_patch16_224": 22_050_664,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch32_224": 88_224_232,
    "coatnet_1_224": 42_225_776,
    "coatnet_1_rw_224": 41_721_502,
    "swin_tiny_patch4_window7_224": 28_288_354,
    "swin_base_patch4_window7_224": 87_768_224,
    "poolformerv2_s24": 21_341_464,
    "poolformerv2_m48": 73_346_056,
    "regnety_160": 83_590_140,
    "deit_base_patch16_224": 86_567_656,
    "deit_base_distilled_patch16_224": 87_338_192,
}


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_counts_equal_the_published_ones(name: str, count: int) -> None:
    assert catalog.find_architecture(name).parameters == count


@pytest.mark.parametrize(("name", "giga"), [("alexnet", 0.714), ("vgg19", 19.632), ("resnet50", 4.089)])
def test_multiply_adds_equal_those_published_by_torchvision(name: str, giga: float) -> None:
    macs = catalog.find_architecture(name).macs
    assert macs is not None and macs / 1e9 == pytest.approx(giga, abs=0.001)


def test_multiply_adds_of_weights_for_a_larger_side() -> None:
    default, large = (catalog.find_architecture(n) for n in ("convnext_tiny", "convnext_tiny.fb_in22k_ft_in1k_384"))
    assert (default.side, large.side) == (224, 384)
    assert (large.macs, large.macs_side) == (default.macs, 224)
    counts = [(entry.estimate_macs(side) or 0) / 1e9 for entry in (default, large) for side in (224, 384)]
    assert counts == pytest.approx([4.456, 13.09, 4.456, 13.09], abs=0.01)  # 4.5 and 13.1 in Liu et al. 2022


def test_a_tag_selects_its_weights() -> None:
    plain, wide = (
        catalog.find_architecture("swin_tiny_patch4_window7_224"),
        catalog.find_architecture("swin_tiny_patch4_window7_224.ms_in22k"),
    )
    assert (plain.num_classes, wide.num_classes) == (1000, 21841)
    assert wide.parameters - plain.parameters == (21841 - 1000) * (768 + 1)
    assert wide.remote is not None and wide.remote.repo == "timm/swin_tiny_patch4_window7_224.ms_in22k"


def test_preprocessing_belongs_to_the_weights() -> None:
    assert catalog.find_architecture("vit_small_patch16_224").preprocessing.mean == (0.5, 0.5, 0.5)
    assert catalog.find_architecture("resnet50").preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet5", "did you mean 'resnet50'"),
        ("ResNet50", "did you mean 'resnet50'"),
        ("resnet50.a9_in1k", "has no weights 'a9_in1k'; it has a1_in1k"),
        ("resnet50.a9_in1k", "named by its path: .backbone: resnet50, weights: FILE"),
        ("convnext_tiny_in22ft1k", "calls it 'convnext_tiny.fb_in22k_ft_in1k' now"),
        ("zzzzzzzzzz", "`phoropter backbones` lists"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(name: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        catalog.find_architecture(name)


def test_names_match_patterns_with_and_without_tags() -> None:
    assert {"resnet50", "resnet152"} <= set(catalog.list_architectures("resnet*"))
    assert "alexnet_2012" in catalog.list_architectures() and "alexnet" in catalog.list_architectures()
    assert set(catalog.list_architectures("resnet50.tv*")) == {"resnet50.tv_in1k", "resnet50.tv2_in1k"}


def test_the_side_is_that_of_the_spec_or_of_the_weights() -> None:
    assert catalog.resolve_side(BackboneSpec(name="resnet50", weights="random")) == 224
    assert catalog.resolve_side(BackboneSpec(name="resnet50", weights="random", size=64)) == 64
    assert catalog.resolve_side(BackboneSpec(name="resnet50", weights="not/there")) == 224


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("vit_base_patch16_224", 100, "size 96 or 112 would work"),
        ("halonet26t", 224, "images of 256 pixels only"),
        ("resnet50", 16, "size 32 would work"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_at_plan_time(name: str, size: int, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        catalog.check_weights(BackboneSpec(name=name, weights="random", size=size))


def test_a_size_that_fits_is_accepted() -> None:
    catalog.check_weights(BackboneSpec(name="vit_base_patch16_224", weights="random", size=96))
    catalog.check_weights(BackboneSpec(name="resnet50", weights="random", size=33))


def test_pretrained_where_there_are_no_weights_is_refused() -> None:
    with pytest.raises(WeightsError, match="alexnet_2012 has no public weights; write `weights: random`"):
        catalog.check_weights(BackboneSpec(name="alexnet_2012"))


def test_identity_depends_on_the_contents_of_a_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one.pth", tmp_path / "other.pth"
    one.write_bytes(b"weights")
    other.write_bytes(b"weights")
    same = [catalog.identify_weights(BackboneSpec(name="resnet18", weights=p.name), tmp_path) for p in (one, other)]
    assert same[0] == same[1]
    other.write_bytes(b"weights, trained on")
    assert catalog.identify_weights(BackboneSpec(name="resnet18", weights="other.pth"), tmp_path) != same[0]
    assert catalog.identify_weights(BackboneSpec(name="resnet18", weights="random")) == "random"


def test_a_name_known_only_to_another_timm_is_looked_up_there(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = catalog._load_catalog()
    expected = catalog.find_architecture("test_convnext")
    without = {k: v for k, v in whole["architectures"].items() if k != "test_convnext"}
    monkeypatch.setattr(catalog, "_load_catalog", lambda: {**whole, "timm": "0.0", "architectures": without})
    assert catalog.find_architecture("test_convnext") == expected


def test_the_catalogue_matches_the_pinned_timm() -> None:
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text()
    assert f"timm=={catalog._load_catalog()['timm']}\n" in constraints


def test_planning_loads_neither_torch_nor_timm() -> None:
    code = """
import json, sys
from phoropter.models import catalog, spec
b = spec.BackboneSpec(name="resnet50", weights="random", size=64)
catalog.check_weights(b); catalog.resolve_side(b); catalog.identify_weights(b); catalog.list_architectures("vit*")
print(json.dumps([m for m in ("torch", "timm", "torchvision", "safetensors", "huggingface_hub") if m in sys.modules]))
"""
    answer: Any = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert answer == []


def test_a_custom_backbone_describes_itself_without_being_built() -> None:
    def explode() -> None:
        raise AssertionError("built")

    spec = BackboneSpec(name=Backbone("toy", build=explode, width=16, input_size=96, mean=(0.1, 0.2, 0.3)))
    entry = catalog.describe_backbone(spec)
    assert (entry.num_features, entry.side, entry.parameters, entry.macs, entry.num_classes) == (16, 96, None, None, 0)
    assert catalog.resolve_side(spec) == 96 and catalog.resolve_side(spec.with_changes(size=48)) == 48
    assert catalog.resolve_preprocessing(spec.with_changes(std=(1, 1, 1))).mean == (0.1, 0.2, 0.3)
    assert catalog.resolve_side(BackboneSpec(name=Backbone("toy", build=explode, width=16))) == 224
    catalog.check_weights(spec)
    assert catalog.identify_weights(spec) == "built"


def test_custom_weights_are_identified_by_contents_and_must_be_there(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in ("one", "copy", "other")]
    for path, value in zip(paths, (1.0, 1.0, 2.0), strict=True):
        save_file({"w": torch.full((2,), value)}, path)
    one, copy, other = (
        catalog.identify_weights(BackboneSpec(name=Backbone("toy", build=int, width=1, weights=p))) for p in paths
    )
    assert one == copy != other
    with pytest.raises(WeightsError, match="there is no such file"):
        catalog.check_weights(BackboneSpec(name=Backbone("toy", build=int, width=1, weights=tmp_path / "gone.pth")))


def test_a_custom_backbone_may_not_have_a_name_of_timm() -> None:
    with pytest.raises(SpecError, match="timm has a network of this name; give yours another"):
        catalog.check_weights(BackboneSpec(name=Backbone("resnet50", build=int, width=1)))


def test_the_largest_small_side_that_a_network_accepts() -> None:
    for name, most in (
        ("vit_small_patch14_dinov2", 64),
        ("mobilenetv2_100", 64),
        ("vit_small_patch16_224", 70),
        ("resnet50", 9999),
    ):
        spec = BackboneSpec(name=name)
        found = catalog.find_small_side(spec, most)
        catalog.check_size(spec.with_changes(size=found))
        larger = [s for s in range(found + 1, most + 1) if s <= catalog.resolve_side(spec) and accepts(spec.with_changes(size=s))]
        assert found <= most and not larger


def accepts(spec: BackboneSpec) -> bool:
    try:
        catalog.check_size(spec)
    except SpecError:
        return False
    return True
