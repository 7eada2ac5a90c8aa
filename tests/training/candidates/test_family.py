"""The family of a candidate."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.models import catalog
from phoropter.training.candidates import family
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import parse_recipe


def families(*entries: Any) -> list[str]:
    return [family.candidate_family(c) for c in parse_candidates(list(entries), parse_recipe("finetune"))]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("resnet50", "cnn"), ("mobilenetv3_small_100", "cnn"), ("convnext_tiny", "cnn"), ("mobilenetv4_conv_small", "cnn")),
        *(("vit_tiny_patch16_224", "attention"), ("swin_tiny_patch4_window7_224", "attention"), ("test_vit", "attention")),
        *(
            ("coatnet_0_rw_224", "hybrid"),
            ("mobilevit_s", "hybrid"),
            ("vit_base_r50_s16_224", "hybrid"),
            ("fastvit_sa12", "hybrid"),
        ),
        *(("fastvit_t8", "cnn"), ("mobilenetv4_hybrid_medium", "hybrid"), ("caformer_s18", "hybrid"), ("convformer_s18", "cnn")),
        *(("poolformer_s12", "other"), ("mixer_b16_224", "other"), ("botnet26t_256", "hybrid"), ("repvgg_a0", "cnn")),
    ],
)
def test_the_family_of_a_backbone_is_what_mixes_places(name: str, expected: str) -> None:
    assert families(name) == [expected]


def test_a_fusion_is_fused_and_a_student_distilled_whatever_their_backbones() -> None:
    student = {"student": "test_resnet", "weights": "random", "teacher": "test_vit"}
    fused = {"fuse": ["test_resnet", "test_vit"], "mode": "logits"}
    assert families("test_vit", "test_resnet", fused, student) == ["attention", "cnn", "fused", "distilled"]
    assert families("test_vit", {**student, "alpha": 0})[1] == "cnn"  # nobody teaches it


def test_every_module_of_the_table_exists_and_stands_in_one_family() -> None:
    built_by = {catalog.find_architecture(name).family for name in catalog.list_architectures()}
    listed = [module for modules in family._MODULES.values() for module in modules.split()]
    assert len(set(listed)) == len(listed) and set(listed) | set(family._EXCEPTIONS) <= built_by
    assert built_by - set(listed) - set(family._EXCEPTIONS) == {"efficientvim", "focalnet", "mlp_mixer", "sequencer"}
