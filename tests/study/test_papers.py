"""Full-scale plans of the shipped papers against the papers' own tables, written here a second time by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from phoropter.core.spec import validate_as
from phoropter.data.spec import DataSpec
from phoropter.data.splits.spec import ProtocolSpec
from phoropter.models import catalog
from phoropter.study.plan import Plan, plan_study
from phoropter.study.spec import StudySpec, read_study
from phoropter.training.candidates.candidate import Candidate


def part(study: str, number: int) -> StudySpec:
    return read_study(study)[number]


def candidate(study: StudySpec, name: str) -> Candidate:
    return next(c for c in study.parsed_candidates if c.name == name)


# name: frozen, weights random, side shown, epochs of each phase, peak rate of the last phase, batch, optimiser, schedule
CIFAR = {
    "AlexNet, new last layer": (True, False, 224, [10], 0.01, 256, "adamw", "one-cycle"),
    "AlexNet 2012, from scratch": (False, True, 224, [90], 0.01, 128, "adamw", "one-cycle"),
    "ResNet-50, head then all": (False, False, 224, [5, 5], 1e-4, 64, "adamw", "step"),
}
CALTECH = {
    "AlexNet, new last layer": (True, False, 224, [15], 0.01, 256, "adamw", "one-cycle"),
    "AlexNet 2012, from scratch": (False, True, 224, [90], 0.01, 128, "adamw", "one-cycle"),
    "ViT-S/16 in1k, linear": (True, False, 224, [5], 1e-3, 64, "adamw", "constant"),
    "ViT-S/16 in21k, linear": (True, False, 224, [5], 1e-3, 64, "adamw", "constant"),
    "ResNet-50, head then all": (False, False, 224, [5, 5], 1e-4, 64, "adamw", "step"),
    "ResNet-50 in21k, head then all": (False, False, 224, [5, 5], 1e-4, 64, "adamw", "step"),
    "CoAtNet-1": (False, False, 224, [10], 1e-4, 256, "adamw", "cosine"),
}
SCENES = {
    "AlexNet": (False, True, 300, [25], 1e-4, 100, "adam", "constant"),
    "VGG19": (False, True, 224, [30], 1e-4, 64, "adam", "constant"),
    "ResNet-152": (False, True, 224, [30], 1e-4, 64, "adam", "constant"),
    "ConvNeXt, fine-tuned": (False, False, 224, [30], 1e-4, 64, "adam", "constant"),
}
TABLES = [("attention-or-convolution", 0, CIFAR), ("attention-or-convolution", 1, CALTECH), ("alexnet-and-after", 1, SCENES)]
ROWS = [(study, number, name, row) for study, number, table in TABLES for name, row in table.items()]


@pytest.mark.parametrize(("study", "number", "name", "row"), ROWS, ids=[f"{s} {n}" for s, _, n, _ in ROWS])
def test_a_candidate_is_as_in_the_paper(study: str, number: int, name: str, row: tuple[object, ...]) -> None:
    made = candidate(part(study, number), name)
    frozen, random, side, epochs, lr, batch, optimizer, schedule = row
    backbone, recipe = made.backbones[0], made.recipe
    assert (made.frozen, backbone.weights == "random", catalog.resolve_side(backbone)) == (frozen, random, side)
    assert [p.epochs for p in recipe.phases] == epochs and recipe.phases[-1].lr == pytest.approx(lr)
    assert (recipe.batch_size, recipe.optimizer.kind, recipe.schedule.kind) == (batch, optimizer, schedule)


@pytest.mark.parametrize(("study", "number", "table"), TABLES, ids=[t[0] + str(t[1]) for t in TABLES])
def test_the_candidates_are_exactly_those_of_the_paper(study: str, number: int, table: dict[str, object]) -> None:
    assert {c.name for c in part(study, number).parsed_candidates} == set(table)


def test_decay_precision_and_normalisation_of_the_transfer_study() -> None:
    cifar = part("attention-or-convolution", 0)
    alexnet = candidate(cifar, "AlexNet, new last layer").recipe
    assert alexnet.optimizer.weight_decay == 0.01 and alexnet.precision == "auto"
    assert alexnet.augment[0].plain() | {"kind": "autoaugment", "policy": "cifar10"} == alexnet.augment[0].plain()
    assert candidate(cifar, "ResNet-50, head then all").recipe.augment == ()
    assert candidate(cifar, "ResNet-50, head then all").backbones[0].mean == (0.4914, 0.4822, 0.4465)
    caltech = part("attention-or-convolution", 1)
    assert candidate(caltech, "CoAtNet-1").recipe.precision == "fp16"
    assert candidate(caltech, "ViT-S/16 in1k, linear").recipe.augment == ()


def test_the_network_of_2012_sees_crops_mirrors_and_lighting() -> None:
    made = candidate(part("attention-or-convolution", 1), "AlexNet 2012, from scratch").recipe
    assert [s.kind for s in made.augment] == ["random-crop", "hflip", "pca-lighting"] and made.center_crop == 224
    assert made.augment[0].size == 224 and made.augment[2].sigma == 0.1  # type: ignore[union-attr]


def test_protocols_of_the_papers() -> None:
    cifar, caltech = (part("attention-or-convolution", n).protocol for n in (0, 1))
    imagenet, scenes = (part("alexnet-and-after", n).protocol for n in (0, 1))
    assert (cifar.split, imagenet.split, scenes.split) == ("predefined", "test-only", "predefined")
    assert (caltech.split, caltech.folds) == ("stratified-k-fold", 5)


def test_imagenet_is_evaluated_without_training_by_one_and_by_ten_crops() -> None:
    imagenet = part("alexnet-and-after", 0)
    assert imagenet.data.size == 256
    for made in imagenet.parsed_candidates:
        assert not made.recipe.phases and made.head.kind == "pretrained" and made.recipe.center_crop == 224
        assert made.recipe.tta == ("ten-crop" if "ten crops" in made.name else "none")
    assert [c.backbones[0].name.split(".")[0] for c in imagenet.parsed_candidates[:4]] == [
        "alexnet",
        "vgg19",
        "resnet152",
        "convnext_tiny",
    ]


def test_scenes_are_flipped_vertically() -> None:
    kinds = [s.kind for s in candidate(part("alexnet-and-after", 1), "VGG19").recipe.augment]
    assert "vflip" in kinds and "rotate" in kinds and "random-resized-crop" in kinds


def test_vit_teaches_cnn_has_the_published_the_reversed_and_the_grid_part() -> None:
    deit, switched, grid, *more = read_study("vit-teaches-cnn")
    student = candidate(deit, "DeiT-B distilled")
    assert student.distillation is not None and student.backbones[0].has_distillation_token
    assert (student.distillation.teacher, student.distillation.loss, student.distillation.alpha) == ("RegNetY-16GF", "token", 0.5)
    assert candidate(deit, "RegNetY-16GF").recipe.phases  # its last layer is new, so it is trained first
    stopped = [candidate(switched, f"ResNet-50, {how}").recipe for how in ("no teacher", "taught by DeiT-B")]
    assert [r.total_epochs for r in stopped] == [200, 150] and {r.schedule.planned_epochs for r in stopped} == {2000}
    for stem in ("ResNet-50 to the end", "ResNet-50 CIFAR stem"):
        alone, taught = candidate(switched, f"{stem}, no teacher"), candidate(switched, f"{stem}, taught by DeiT-B")
        assert taught.distillation is not None and alone.distillation is None
        assert (taught.distillation.loss, taught.distillation.alpha, taught.distillation.teacher_views) == ("hard", 0.5, "same")
        assert alone.recipe == taught.recipe and alone.backbones == taught.backbones  # the teacher is the only difference
        assert (alone.backbones[0].options == {"stem": "cifar"}) == ("CIFAR" in stem)
        assert alone.backbones[0].weights == "random" and alone.backbones[0].size == 32
        recipe = alone.recipe
        assert (recipe.batch_size, recipe.phases[0].lr, recipe.optimizer.kind, recipe.schedule.kind) == (
            128,
            0.01,
            "sgd",
            "cosine",
        )
        assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.9, 5e-4)
        assert [s.kind for s in recipe.augment] == ["random-crop", "hflip"] and recipe.augment[0].padding == 4  # type: ignore[union-attr]
    for part_ in (deit, switched, grid):
        assert part_.data.size == 32 and part_.protocol.seeds == ((1, 2, 3) if part_ is switched else (1,))
        assert {c.backbones[0].mean for c in part_.parsed_candidates} == {(0.5071, 0.4865, 0.4409)}
        assert {c.backbones[0].std for c in part_.parsed_candidates} == {(0.2673, 0.2564, 0.2762)}
    assert set(grid.sweep) == {"distillation.loss", "distillation.temperature", "distillation.alpha"}
    assert [part.name.removeprefix("vit-teaches-cnn-") for part in more] == ["teachers", "picture-size", "optimizer"]


def planned(study: StudySpec, cache: Path, data: dict[str, Any], **changes: Any) -> Plan:
    """The study's plan at full settings, on other images, as the paper's may not be distributed."""
    return plan_study(study.model_copy(update={"data": validate_as(DataSpec, data), **changes}), cache)


@pytest.fixture
def known_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretrained weights count as present, as they are where a study is run in full."""
    monkeypatch.setattr(catalog, "check_weights", lambda *_: None)
    monkeypatch.setattr(catalog, "identify_weights", lambda backbone, base=None: f"{backbone.name} {backbone.weights}")


