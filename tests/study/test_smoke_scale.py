"""Smoke versions of students and fusions: the candidates they need remain, and teachers are above chance."""

from __future__ import annotations

from pathlib import Path

from phoropter.models.catalog import check_size
from phoropter.results.stats.trends import MIN_EPOCHS
from phoropter.study.plan import plan_study
from phoropter.study.smoke_scale import MAX_EPOCHS, STUDENT_EPOCHS, TEACHER_EPOCHS, make_smoke_version
from phoropter.study.spec import read_study

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
    assert "vit_small_patch14_dinov2 with its own weights was shown 56 pixels instead of 126" in made.context.smoke_changes


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
        "tuned values: the first and the last of each key, on 2 inner folds",
        "the learning curve kept the share 0.5 of 2",
    }
