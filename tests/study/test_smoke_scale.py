"""Smoke versions of students and fusions: the candidates they need remain, and teachers are above chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from phoropter.core.spec import SourceMap, validate_as
from phoropter.models.catalog import check_size
from phoropter.results.stats.trends import MIN_EPOCHS
from phoropter.study.plan import plan_study
from phoropter.study.records.other_study import restore_written_out, study_to_plain
from phoropter.study.smoke_scale import (
    FROZEN_FOLDS,
    FROZEN_ROWS,
    HEAD_EPOCHS,
    LEAST_LR,
    MAX_EPOCHS,
    MAX_ROWS,
    STUDENT_EPOCHS,
    TEACHER_EPOCHS,
    make_smoke_version,
)
from phoropter.study.spec import StudySpec, read_study

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 200}
protocol: {split: stratified-k-fold, folds: 2}
recipe: finetune
candidates:
  - {name: one, backbone: resnet50.a1_in1k}
  - {name: other, backbone: resnet50.a2_in1k}
  - {name: by one, student: vit_small_patch16_224, teacher: one}
  - {name: by other, student: vit_small_patch16_224, teacher: other}
  - {name: from scratch, student: vit_small_patch16_224, teacher: other, alpha: 0}
  - {name: mean, fuse: [other, vit_small_patch16_224], mode: ensemble}
"""


def test_students_and_ensembles_of_equal_candidates_are_merged_too(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    made = make_smoke_version(read_study(file)[0])
    by_name = {c.name: c for c in made.parsed_candidates}
    assert "other" not in by_name and by_name["mean"].members[0] == "one"  # one small network, by its first name
    taught = {name: c.distillation.teacher for name, c in by_name.items() if c.distillation}
    assert taught == {"by one": "one", "from scratch": "one"}  # and the students of one teacher are one student
    assert by_name["one"].recipe.total_epochs == TEACHER_EPOCHS
    planned = plan_study(made, tmp_path / "cache")
    assert all(key in planned.by_key for run in planned.runs for key in run.needs)


def test_leave_one_group_out_becomes_two_group_folds() -> None:
    """Fifteen people and ten candidates would be 150 runs; groups are still kept together."""
    made = make_smoke_version(read_study("sonic-wesad")[1])
    assert (made.protocol.split, made.protocol.folds) == ("stratified-group-k-fold", 2)
    assert "groups were held out in 2 folds instead of one at a time" in made.context.smoke_changes
    assert not made.protocol.allow_group_overlap


def test_small_students_keep_their_first_layer() -> None:
    made = {c.name: c.backbones[0] for c in make_smoke_version(read_study("vit-teaches-cnn")[1]).parsed_candidates}
    plain, stem = made["ResNet-50, taught by DeiT-B"], made["ResNet-50 CIFAR stem, taught by DeiT-B"]
    assert (plain.name, plain.size, plain.options) == ("test_resnet", 32, {})
    assert (stem.name, stem.size, stem.options) == ("resnet18", 32, {"stem": "cifar"})
    assert made["DeiT-B"].size == 64  # the teacher sees more


def test_students_and_their_baselines_get_enough_epochs_for_a_trend() -> None:
    switch = make_smoke_version(read_study("vit-teaches-cnn")[1])
    epochs = {c.name: c.recipe.total_epochs for c in switch.parsed_candidates}
    assert epochs.pop("DeiT-B") == TEACHER_EPOCHS
    assert set(epochs.values()) == {STUDENT_EPOCHS} and STUDENT_EPOCHS >= MIN_EPOCHS
    assert not any(f"at most {MAX_EPOCHS} epochs" in words for words in switch.context.smoke_changes)


def test_a_network_with_its_own_weights_is_shown_a_size_that_it_accepts() -> None:
    made = make_smoke_version(read_study("clinical-questions")[0])
    sides = {c.name: c.backbones[0].size for c in made.parsed_candidates if c.backbones}
    assert sides["MobileNetV1"] == 64 and sides["ViT"] == 56, "patches of 14 pixels"
    for backbone in (b for c in made.parsed_candidates for b in c.backbones):
        check_size(backbone)
    said = "images were shown at 56 pixels instead of 126 to vit_small_patch14_dinov2, which kept its own weights"
    assert said in made.context.smoke_changes


def test_fewer_values_are_tuned_and_one_share_is_kept(tmp_path: Path) -> None:
    more = "learning_curve: [0.1, 0.5]\ntune: {recipe.lr: [1e-4, 1e-3, 1e-2], folds: 5, candidates: [one]}\n"
    text = STUDY.replace("  - {name: by one, student: vit_small_patch16_224, teacher: one}\n", "").replace(
        "mean, fuse: [other", "mean, fuse: [one"
    )
    (tmp_path / "study.yaml").write_text(text + more)
    small = make_smoke_version(read_study(tmp_path / "study.yaml")[0])
    assert small.tune is not None and small.learning_curve is not None
    assert (small.tune.grid, small.tune.folds, small.tune.candidates) == ({"recipe.lr": [1e-4, 1e-2]}, 2, ("one",))
    assert small.learning_curve.shares == (0.5,)
    assert {note for note in small.context.smoke_changes if "tuned" in note or "curve" in note} == {
        "values were tuned on 2 inner folds",
        "the learning curve kept the share 0.5 of 2",
    }


def test_what_a_small_network_may_not_have_is_left_out(tmp_path: Path) -> None:
    """test_vit has 6 blocks, and the small sibling of many networks has no attention."""
    file = tmp_path / "study.yaml"
    last = "{phases: [{train: head, epochs: 1, lr: 1e-3}, {train: last-8, epochs: 1, lr: 1e-4}]}"
    file.write_text(
        "name: tiny\ndata: {digits: true, size: 32, max_samples: 200}\ncandidates:\n"
        f"  - {{name: last, backbone: vit_small_patch16_224, recipe: {last}}}\n"
        "  - {name: adapted, backbone: vit_small_patch16_224, recipe: {preset: finetune, lora: {}, layer_decay: 0.7}}\n"
    )
    made = make_smoke_version(read_study(file)[0])
    by_name = {c.name: c.recipe for c in made.parsed_candidates}
    assert [p.train for p in by_name["last"].phases] == ["head", "last-1"]
    assert by_name["adapted"].lora is by_name["adapted"].layer_decay is None
    assert "without layer_decay and lora: a small network may not have the layers for it" in made.context.smoke_changes


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([10, 20, 60], [1, MAX_EPOCHS]),
        ([2, 60], [2, MAX_EPOCHS]),
        ([50, 60], [5, MAX_EPOCHS]),
        ([59, 60], [MAX_EPOCHS - 1, MAX_EPOCHS]),
    ],
)
def test_epochs_that_are_tuned_or_swept_are_few_and_still_differ(tmp_path: Path, values: list[int], expected: list[int]) -> None:
    for key in ("tune", "sweep"):
        text = (
            STUDY.split("candidates:")[0]
            + f"{key}: {{recipe.epochs: {values}}}\ncandidates: [{{name: one, backbone: resnet50}}]\n"
        )
        (tmp_path / "study.yaml").write_text(text)
        small = make_smoke_version(read_study(tmp_path / "study.yaml")[0])
        found = small.sweep if key == "sweep" else small.tune.grid if small.tune else {}
        assert found == {"recipe.epochs": expected}
        assert f"the values of recipe.epochs: at most {MAX_EPOCHS}" in small.context.smoke_changes


