"""Bundles of custom backbones state the code they need, and are loaded with that code or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_networks import WIDTH, build_toy, build_wide

from phoropter.core.errors import WeightsError
from phoropter.core.extensions import trust_code
from phoropter.models.bundle_description import read_bundle_description
from phoropter.models.classifier import Classifier, build_classifier, load_classifier, save_classifier
from phoropter.models.spec import Backbone, BackboneSpec, ClassifierSpec, FusionSpec

TOY = Backbone("toy", build=build_toy, width=WIDTH)
MODULE = """
from phoropter import Backbone
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())

NET = Backbone("net", build=build, width=5, version="{version}")
"""


def build(*backbones: Any, **fields: Any) -> Classifier:
    specs = tuple(b if isinstance(b, BackboneSpec) else BackboneSpec(name=b, size=32) for b in backbones)
    return build_classifier(ClassifierSpec(backbones=specs, classes=("a", "b"), picture=32, **fields), seed=3)


def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Classifier, Path]:
    ours = build(TOY)
    save_classifier(ours, tmp_path / "bundle")
    return ours, tmp_path / "bundle"


def test_a_bundle_gives_back_the_same_logits_with_the_object(saved: tuple[Classifier, Path]) -> None:
    ours, folder = saved
    code = json.loads((folder / "bundle.json").read_text())["code"]
    assert code == [{"reference": None, "name": "toy", "version": "1", "source_digest": TOY.source_digest()}]
    again = load_classifier(folder, [TOY])
    assert torch.equal(again(images()), ours(images()))
    assert [b.identity for b in again.branches] == [b.identity for b in ours.branches]
    save_classifier(again, folder.parent / "copy")
    assert (folder.parent / "copy" / "bundle.json").read_bytes() == (folder / "bundle.json").read_bytes()


def test_a_fusion_with_a_timm_network_is_loaded_and_states_its_one_custom_network(tmp_path: Path) -> None:
    ours = build(TOY, BackboneSpec(name="test_resnet", weights="random", size=32), fusion=FusionSpec())
    save_classifier(ours, tmp_path / "bundle")
    assert [c["name"] for c in read_bundle_description(tmp_path / "bundle").code] == ["toy"]
    assert torch.equal(load_classifier(tmp_path / "bundle", [TOY])(images()), ours(images()))


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        ([], r"needs the code of the backbone 'toy' \(version 1\), which is not stored with it; pass the object as extensions="),
        ([Backbone("other", build=build_toy, width=WIDTH)], "needs the code of the backbone 'toy'"),
        ([Backbone("toy", build=build_toy, width=WIDTH, version="2")], "saved with version 1 .* but version 2 was given"),
        ([Backbone("toy", build=build_wide, width=WIDTH)], r"saved with other code of the backbone 'toy' \(version 1\)"),
    ],
)
def test_missing_or_changed_code_is_refused(saved: tuple[Classifier, Path], extensions: list[Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_classifier(saved[1], extensions)


def test_a_bundle_without_custom_networks_names_no_code(tmp_path: Path) -> None:
    save_classifier(build(BackboneSpec(name="test_resnet", weights="random", size=32)), tmp_path / "bundle")
    assert "code" not in json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    load_classifier(tmp_path / "bundle")


def test_a_reference_is_imported_only_where_code_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "nets_of_a_bundle.py").write_text(MODULE.format(version="1"))
    with trust_code(tmp_path):
        ours = build("nets_of_a_bundle:NET")
        save_classifier(ours, tmp_path / "bundle")
    message = r"or trust its code \(nets_of_a_bundle:NET\) by --trust-code if you have read it"
    with pytest.raises(WeightsError, match=message):
        load_classifier(tmp_path / "bundle")
    with trust_code(tmp_path):
        assert torch.equal(load_classifier(tmp_path / "bundle")(images()), ours(images()))


def test_a_reference_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    save_classifier(build(TOY), tmp_path / "bundle")
    file = tmp_path / "bundle" / "bundle.json"
    file.write_text(file.read_text().replace('"reference": null', '"reference": "no_such_module:NET"'))
    with trust_code(tmp_path), pytest.raises(WeightsError, match=r"needs the backbone 'toy': .*cannot be imported"):
        load_classifier(tmp_path / "bundle")


def test_a_bundle_of_a_custom_network_serves_as_weights(saved: tuple[Classifier, Path]) -> None:
    ours, folder = saved
    again = build(BackboneSpec(name=TOY, weights=str(folder)))
    assert again.branches[0].identity == ours.branches[0].identity
    fused = build(
        BackboneSpec(name=TOY, weights=str(folder)),
        BackboneSpec(name=TOY, weights=str(folder), seed=1),
        fusion=FusionSpec(mode="ensemble"),
    )
    torch.testing.assert_close(fused(images()).softmax(1), ours(images()).softmax(1))
