"""ClassifierSpec: what contradicts itself is refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import validate_as
from phoropter.models.spec import ClassifierSpec

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
        ({"crop": 65}, "crop 65 is larger than the image's side 64"),
        ({"student": "token"}, "a token student is one network with a distillation token"),
        ({"backbones": [TOKEN, VIT], "fusion": {}, "student": "token"}, "a token student is one network"),
        ({"backbones": [{**RESNET, "pool": "average"}], "head": {"kind": "pretrained"}}, "leave out pool: average"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        spec(**fields)


def test_tokens_are_read_apart_by_students_and_by_a_distilled_networks_own_heads() -> None:
    assert spec(backbones=[TOKEN], student="token").reads_tokens
    assert spec(backbones=[TOKEN], head={"kind": "pretrained"}).reads_tokens
    assert not spec(backbones=[TOKEN]).reads_tokens
    assert not spec(head={"kind": "pretrained"}).reads_tokens