def test_networks_that_lose_their_weights_are_trained_at_a_rate_for_random_ones(tmp_path: Path) -> None:
    made = {c.name: c.recipe.phases[-1].lr for c in make_smoke_version(read_study("alexnet-and-after")[1]).parsed_candidates}
    assert made.pop("ConvNeXt, fine-tuned") == LEAST_LR and set(made.values()) == {1e-4}, (
        "the others begin from random weights in full too"
    )


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights: two of convolution, of which one keeps its classes, and one of attention."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("mobilenetv1_100.mine", "mobilenetv2_100.mine", "vit_small_patch14_dinov2.mine", "no_network.mine"):
        save_file({"x": np.zeros(1, dtype=np.float32)}, folder / f"{name}.safetensors")
    (folder / "mobilenetv2_100.mine.json").write_text('{"num_classes": 1000}')
    monkeypatch.setenv("PHOROPTER_WEIGHTS", str(folder))
    return folder


def small_parts(name: str) -> list[StudySpec]:
    return [make_smoke_version(part) for part in read_study(name)]


def networks(study: StudySpec) -> dict[str, Any]:
    return {c.name: [b.name for b in c.backbones] for c in study.parsed_candidates}


def test_weights_at_hand_stand_in_frozen_and_fusions_of_them_are_trained_to_the_end(weights: Path) -> None:
    small = small_parts("sonic-wesad")[0]
    assert networks(small)["ViT"] == ["vit_small_patch14_dinov2"] and networks(small)["VGG19"] == ["mobilenetv1_100"]
    assert networks(small)["VGG19 + ResNet50"] == ["mobilenetv1_100", "mobilenetv2_100"]
    for c in small.parsed_candidates:
        assert c.frozen and c.stores_features and [p.train for p in c.recipe.phases] == ["head"]
        assert c.recipe.total_epochs == HEAD_EPOCHS and all(
            b.weights_path == str(weights / f"{b.name}.mine.safetensors") for b in c.backbones
        )
        assert {p.lr for p in c.recipe.phases} == {3e-4}, "its heads are dense"
    assert [p.protocol.folds for p in small_parts("sonic-wesad")[:2]] == [FROZEN_FOLDS, 2]
    assert small.data.max_samples == FROZEN_ROWS and small_parts("attention-or-convolution")[0].data.max_samples == MAX_ROWS
    assert small.data.size == 128 and {b.size for c in small.parsed_candidates for b in c.backbones} == {128, 126}
    said = " ".join(small.context.smoke_changes)
    assert (
        "in place of vgg19.tv_in1k: mobilenetv1_100.mine at 128 pixels, with its own weights" in said
        and "were frozen; their heads were trained" in said
    )