ALONE = {
    "ViT": "vit_base_patch32_224.orig_in21k",
    "VGG19": "vgg19.tv_in1k",
    "ResNet50": "resnet50.tv_in1k",
    "EfficientNet-B0": "tf_efficientnet_b0.aa_in1k",
}
PAIRS = ["ViT + VGG19", "ViT + ResNet50", "ViT + EfficientNet-B0", "VGG19 + ResNet50", "VGG19 + EfficientNet-B0"]
PAIRS += ["ResNet50 + EfficientNet-B0"]


@pytest.mark.usefixtures("known_weights")
@pytest.mark.parametrize(("number", "classes", "splits"), [(0, 2, 25), (1, 2, 6), (2, 3, 25), (3, 3, 6)])
def test_the_stress_study_is_planned_as_in_the_paper(number: int, classes: int, splits: int, tmp_path: Path) -> None:
    """Four networks and six pairs, 5 folds × 5 seeds, or one of six simulated people left out at a time."""
    people = {"simulate": "ecg", "cohort": {"subjects": 6}, "task": f"{classes}-class", "size": 224, "window": {"step_s": 40}}
    made = planned(part("sonic-wesad", number), tmp_path, people)
    assert len(made.runs) == 10 * splits and set(Counter(r.candidate.name for r in made.runs).values()) == {splits}
    assert len({(r.split.seed, r.split.fold) for r in made.runs}) == splits
    assert (
        len(made.image_sets) == 1 and made.image_sets[0].image_size == 224 and len(made.image_sets[0].dataset.classes) == classes
    )
    assert {c.name: c.backbones[0].name for c in made.candidates if c.fusion is None} == ALONE
    pairs = {c.name: [b.name for b in c.backbones] for c in made.candidates if c.fusion}
    assert pairs == {name: [ALONE[one] for one in name.split(" + ")] for name in PAIRS}
    for c in made.candidates:
        assert all(b.weights == "pretrained" for b in c.backbones) and not c.frozen and not c.recipe.augment
        pooled = {b.name.split(".")[0]: b.pooling for b in c.backbones}  # a branch pools its last map, alone and fused
        assert pooled == {name: "average" if name.startswith(("vgg", "vit")) else "pretrained" for name in pooled}
        (phase,) = c.recipe.phases
        assert (phase.train, phase.epochs, phase.lr, phase.head_lr, c.recipe.batch_size) == ("all", 20, 1e-3, None, 32)
        optimizer, schedule = c.recipe.optimizer, c.recipe.schedule
        assert (optimizer.kind, optimizer.weight_decay, schedule.kind, schedule.warmup) == ("adam", 0.0, "constant", 0.0)
        assert (c.recipe.loss.kind, c.recipe.loss.smoothing, c.recipe.checkpoint) == ("cross-entropy", 0.0, "last")
    for run in made.runs:  # windows dealt at random share people; the twin keeps them apart
        groups = run.image_set.dataset.groups
        assert groups is not None
        shared = set(groups[run.split.train]) & set(groups[run.split.test])
        assert bool(shared) == (splits == 25)


