"""The steps of an augmentation as a user writes them: short forms, options, and one sentence for what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import load_yaml, validate_as
from phoropter.training.augmentation import spec
from phoropter.training.augmentation.spec import parse_steps
from phoropter.training.candidates.recipe import Recipe

NAMES = [
    "hflip",
    "vflip",
    "random-resized-crop",
    "rotate",
    "pca-lighting",
    "color-jitter",
    "autoaugment",
    "randaugment",
    "cutout",
    "slit-cutout",
    "mixup",
    "cutmix",
    "slit-cutmix",
]


def steps(value: Any) -> tuple[Any, ...]:
    return validate_as(Recipe, {"augment": value}).augment


@pytest.mark.parametrize("nothing", [None, "none", ["none"], []])
def test_nothing_is_written_in_several_ways(nothing: Any) -> None:
    assert steps(nothing) == ()


def test_a_name_a_mapping_and_a_list_of_both() -> None:
    assert steps("hflip") == (spec.HorizontalFlip(),)
    assert steps({"random-crop": {"padding": 4}}) == (spec.RandomCrop(padding=4),)
    assert steps([{"random-crop": {"size": 224}}, "hflip", {"pca-lighting": {"sigma": 0.2}}, {"cutmix": None}]) == (
        spec.RandomCrop(size=224),
        spec.HorizontalFlip(),
        spec.PcaLighting(sigma=0.2),
        spec.CutMix(),
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_step_goes_by_its_name_with_defaults(name: str) -> None:
    (step,) = steps(name)
    assert step.kind == name


def test_steps_survive_a_round_trip_through_plain_data_and_back() -> None:
    recipe = Recipe(
        augment=steps([{"random-crop": {"size": 32}}, "hflip", {"cutout": {"box_size": 16}}, {"slit-cutmix": {"width": "sqrt"}}])
    )
    assert validate_as(Recipe, recipe.plain()) == recipe
    assert recipe.with_changes(batch_size=7).augment == recipe.augment


def test_steps_that_are_specs_already_stay() -> None:
    flip = spec.HorizontalFlip(p=0.25)
    assert parse_steps(flip) == [flip]
    assert Recipe(augment=(flip, spec.CutMix())).augment == (flip, spec.CutMix())


def test_the_defaults_of_the_specification() -> None:
    for name in ("cutout", "slit-cutout", "cutmix", "slit-cutmix"):
        (step,) = steps(name)
        assert (step.p, step.alpha, step.per_sample) == (0.5, 1.0, False)
    assert spec.CutOut().fill == spec.SlitCutOut().fill == 255
    assert spec.SlitCutOut().width == spec.SlitCutMix().width == "sqrt"


MISTAKES: list[tuple[Any, str]] = [
    ("cutmx", "augment: unknown step 'cutmx'; did you mean 'cutmix'?"),
    (["hflip", {"slit_cutout": {}}], "augment: unknown step 'slit_cutout'; did you mean 'slit-cutout'?"),
    (["none", "hflip"], "augment: unknown step 'none'; known are hflip, vflip,"),
    ({"kind": ["hflip"]}, "augment: unknown step"),
    ([3], "augment: 3 is not a step: write its name, or a mapping of one name to its options"),
    ({"random-crop": {"size": 3}, "hflip": {}}, "is not a step: write its name, or a mapping of one name to its options"),
    ({"random-crop": 224}, "augment: the options of random-crop are 224, expected a mapping"),
    ({"cutmix": {"alhpa": 1}}, "unknown key 'alhpa' in augment.0.cutmix; did you mean 'alpha'?"),
    (["hflip", {"cutmix": {"alpha": -1}}], "augment.1.cutmix.alpha is -1, which does not fit"),
    (
        {"autoaugment": {"policy": "cifar"}},
        "policy is 'cifar', expected 'imagenet', 'cifar10' or 'svhn'; did you mean 'cifar10'?",
    ),
    ("random-crop", "random-crop needs size (the side of the crop) or padding"),
    ({"random-resized-crop": {"scale": [1, 0.5]}}, "scale is [1.0, 0.5], expected the smaller and the larger"),
    ({"random-resized-crop": {"ratio": [0, 1]}}, "ratio is [0.0, 1.0], expected the smaller and the larger"),
    ({"color-jitter": {"brightness": 0, "contrast": 0, "saturation": 0}}, "are all 0, which changes nothing"),
    ({"cutout": {"box_size": 112, "alpha": 0.5}}, "box_size and alpha contradict each other"),
    (["hflip", "hflip"], "augment: hflip is given twice; keep one"),
    (["cutmix", "mixup"], "cutmix and mixup contradict each other: both mix two images; keep one"),
    (
        [{"random-crop": {"size": 8}}, "random-resized-crop"],
        "random-crop and random-resized-crop contradict each other: both crop the image",
    ),
    (["autoaugment", "randaugment"], "autoaugment and randaugment contradict each other: both are policies"),
    (["cutmix", "hflip"], "hflip stands after cutmix: steps that move or colour an image come first"),
    (["cutout", "rotate"], "rotate stands after cutout"),
    (["mixup", "slit-cutout"], "slit-cutout stands after mixup"),
]


@pytest.mark.parametrize(("given", "message"), MISTAKES)
def test_a_mistake_is_one_sentence(given: Any, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        steps(given)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_mistake_names_its_line(tmp_path: Any) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("batch_size: 8\naugment:\n  - hflip\n  - cutmix:\n      alpha: much\n")
    ((plain, source),) = load_yaml(file)
    with pytest.raises(SpecError, match=r"study\.yaml, line 5: augment\.1\.cutmix\.alpha is 'much'"):
        validate_as(Recipe, plain, source)