def test_frozen_networks_that_see_new_pictures_in_every_epoch_have_fewer_rows(weights: Path) -> None:
    births = {part.name: part for part in small_parts("ctg-high-risk")}
    hospitals = births["ctg-high-risk-simulated-by-hospital"]
    assert all(c.frozen and not c.stores_features for c in hospitals.parsed_candidates), "cut and mixed anew in every epoch"
    assert hospitals.data.max_samples == MAX_ROWS // 2, "as every hospital is held out once"
    assert births["ctg-high-risk-simulated"].data.max_samples == MAX_ROWS
    assert births["ctg-high-risk-simulated-uc"].data.max_samples == FROZEN_ROWS


def test_what_keeps_its_own_head_takes_weights_with_classes(weights: Path) -> None:
    small = small_parts("alexnet-and-after")[0]
    assert networks(small) == {"AlexNet": ["mobilenetv2_100"], "AlexNet, ten crops": ["mobilenetv2_100"]}
    assert all(c.head.kind == "pretrained" and not c.recipe.phases and not c.frozen for c in small.parsed_candidates)


def test_a_solved_teacher_stays_solved_and_nothing_else_is_told(tmp_path: Path) -> None:
    taught = (
        STUDY.split("candidates:")[0] + "candidates:\n  - {name: one, backbone: test_resnet, frozen: true, recipe: logistic}\n"
    )
    (tmp_path / "study.yaml").write_text(taught + "  - {name: by one, student: test_vit, weights: random, teacher: one}\n")
    small = make_smoke_version(read_study(tmp_path / "study.yaml")[0])
    recipe = {c.name: c.recipe for c in small.parsed_candidates}["one"]
    assert (
        recipe.l2_penalties and recipe.total_epochs == 1 and not any("teachers" in said for said in small.context.smoke_changes)
    )


@pytest.mark.parametrize("name", ["vit-teaches-cnn", "sonic-wesad", "clinical-questions", "attention-or-convolution"])
def test_what_is_recorded_of_a_smoke_version_reads_as_the_same_study(name: str) -> None:
    """`refit` and `report` read study.json: recipes are whole there, with the name of each augmentation step."""
    for small in small_parts(name):
        recorded = restore_written_out(json.loads(json.dumps(study_to_plain(small))), SourceMap())
        again = validate_as(StudySpec, recorded).with_context(base=small.context.base)
        assert again.parsed_candidates == small.parsed_candidates and again.sweep == small.sweep
        assert again.parsed_recipe == small.parsed_recipe


def test_students_keep_random_networks_and_teachers_take_weights(weights: Path) -> None:
    small = {c.name: c for c in small_parts("vit-teaches-cnn")[0].parsed_candidates}
    assert small["RegNetY-16GF"].frozen and small["RegNetY-16GF"].stores_features
    for name in ("DeiT-B distilled", "DeiT-B"):
        assert small[name].backbones[0].name == "deit_tiny_distilled_patch16_224" and not small[name].frozen


def test_a_swept_augmentation_is_seen_by_frozen_networks_for_few_epochs(weights: Path) -> None:
    small = small_parts("ctg-high-risk")[0]
    frozen = {c.name: c.recipe.total_epochs for c in small.parsed_candidates if c.frozen}
    assert "ResNet50" in frozen and set(frozen.values()) == {MAX_EPOCHS}


@pytest.mark.usefixtures("weights")
def test_a_screening_leaves_weights_at_hand_aside(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        STUDY.split("  - {name: by one")[0] + "screening: {keep: 1, final_recipe: {epochs: 9}}\n"
    )
    small = make_smoke_version(read_study(tmp_path / "study.yaml")[0])
    assert all(b.weights == "random" for c in small.parsed_candidates for b in c.backbones)
    assert small.screening is not None and small.screening.final_recipe.total_epochs == MAX_EPOCHS  # type: ignore[union-attr]


def test_an_average_has_the_networks_of_its_members(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    small = {c.name: c for c in make_smoke_version(read_study(tmp_path / "study.yaml")[0]).parsed_candidates}
    average = small["mean"]
    assert average.backbones == tuple(b for name in average.members for b in small[name].backbones)
