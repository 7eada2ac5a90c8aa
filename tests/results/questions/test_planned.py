"""Planned contrasts: what is accepted, what is refused, and which candidates answer them."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import SourceMap, validate_as
from phoropter.results.questions.planned import (
    Contrast,
    PlannedCandidate,
    PlannedQuestions,
    family_effects,
    main_effects,
    settle_contrasts,
)
from phoropter.training.augmentation.custom_step import AugmentationStep

METRICS = ["accuracy", "roc_auc"]


def swept(
    augments: tuple[str, ...] = ("none", "cutmix", "mixup"), rates: tuple[float, ...] = (1e-4, 1e-3)
) -> list[PlannedCandidate]:
    """Two networks, the first also with a dense head, × augmentations × rates; a fusion is not swept."""
    bases = (("resnet18", "resnet18", "cnn"), ("resnet18 dense", "resnet18", "cnn"), ("vit", "vit_tiny", "attention"))
    found = [
        PlannedCandidate(f"{name} · augment {a}, lr {r}", name, (backbone,), family, {"recipe.augment": a, "recipe.lr": r})
        for (name, backbone, family), a, r in product(bases, augments, rates)
    ]
    return [*found, PlannedCandidate("resnet18 + vit", "resnet18 + vit", ("resnet18", "vit_tiny"), "fused", {})]


def settle(*contrasts: dict[str, Any], **options: Any) -> list[Contrast]:
    asked = validate_as(
        PlannedQuestions, {"primary": {"contrast": contrasts[0]}, "secondary": [{"contrast": c} for c in contrasts[1:]]}
    )
    return settle_contrasts(asked, swept(), METRICS, **options)


def test_a_factor_pairs_each_candidate_with_itself_and_averages_over_all_else() -> None:
    (found,) = settle({"factor": "recipe.augment", "level": "cutmix", "against": "none"})
    assert (found.role, found.metric, found.title) == ("primary", "accuracy", "augment: cutmix against none")
    assert [unit.title for unit in found.units] == ["resnet18", "resnet18 dense", "vit"]
    assert found.units[2].side == ("vit · augment cutmix, lr 0.0001", "vit · augment cutmix, lr 0.001")
    assert found.units[2].against == ("vit · augment none, lr 0.0001", "vit · augment none, lr 0.001")
    assert "resnet18 + vit" not in found.candidates and len(found.candidates) == 12


def test_within_backbone_takes_candidates_of_one_backbone_together() -> None:
    (found,) = settle({"factor": "recipe.augment", "level": "cutmix", "against": "none", "within": "backbone"})
    assert [(unit.title, len(unit.side)) for unit in found.units] == [("resnet18", 4), ("vit_tiny", 2)]


def test_a_level_is_found_by_its_value_or_as_its_name_is_written() -> None:
    assert settle({"factor": "recipe.lr", "level": 1e-3, "against": 1e-4}) == settle(
        {"factor": "recipe.lr", "level": "0.001", "against": "0.0001"}
    )


def test_a_level_of_several_options_or_an_object_is_found_by_how_names_write_it() -> None:
    step = AugmentationStep("fog", apply=lambda images, rng: images)
    swept_values = ({"crop": {"padding": 4}}, ["hflip", "cutmix"], step)
    candidates = [PlannedCandidate(f"a {i}", "a", ("a",), "cnn", {"recipe.augment": v}) for i, v in enumerate(swept_values)]
    for i, value in enumerate(swept_values[1:], start=1):
        contrast = {"factor": "recipe.augment", "level": value, "against": swept_values[0]}
        asked = PlannedQuestions.model_validate({"primary": {"contrast": contrast}})
        (found,) = settle_contrasts(asked, candidates, METRICS)
        assert found.units[0].side == (f"a {i}",) and found.against == "crop padding 4"
        json.dumps(asked.plain())  # study.json keeps it


def test_a_candidate_is_all_its_variants_or_one_of_them() -> None:
    whole, one, families = settle(
        {"candidate": "vit", "against": "resnet18"},
        {"candidate": "vit · augment none, lr 0.001", "against": "resnet18 · augment none, lr 0.001"},
        {"family": "attention", "against": "cnn"},
    )
    assert [len(c.units[0].side) for c in (whole, one, families)] == [6, 1, 6]
    assert [len(c.units[0].against) for c in (whole, one, families)] == [6, 1, 12]
    assert [c.role for c in (whole, one, families)] == ["primary", "secondary", "secondary"]
    assert families.title == "attention against cnn"


def test_the_metric_is_the_first_unless_another_of_the_study_is_named() -> None:
    contrast = {"candidate": "vit", "against": "resnet18"}
    asked = PlannedQuestions.model_validate({"primary": {"metric": "roc_auc", "contrast": contrast}})
    assert settle_contrasts(asked, swept(), METRICS)[0].metric == "roc_auc"
    with pytest.raises(SpecError, match="'log_loss' is none of the study's metrics; add it to metrics"):
        settle_contrasts(
            PlannedQuestions.model_validate({"primary": {"metric": "log_loss", "contrast": contrast}}), swept(), METRICS
        )


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        ({"factor": "recipe.augmnt", "level": "a", "against": "b"}, r"line 4: compare.primary: .*did you mean .recipe.augment"),
        ({"factor": "recipe.augment", "level": "cutmx", "against": "none"}, "'cutmx' is no value of .*did you mean 'cutmix'"),
        ({"factor": "recipe.augment", "level": "cutmix", "against": "no"}, ".no. is no value of the sweep over .*; it has none"),
        ({"candidate": "vti", "against": "resnet18"}, "no candidate 'vti'; did you mean 'vit'"),
        ({"candidate": "vit", "against": "resnet"}, "no candidate 'resnet'"),
        ({"family": "hybrid", "against": "cnn"}, "no candidate of this study is of the family 'hybrid'"),
    ],
)  # fmt: skip
def test_what_the_study_does_not_have_is_refused_with_its_line(contrast: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        settle(contrast, source=SourceMap("s.yaml", {("compare", "primary"): 4}))
    assert settle(contrast, {"candidate": "vit", "against": "resnet18"}, skip_missing=True)[0].role == "secondary"


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"contrast": {"against": "x"}}, "one of candidate, family and factor, but none came"),
        ({"contrast": {"candidate": "a", "family": "cnn", "against": "x"}}, "but candidate and family came"),
        ({"contrast": {"factor": "recipe.lr", "against": 1}}, "needs 'level'"),
        ({"contrast": {"candidate": "a", "level": "b", "against": "x"}}, "'level' belongs to a contrast with 'factor'"),
        ({"contrast": {"candidate": "a", "within": "backbone", "against": "x"}}, "'within' belongs to a contrast with 'factor'"),
        ({"contrast": {"candidate": "a", "against": "a"}}, "'a' is compared with itself"),
        ({"contrast": {"family": "convolution", "against": "cnn"}}, "expected .cnn., .attention., .hybrid., .fused. or"),
        ({"contrast": {"candidate": "a"}}, "against' is required"),
    ],
)  # fmt: skip
def test_a_contrast_that_says_too_much_or_too_little_is_refused(plain: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        validate_as(PlannedQuestions, {"primary": plain})


def test_two_protocols_are_another_key_and_a_question_is_asked_once() -> None:
    for old in (True, False, {"split": "leave-one-group-out"}):
        with pytest.raises(SpecError, match="a study under two protocols says 'second_protocol'"):
            validate_as(PlannedQuestions, old)
    asked = {"contrast": {"candidate": "a", "against": "b"}}
    with pytest.raises(SpecError, match="asked twice"):
        validate_as(PlannedQuestions, {"primary": asked, "secondary": asked})


def test_a_settled_contrast_survives_json() -> None:
    for contrast in settle(
        {"factor": "recipe.augment", "level": "cutmix", "against": "none"}, {"family": "attention", "against": "cnn"}
    ):
        assert Contrast.from_plain(json.loads(json.dumps(contrast.to_plain()))) == contrast


def test_main_effects_compare_every_level_with_the_first() -> None:
    found = main_effects(swept(), "accuracy")
    assert [c.title for c in found] == ["augment: cutmix against none", "augment: mixup against none", "lr: 0.001 against 0.0001"]
    assert {c.role for c in found} == {"exploratory"}
    assert found[0].units == settle({"factor": "recipe.augment", "level": "cutmix", "against": "none"})[0].units


def test_a_level_with_which_other_keys_do_nothing_has_no_main_effect() -> None:
    """Without a share of the teacher (alpha 0) the temperature is no setting: no two students differ in alpha alone."""
    known = [PlannedCandidate("s · alpha 0", "s", ("resnet18",), "cnn", {"distillation.alpha": 0})]
    for t in (1, 10):
        settings = {"distillation.temperature": t, "distillation.alpha": 1}
        known.append(PlannedCandidate(f"s · temperature {t}, alpha 1", "s", ("resnet18",), "cnn", settings))
    assert [c.title for c in main_effects(known, "accuracy")] == ["temperature: 10 against 1"]


def test_family_effects_compare_every_family_with_the_first() -> None:
    known = [*swept(("none",), (1e-4,)), PlannedCandidate("mixer", "mixer", ("mixer_b16",), "other", {})]
    found = family_effects(known, "roc_auc")
    assert [(c.title, c.metric, c.role) for c in found] == [
        ("attention against cnn", "roc_auc", "exploratory"),
        ("fused against cnn", "roc_auc", "exploratory"),
    ]
    nets = ("resnet18 · augment none, lr 0.0001", "resnet18 dense · augment none, lr 0.0001")
    assert [(u.side, u.against) for u in found[0].units] == [(("vit · augment none, lr 0.0001",), nets)]
    assert Contrast.from_plain(json.loads(json.dumps(found[0].to_plain()))) == found[0]


def test_families_of_one_candidate_each_are_pairs_and_no_effect() -> None:
    each = [PlannedCandidate(n, n, (n,), family, {}) for n, family in (("a", "cnn"), ("b", "attention"), ("c", "other"))]
    assert family_effects(each, "accuracy") == [] == family_effects([], "accuracy")
    alone = [PlannedCandidate(n, n, (n,), "cnn", {}) for n in ("a", "b")]
    assert family_effects(alone, "accuracy") == []
