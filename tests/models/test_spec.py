"""Specs refuse contradictions in one sentence, and take a Backbone of the user's own where a name would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_networks import WIDTH, build_toy, build_wide

from phoropter.core.errors import SpecError
from phoropter.core.extensions import trust_code
from phoropter.core.spec import validate_as
from phoropter.models.spec import Backbone, BackboneSpec, ClassifierSpec

RESNET, VIT = {"name": "test_resnet", "weights": "random"}, {"name": "test_vit", "weights": "random"}
TOKEN = {"name": "deit_tiny_distilled_patch16_224", "weights": "random"}


def spec(**fields: Any) -> ClassifierSpec:
    return validate_as(ClassifierSpec, {"backbones": [RESNET], "classes": ["a", "b"], "picture": 64, **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"backbones": [RESNET, VIT]}, "several backbones need a fusion mode"),
        ({"fusion": {}}, "a fusion needs at least two backbones"),
        ({"backbones": [RESNET, VIT], "fusion": {}, "head": {"kind": "pretrained"}}, "cannot be fused"),
        ({"center_crop": 65}, "center_crop 65 is larger than the image's side 64"),
        ({"student": "token"}, "a token student is one network with a distillation token"),
        ({"backbones": [TOKEN, VIT], "fusion": {}, "student": "token"}, "a token student is one network"),
        ({"backbones": [{**RESNET, "pooling": "average"}], "head": {"kind": "pretrained"}}, "leave out pooling: average"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        spec(**fields)


def test_token_students_and_pretrained_heads_of_distilled_networks_read_tokens_separately() -> None:
    assert spec(backbones=[TOKEN], student="token").reads_tokens
    assert spec(backbones=[TOKEN], head={"kind": "pretrained"}).reads_tokens
    assert not spec(backbones=[TOKEN]).reads_tokens
    assert not spec(head={"kind": "pretrained"}).reads_tokens


TOY = Backbone("toy", build=build_toy, width=WIDTH)


def test_a_custom_backbone_is_taken_as_a_name_and_only_its_name_and_version_are_kept() -> None:
    made = BackboneSpec(name=TOY, size=48)
    assert (made.name, made.custom, made.weights, made.reference) == ("toy", TOY, "built", TOY)
    assert made.plain()["custom"] == {"name": "toy", "version": "1"} and made.plain()["name"] == "toy"
    assert made.with_changes(size=64).custom is TOY and made.with_changes(weights="random").weights == "random"
    assert "custom" not in BackboneSpec(name="resnet50").plain()


@pytest.mark.parametrize(
    ("spec", "path", "seeded"),
    [
        ({"name": "resnet50"}, None, False),
        ({"name": "resnet50", "weights": "random"}, None, True),
        ({"name": "resnet50", "weights": "a/b.pth"}, "a/b.pth", False),
        ({"name": TOY}, None, True),
        ({"name": TOY, "weights": "pretrained"}, None, True),
        ({"name": TOY, "weights": "a/b.pth"}, "a/b.pth", False),
        ({"name": Backbone("toy", build=build_toy, width=WIDTH, weights="c.pth")}, "c.pth", False),
        ({"name": Backbone("toy", build=build_toy, width=WIDTH, weights="c.pth"), "weights": "random"}, None, True),
    ],
)
def test_where_weights_come_from_and_whether_the_seed_decides_them(spec: dict[str, Any], path: str | None, seeded: bool) -> None:
    made = BackboneSpec(**spec)
    assert (made.weights_path, made.depends_on_seed) == (path, seeded)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "width of the backbone 'toy' is 0, expected at least 1"),
        ({"input_size": 4}, "input_size of the backbone 'toy' is 4, expected 8 to 2048 pixels"),
        ({"std": (1.0, 0.0, 1.0)}, "with every std above 0"),
        ({"build": 3}, "build of the backbone 'toy' is 3, expected a function"),
        ({"name": "toy.v1"}, "contains '.', which separates timm's tags"),
        ({"name": "my net"}, "expected a word"),
    ],
)
def test_a_custom_backbone_out_of_range_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Backbone(**{"name": "toy", "build": build_toy, "width": WIDTH, **fields})


def test_a_file_names_a_custom_backbone_where_code_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "nets_of_a_file.py").write_text(
        "from phoropter import Backbone\nfrom torch import nn\nNET = Backbone('net', build=nn.Identity, width=3)\nOTHER = 3\n"
    )
    with pytest.raises(SpecError, match="is run only where it is trusted"):
        validate_as(BackboneSpec, {"name": "nets_of_a_file:NET"})
    with trust_code(tmp_path):
        made = validate_as(BackboneSpec, {"name": "nets_of_a_file:NET"})
        assert made.custom is not None and (made.name, made.custom.reference) == ("net", "nets_of_a_file:NET")
        with pytest.raises(SpecError, match="is a int, expected a phoropter Backbone"):
            validate_as(BackboneSpec, {"name": "nets_of_a_file:OTHER"})


def test_a_custom_backbone_pools_by_itself() -> None:
    with pytest.raises(SpecError, match="'toy' averages its own map; leave pooling out"):
        validate_as(BackboneSpec, {"name": TOY, "pooling": "average"})


def test_the_source_digest_leaves_out_where_the_weights_are() -> None:
    here, there = (Backbone("toy", build=build_toy, width=WIDTH, weights=w) for w in ("a.pth", "b.pth"))
    assert here.source_digest() == there.source_digest() == TOY.source_digest()
    assert here.source_digest() != Backbone("toy", build=build_wide, width=WIDTH).source_digest()
