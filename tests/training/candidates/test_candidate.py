"""Candidates: what enters their identity, and options that contradict each other."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.training.candidates.candidate import Candidate, DistillationSpec
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.custom_optimizer import Optimizer, Schedule
from phoropter.training.candidates.presets import PRESETS, parse_recipe

STUDY = PRESETS["finetune"]


def candidate(recipe: Any = None, **entry: Any) -> Candidate:
    return parse_candidates([{"backbone": "a1", "recipe": recipe, **entry}], STUDY)[0]


def test_identity_leaves_names_out() -> None:
    one, other = parse_candidates([{"backbone": "a1", "name": "x"}, {"backbone": "a1", "name": "y"}], STUDY)
    assert one.identity() == other.identity() and one != other


def test_distillation_options_without_effect_are_no_part_of_the_identity() -> None:
    student = parse_candidates([{"student": "a1", "teacher": "b2"}], STUDY)[0]

    def identity(**distillation: Any) -> dict[str, Any]:  # as a sweep sets them
        return student.model_copy(update={"distillation": DistillationSpec(teacher="b2", **distillation)}).identity()

    assert identity(temperature=4.0) == identity() == identity(n_teacher_views=3) and identity(
        loss="soft", temperature=4.0
    ) != identity(loss="soft")
    assert identity(alpha=0, loss="soft", temperature=4.0) == identity(alpha=0, teacher_views="unaugmented")
    assert (
        identity(teacher_views="cycled", n_teacher_views=3) != identity(teacher_views="cycled")
        and identity(alpha=0.1) != identity()
    )


def test_recipe_options_without_effect_are_no_part_of_the_identity() -> None:
    shared = parse_recipe({"feature_dtype": "float16"})  # a study's recipe may serve frozen candidates beside trained ones
    assert parse_candidates(["a1"], shared)[0].identity() == candidate().identity()
    with pytest.raises(
        SpecError, match="feature_dtype is for stored features, and there are none of a trained network; say frozen: true, or"
    ):
        candidate({"feature_dtype": "float16"})
    shared = parse_recipe({"feature_engine": "onnxruntime"})
    assert parse_candidates(["a1"], shared)[0].identity() == candidate().identity()
    with pytest.raises(SpecError, match="feature_engine is for stored features, and there are none of a trained network"):
        candidate({"feature_engine": "torch"})
    with pytest.raises(SpecError, match="there are none of augmented images in every epoch; give cached_views, or leave it out"):
        candidate({"preset": "probe", "augment": "hflip", "feature_engine": "onnxruntime"}, frozen=True)
    probe, as_before, other = (
        candidate({"preset": "probe", **more}, frozen=True).identity()
        for more in ({}, {"feature_engine": "torch"}, {"feature_engine": "onnxruntime"})
    )
    assert probe == as_before != other and "feature_engine" not in probe["recipe"], "runs of before keep their keys"
    frozen, half = (candidate({"preset": "probe", "feature_dtype": d}, frozen=True).identity() for d in ("float32", "float16"))
    assert frozen != half
    with pytest.raises(SpecError, match="inner_folds belongs to l2_penalties, which are not given"):
        candidate({"preset": "probe", "inner_folds": 7}, frozen=True)
    solved, other = (candidate({"preset": "logistic", "inner_folds": n}, frozen=True).identity() for n in (3, 7))
    assert solved != other


def test_name_and_version_of_an_optimizer_and_a_schedule_enter_the_identity() -> None:
    def identity(field: str, extension: Any) -> dict[str, Any]:
        return candidate({field: extension}).identity()

    for field, kind, options in (("optimizer", Optimizer, {"build": print}), ("schedule", Schedule, {"factor": abs})):
        one, same = (identity(field, kind("x", **options)) for _ in range(2))
        assert one == same
        assert one != identity(field, kind("y", **options)) != identity(field, kind("x", version="2", **options)) != one


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"recipe": {"augment": "hflip", "cached_views": 2}}, "cached_views is for what is frozen in every phase"),
        (
            {"frozen": True, "recipe": {"preset": "logistic"}, "head": "dense"},
            "l2_penalties are for what is linear on frozen features",
        ),
        (
            {"frozen": True, "recipe": {"phases": [{"epochs": 1, "lr": 0.1, "branch_lr": {"a1": 0.2}}]}},
            "branch_lr of 'a1' has no effect",
        ),
        ({"recipe": "logistic"}, "l2_penalties are for what is linear on frozen features"),
        (
            {"head": "pretrained", "recipe": {"imbalance": {"undersample": 1, "n_bags": 2}}},
            "n_bags and head: pretrained contradict",
        ),
    ],
)
def test_options_that_contradict_each_other_are_one_sentence(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        candidate(**{"recipe": None, **entry})


@pytest.mark.parametrize(
    ("distillation", "recipe", "message"),
    [
        ({"loss": "token"}, None, "loss token needs a student with a distillation token"),
        ({}, "as-is", "a student is trained, and recipe 'as-is' trains nothing"),
        ({"teacher_views": "unaugmented"}, {"augment": "mixup"}, "teacher_views unaugmented and mixup contradict each other"),
        ({"teacher_views": "cycled"}, {"augment": "cutout"}, "teacher_views cycled needs views that do not depend on the batch"),
    ],
)
def test_a_student_that_cannot_be_taught_is_one_sentence(distillation: dict[str, Any], recipe: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_candidates([{"student": "a1", "teacher": "b2", "recipe": recipe, **distillation}], STUDY)
