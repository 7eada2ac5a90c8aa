"""Candidates: every short form, every expansion, every contradiction."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import SourceMap
from phoropter.training.candidates.candidate_entry import distil, finetune, fuse, parse_candidates, probe
from phoropter.training.candidates.presets import PRESETS, parse_recipe

STUDY = PRESETS["finetune"]


def names(*entries: Any) -> list[str]:
    return [c.name for c in parse_candidates(entries, STUDY)]


def test_a_name_is_a_backbone_under_the_study_s_recipe() -> None:
    (made,) = parse_candidates(["resnet50"], STUDY)
    assert made.backbones[0].name == "resnet50" and made.recipe == STUDY and not made.frozen


def test_a_frozen_candidate_is_probed_unless_it_says_otherwise() -> None:
    (made,) = parse_candidates([{"backbone": "resnet50", "frozen": True}], STUDY)
    assert made.recipe == PRESETS["probe"] and made.name == "resnet50 frozen"
    (other,) = parse_candidates([{"backbone": "resnet50", "frozen": True, "recipe": "finetune"}], STUDY)
    assert {p.train for p in other.recipe.phases} == {"head"}


def test_all_pairs_and_triples_of_a_list() -> None:
    of = ["a1", "b2", "c3", "d4"]
    assert names({"fuse": "all-pairs", "of": of}) == [f"{a} + {b}" for a, b in itertools.combinations(of, 2)]
    assert len(names({"fuse": "all-triples", "of": of})) == 4


def test_a_teacher_that_is_no_candidate_becomes_one() -> None:
    student, teacher = parse_candidates([{"student": "resnet50", "teacher": "deit_base_patch16_224"}], STUDY)
    assert student.distillation is not None and student.distillation.teacher == teacher.name == "deit_base_patch16_224"


def test_a_network_used_without_training_keeps_its_pretrained_head() -> None:
    (made,) = parse_candidates([{"backbone": "alexnet", "recipe": "as-is"}], STUDY)
    assert made.head.kind == "pretrained"


def test_python_functions_take_the_same_words() -> None:
    written = [
        "resnet50",
        {"backbone": "vgg19", "frozen": True},
        {"fuse": ["resnet50", "vgg19"], "mode": "concat"},
        {"student": "resnet18", "teacher": "vgg19", "alpha": 0.3},
    ]
    made = [
        finetune("resnet50"),
        probe("vgg19"),
        fuse("resnet50", "vgg19", mode="concat"),
        distil("resnet18", "vgg19", alpha=0.3),
    ]
    assert parse_candidates(written, STUDY) == parse_candidates(made, STUDY)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"backbone": "a", "fuse": ["a", "b"]}, "backbone and fuse came"),
        ({}, "none came"),
        ({"backbone": "a", "alpha": 0.5}, "alpha belongs to a candidate with student"),
        ({"backbone": "a", "mode": "logits"}, "mode belongs to a candidate with fuse"),
        ({"fuse": ["a"]}, "at least two backbones"),
        ({"fuse": ["a", "a"]}, "fused with itself"),
        ({"fuse": ["a", {"backbone": "a", "size": 64}], "size": 32}, "weights, size, seed, mean and std belong to one backbone"),
        ({"fuse": ["a", "b"], "mean": [0.5, 0.5, 0.5]}, "weights, size, seed, mean and std belong to one backbone"),
        ({"fuse": ["a", "b"], "mode": "concat", "aux_loss_weight": 0, "head": "dense"}, "head is that of each branch"),
        ({"fuse": ["a", "b"], "mode": "concat", "frozen": True, "head": "linear"}, "head is that of each branch"),
        ({"fuse": ["a", "b"], "mode": "concat", "start": "random"}, "start belongs to mode logits and has no effect here"),
        ({"fuse": ["a", {"backbone": "a", "seed": 1}], "mode": "logitz"}, "did you mean 'logits'"),
        ({"fuse": ["a", "b"], "mode": "frozen"}, "mode is 'frozen', expected 'logits', 'concat', 'ensemble' or 'select'"),
        ({"fuse": "all-pairs"}, "needs of"),
        ({"fuse": "all-pairs", "of": ["a"]}, "fuse: all-pairs needs at least 2 backbones, and 1 came"),
        ({"fuse": "all-triples", "of": ["a", "b"]}, "fuse: all-triples needs at least 3 backbones, and 2 came"),
        ({"fuse": "all-pairs", "of": ["a", "b", "a"]}, "'a' is fused with itself under one seed; give the members"),
        ({"fuse": ["a", "b"], "of": ["c"]}, "of belongs to fuse: all-pairs"),
        ({"student": "a"}, "a student needs a teacher"),
        ({"student": "a", "teacher": "b", "frozen": True}, "contradict each other"),
        ({"backbone": "a", "wieghts": "random"}, "unknown key 'wieghts'.*did you mean 'weights'"),
        ({"student": "a", "teacher": "b", "loss": "hrad"}, "did you mean 'hard'"),
        ({"student": "a", "teacher": "no such teacher"}, "no candidate of this study"),
        ({"student": "a", "teacher": "b", "temperature": 4}, r"temperature belongs to loss soft or hard\+soft and has no effect"),
        ({"student": "a", "teacher": "b", "loss": "token", "temperature": 4}, "temperature belongs to loss soft"),
        (
            {"student": "a", "teacher": "b", "n_teacher_views": 3},
            "n_teacher_views belongs to teacher_views: cycled and has no effect here",
        ),
        ({"fuse": ["a", "b"], "mode": "ensemble", "hidden": 9}, "hidden belongs to mode logits or concat and has no effect here"),
        ({"fuse": ["a", "b"], "mode": "ensemble", "dropout": 0.1}, "dropout belongs to mode logits or concat"),
        ({"fuse": ["a", "b"], "mode": "ensemble", "aux_loss_weight": 1}, "aux_loss_weight belongs to mode logits or concat"),
        ({"backbone": "a", "head": {"kind": "linear", "hidden": 9}}, "hidden belongs to head dense and has no effect here"),
        ({"backbone": "a", "head": {"kind": "pretrained", "dropout": 0.1}}, "dropout belongs to head dense or linear"),
        ({"backbone": "a", "head": {"kind": "dense", "dropout_at": "hidden"}}, "dropout_at belongs to a head with dropout"),
        ({"backbone": "a", "head": {"dropout": 0.1, "dropout_at": "hidden"}}, "dropout_at belongs to head dense"),
        ({"fuse": ["a", "b"], "head": {"hidden": 9}}, "hidden belongs to head dense"),
    ],
)
def test_a_contradiction_names_both_sides(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse_candidates([entry], STUDY, SourceMap("study.yaml", {("candidates",): 3, ("candidates", 0): 4}))
    assert "\n" not in str(caught.value) and "study.yaml, line" in str(caught.value)


def test_two_candidates_of_one_name_are_refused() -> None:
    with pytest.raises(SpecError, match="two candidates are called 'a1'"):
        parse_candidates(["a1", "a1"], STUDY)


def test_no_candidates_are_refused() -> None:
    with pytest.raises(SpecError, match="expected a list of at least one"):
        parse_candidates([], STUDY)


def test_an_ensemble_names_candidates_or_has_them_added() -> None:
    made = {c.name: c for c in parse_candidates(["a1", {"name": "x", "backbone": "b2", "recipe": {"epochs": 3}}, {
        "name": "m", "fuse": ["a1", "x", "c3"], "mode": "ensemble"}], STUDY)}  # fmt: skip
    assert made["m"].members == ("a1", "x", "c3") and made["m"].needs == made["m"].members
    assert [b.name for b in made["m"].backbones] == ["a1", "b2", "c3"]
    assert made["c3"].recipe == STUDY and made["x"].recipe.total_epochs == 3 and not made["m"].recipe.phases


def test_an_equal_member_is_not_added_twice() -> None:
    entries = [{"name": "mine", "backbone": "a1"}, {"fuse": ["a1", "b2"], "mode": "ensemble"}]
    assert names(*entries) == ["mine", "a1 + b2 (ensemble)", "b2"]


def test_branches_of_a_warm_fusion_are_trained_first_with_the_fusion_s_heads() -> None:
    made = {c.name: c for c in parse_candidates([{"fuse": ["a1", "b2"], "warm_start": True}], STUDY)}
    assert made["a1 + b2 warm"].members == ("a1", "b2") and made["a1 + b2 warm"].recipe.phases
    assert made["a1"].head == made["a1 + b2 warm"].head


@pytest.mark.parametrize(
    ("study", "taken"),
    [
        ("logistic", "logistic"),
        ({"preset": "probe", "epochs": 50}, "probe"),
        ("finetune", "probe"),
        ("head-then-all", "probe"),
        ("as-is", "probe"),
    ],
)
def test_a_frozen_candidate_follows_a_study_that_trains_only_heads(study: Any, taken: str) -> None:
    recipe = parse_recipe(study, None)
    (made,) = parse_candidates([{"backbone": "resnet50", "frozen": True}], recipe)
    assert made.recipe == (recipe if taken == recipe.preset else PRESETS[taken])
    (fused,) = parse_candidates([{"fuse": ["a1", "b2"], "frozen": True}], recipe)
    assert fused.recipe == (recipe if taken == recipe.preset else PRESETS["logistic"])


def test_a_frozen_fusion_fuses_by_logits_unless_it_says_otherwise() -> None:
    (made,) = parse_candidates([{"fuse": ["a1", "b2"], "frozen": True}], STUDY)
    assert made.frozen and made.fusion is not None and made.fusion.mode == "logits"


def test_a_network_may_be_fused_with_itself_under_another_seed() -> None:
    twice = {"fuse": ["a1", {"backbone": "a1", "seed": 1}]}
    fresh = {"fuse": [{"backbone": "a1", "weights": "random"}, {"backbone": "a1", "weights": "random", "seed": 1}]}
    (made,) = parse_candidates([fresh], STUDY)
    assert made.name == "a1 + a1 seed 1" and [b.seed for b in made.backbones] == [0, 1]
    with pytest.raises(SpecError, match="seed 1 of 'a1' has no effect: its weights are given"):
        parse_candidates([twice], STUDY)
    assert names("a1", {**twice, "mode": "ensemble"}) == ["a1", "a1 + a1 seed 1 (ensemble)", "a1 seed 1"]
    plain, again = parse_candidates(["a1", {"backbone": "a1", "seed": 1}], STUDY)
    assert plain.identity() != again.identity() and "seed" not in plain.identity()["backbones"][0]


def test_a_member_with_options_is_not_the_candidate_of_that_name() -> None:
    made = {
        c.name: c for c in parse_candidates(["a1", {"fuse": [{"backbone": "a1", "size": 64}, "b2"], "mode": "ensemble"}], STUDY)
    }
    assert made["a1 + b2 (ensemble)"].members == ("a1 at 64 px", "b2")


def test_a_branch_lr_for_a_backbone_of_no_candidate_is_refused() -> None:
    recipe = {"phases": [{"epochs": 1, "lr": 1e-3, "branch_lr": {"resnet5": 1e-5}}]}
    with pytest.raises(SpecError, match="branch_lr names 'resnet5', a backbone of no candidate; did you mean 'resnet50'"):
        parse_candidates(["resnet50", {"fuse": ["resnet50", "vgg19"], "recipe": recipe}], STUDY)
    shared = parse_recipe({"phases": [{"epochs": 1, "lr": 1e-3, "branch_lr": {"resnet50": 1e-5}}]})
    assert len(parse_candidates(["vgg19", {"fuse": ["resnet50", "vgg19"]}], shared)) == 2  # others may share the recipe


def test_a_backbone_may_be_a_mapping_with_its_own_options() -> None:
    (made,) = parse_candidates([{"backbone": {"name": "vgg19", "pooling": "average", "size": 64}}], parse_recipe("finetune"))
    assert (made.name, made.backbones[0].pooling, made.backbones[0].size) == ("vgg19", "average", 64)
    with pytest.raises(SpecError, match="size stands beside a backbone written as a mapping; write it inside"):
        parse_candidates([{"backbone": {"name": "vgg19"}, "size": 64}], parse_recipe("finetune"))
    with pytest.raises(SpecError, match="pol"):
        parse_candidates([{"backbone": {"name": "vgg19", "pol": "average"}}], parse_recipe("finetune"))


def test_an_error_inside_a_candidate_names_its_place_and_nothing_of_pydantic() -> None:
    with pytest.raises(SpecError) as caught:
        parse_candidates(["test_resnet", "evil:NET"], PRESETS["probe"])
    message = str(caught.value)
    assert "candidates.1: 'evil:NET' names Python code" in message and "input_value" not in message
