"""Members of fusions by the names of candidates, and teachers as mappings."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.entry import CandidateEntry
from phoropter.training.candidates.presets import PRESETS

V1 = {"name": "V1", "backbone": "mobilenetv1_100", "weights": "v1.safetensors", "frozen": True}
V2 = {"name": "V2", "backbone": {"backbone": "mobilenetv2_100", "weights": "v2.safetensors", "size": 192}, "frozen": True}


def parse(*entries: Any) -> dict[str, Any]:
    return {candidate.name: candidate for candidate in parse_candidates(list(entries), PRESETS["probe"])}


@pytest.mark.parametrize("mode", ["logits", "concat"])
@pytest.mark.parametrize("make", [dict, lambda entry: CandidateEntry.model_validate(entry)])
def test_a_fusion_may_name_candidates(mode: str, make: Any) -> None:
    fused = parse(V1, V2, make({"name": "both", "fuse": ["V2", "V1"], "mode": mode, "frozen": True}))["both"]
    assert [(b.name, b.weights, b.size) for b in fused.backbones] == [
        ("mobilenetv2_100", "v2.safetensors", 192),
        ("mobilenetv1_100", "v1.safetensors", None),
    ]
    again = {"name": "both", "fuse": [V2["backbone"], {"name": "mobilenetv1_100", "weights": "v1.safetensors"}], "mode": mode}
    assert fused.identity() == parse({**again, "frozen": True})["both"].identity()


def test_all_pairs_of_candidates() -> None:
    pairs = [c for c in parse(V1, V2, {"fuse": "all-pairs", "of": ["V1", "V2"], "frozen": True}).values() if c.fusion]
    assert [[b.weights for b in pair.backbones] for pair in pairs] == [["v1.safetensors", "v2.safetensors"]]


def test_a_fusion_is_called_by_the_names_that_it_was_given() -> None:
    other = {"name": "V2 at 96", "backbone": {**V2["backbone"], "size": 96}, "frozen": True}
    found = parse(V1, V2, other, *({"fuse": ["V1", name], "frozen": True} for name in ("V2", "V2 at 96")))
    assert [name for name, c in found.items() if c.fusion] == ["V1 + V2 frozen", "V1 + V2 at 96 frozen"]
    pairs = parse(V1, V2, other, {"fuse": "all-pairs", "of": ["V1", "V2", "V2 at 96", "test_vit"], "mode": "concat"})
    assert [name for name, c in pairs.items() if c.fusion] == [
        *("V1 + V2 (concat)", "V1 + V2 at 96 (concat)", "V1 + test_vit (concat)"),
        *("V2 + V2 at 96 (concat)", "V2 + test_vit (concat)", "V2 at 96 + test_vit (concat)"),
    ]
    mean = parse(V1, V2, {"fuse": ["V1", "V2"], "mode": "ensemble"})
    assert "V1 + V2 (ensemble)" in mean


def test_an_ensemble_takes_the_candidates_themselves() -> None:
    assert parse(V1, V2, {"name": "mean", "fuse": ["V1", "V2"], "mode": "ensemble"})["mean"].members == ("V1", "V2")


def test_a_teacher_may_be_a_mapping() -> None:
    teacher = {"backbone": "vit_small_patch16_224", "weights": "vit.safetensors", "frozen": True}
    found = parse({"name": "small", "student": "test_resnet", "teacher": teacher})
    assert found["small"].distillation.teacher == "vit_small_patch16_224 frozen (teacher)"
    taught_by = found["vit_small_patch16_224 frozen (teacher)"]
    assert taught_by.frozen and taught_by.backbones[0].weights == "vit.safetensors"
    both = parse(*({"name": n, "student": b, "teacher": teacher} for n, b in (("a", "test_resnet"), ("b", "test_vit"))))
    assert len(both) == 3, "two students share one teacher"
    candidate = parse({"name": "big", **teacher}, {"name": "small", "student": "test_resnet", "teacher": teacher})
    assert candidate["small"].distillation.teacher == "big" and len(candidate) == 2, "it is a candidate already"
    own = parse({"name": "small", "student": "test_resnet", "teacher": {**teacher, "name": "big"}})
    assert own["small"].distillation.teacher == "big" and own["big"].frozen


def test_a_student_as_a_mapping_is_told_how_it_is_written() -> None:
    entry = {"student": {"backbone": "test_vit", "weights": "random"}, "teacher": "test_resnet"}
    with pytest.raises(SpecError, match="what else is said of it stands beside it"):
        parse(entry)


def test_a_wrong_key_of_a_teacher_is_told() -> None:
    with pytest.raises(SpecError, match=r"unknown key 'frozn'.*did you mean 'frozen'"):
        parse({"student": "test_resnet", "teacher": {"backbone": "test_vit", "frozn": True}})