@pytest.mark.usefixtures("known_weights")
@pytest.mark.parametrize(("number", "runs", "taught"), [(0, 3, 1), (1, 7, 3), (2, 38, 37)])
def test_vit_teaches_cnn_is_planned_as_in_the_paper(number: int, runs: int, taught: int, tmp_path: Path) -> None:
    """On the grid: α 0 is one student; hard has no temperature, 4 α; soft and hard+soft 4 temperatures × 4 α."""
    made = planned(part("vit-teaches-cnn", number), tmp_path, {"digits": True, "size": 32}, protocol=validate_as(ProtocolSpec, {
        "split": "hold-out", "seeds": [1], "val_size": 0.1}))  # fmt: skip
    assert len(made.runs) == runs and {r.image_set.image_size for r in made.runs} == {32}
    students = [r for r in made.runs if r.candidate.distillation]
    assert len(students) == taught
    for run in students:
        distillation = run.candidate.distillation
        assert distillation is not None and bool(run.needs) == (distillation.alpha > 0)
        if run.needs:
            teacher = made.by_key[run.needs[0]].candidate
            assert (
                catalog.resolve_side(teacher.backbones[0]) == 224
                and teacher.recipe.total_epochs == 10
                and teacher.recipe.phases[0].lr == 1e-4
            )
        assert run.candidate.recipe.total_epochs == (10 if number == 0 else 150), "the taught ones, stopped or to the end"
    asked = Counter(t.loss for r in students if (t := r.candidate.distillation) and t.alpha > 0)
    assert number != 2 or asked == {"hard": 4, "soft": 16, "hard+soft": 16}
