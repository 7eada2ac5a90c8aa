"""Networks and what they were pretrained on: one pretraining, several, from nothing, and by file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_study import Made, make_study

from phoropter.report.page import read_report_input
from phoropter.report.sections.candidates.networks import networks_section


def section_of(folder: Path, backbones: dict[str, list[dict[str, Any]]]) -> tuple[str, dict[str, tuple[str, ...]]] | None:
    """The sentence, and by network the other cells, of a study whose candidates have these backbones."""
    made = Made(accuracies=dict.fromkeys(backbones, 0.8), rows=120, folds=2, seeds=(0,), pictures=0, epochs=1)
    inputs = read_report_input(make_study(folder, made).folder)
    for candidate in inputs.summary.candidates:
        for run in candidate.runs:
            run.record["candidate"]["backbones"] = backbones[candidate.name]
    found = networks_section(inputs)
    if found is None:
        return None
    (table,) = found.blocks
    return found.paragraphs[0], {str(row.values[1]): tuple(map(str, (row.values[0], *row.values[2:]))) for row in table.rows}  # type: ignore[union-attr]


def test_one_pretraining_is_said_once(tmp_path: Path) -> None:
    made = section_of(
        tmp_path,
        {"a": [{"name": "resnet50.a1_in1k"}], "b": [{"name": "swin_tiny_patch4_window7_224.ms_in1k"}, {"name": "vgg19"}]},
    )
    assert made is not None
    text, networks = made
    assert text == "All networks were pretrained on the same data: ImageNet-1k."
    assert networks["resnet50"] == ("a", "a1_in1k", "ImageNet-1k")
    assert networks["vgg19"] == ("b", "tv_in1k", "ImageNet-1k"), "timm's default, where the name has no tag"


def test_several_pretrainings_are_a_reason_for_a_difference(tmp_path: Path) -> None:
    file = "weights/mobilenetv1_100.tf_qat_in1k.safetensors"
    made = section_of(
        tmp_path,
        {
            "a": [{"name": "vit_small_patch16_224.augreg_in21k_ft_in1k"}],
            "b": [{"name": "mobilenetv1_100", "weights": file}],
            "c": [{"name": "resnet18", "weights": "random"}],
            "d": [{"name": "mine", "weights": "pretrained"}],
        },
    )
    assert made is not None
    text, networks = made
    assert "ImageNet-21k, then ImageNet-1k" in text and "nothing)" in text and "may come from that" in text
    assert networks["mobilenetv1_100"] == ("b", "mobilenetv1_100.tf_qat_in1k.safetensors", "ImageNet-1k")
    assert networks["resnet18"] == ("c", "random", "nothing: random weights")
    assert networks["mine"] == ("d", "its own", "not told by its name")


def test_networks_from_nothing_have_no_section(tmp_path: Path) -> None:
    assert (
        section_of(tmp_path, {"a": [{"name": "resnet18", "weights": "random"}], "b": [{"name": "vgg11", "weights": "random"}]})
        is None
    )
