"""Augmentation steps of the user's own: their random numbers, both ways of applying them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.core.errors import RunError, SpecError
from phoropter.core.extensions import read_recorded_extensions, trust_code
from phoropter.core.seeds import hash_ids, uniform_numbers
from phoropter.core.spec import validate_as
from phoropter.training.augmentation.custom_step import AugmentationStep
from phoropter.training.augmentation.pipeline import Augmentation, apply_batched, apply_per_image
from phoropter.training.augmentation.randomness import AugmentationDraws
from phoropter.training.candidates.recipe import Recipe

HASHES = hash_ids([f"row {i}" for i in range(6)])


def darken(images: torch.Tensor, uniforms: Any) -> torch.Tensor:
    amount = torch.from_numpy(uniforms).to(images.device)[:, 0, None, None, None]
    return (images * (1 - amount)).to(torch.uint8)


def overwrite(images: torch.Tensor, uniforms: Any) -> torch.Tensor:
    images[:, 0] = 7
    return images


DARKEN = AugmentationStep("darken", apply=darken)


def recipe(*steps: Any) -> Recipe:
    return validate_as(Recipe, {"augment": list(steps)})


def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_its_numbers_are_ours_and_do_not_depend_on_the_batch() -> None:
    augmentation = Augmentation(recipe("hflip", DARKEN).augment, seed=4)
    out = augmentation.apply(images(), HASHES, 2, 0).pictures
    part = augmentation.apply(images()[[4, 1]], HASHES[[4, 1]], 2, 9).pictures
    assert torch.equal(out[[4, 1]], part)
    amount = uniform_numbers(HASHES, 1, 4, "augment/custom/darken", 2)
    flipped = Augmentation(recipe("hflip").augment, seed=4).apply(images(), HASHES, 2, 0).pictures
    assert torch.equal(out, darken(flipped, amount))


def test_a_batch_at_once_equals_image_by_image() -> None:
    steps = recipe(DARKEN, "vflip").augment
    draws = AugmentationDraws(HASHES, 0, 1, 0)
    assert torch.equal(apply_per_image(steps, images(), draws), apply_batched(steps, images(), draws))


def test_it_may_write_into_what_it_is_given() -> None:
    given = images()
    out = Augmentation(recipe(AugmentationStep("overwrite", apply=overwrite, uniforms=0)).augment, 0).apply(given, HASHES, 0, 0)
    assert torch.equal(given, images()) and bool((out.pictures[:, 0] == 7).all())


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda x, u: x.float(), "returned torch.float32 .*, expected torch.uint8"),
        (lambda x, u: x[:, :, :6], r"returned torch.uint8 \(1, 3, 6, 12\), expected torch.uint8 \(1, 3, 12, 12\)"),
        (lambda x, u: x.numpy(), "returned ndarray"),
        (lambda x, u: torch.randint_like(x, 255), "changed an image in two ways under the same random numbers"),
    ],
)
def test_a_step_that_breaks_its_contract_is_one_sentence(apply: Any, message: str) -> None:
    step = AugmentationStep(f"bad-{abs(hash(message))}", apply=apply)
    with pytest.raises(RunError, match=message):
        Augmentation(recipe(step).augment, 0).apply(images(), HASHES, 0, 0)


def test_a_step_that_mixes_the_rows_of_a_batch_is_found() -> None:
    step = AugmentationStep("mean-of-batch", apply=lambda x, u: x.float().mean(0, keepdim=True).expand(x.shape).to(torch.uint8))
    with pytest.raises(RunError, match="changed an image in two ways"):
        apply_batched(recipe(step).augment, images(), AugmentationDraws(HASHES, 0, 0, 0))


def test_a_study_file_names_it_where_code_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "my_steps.py").write_text(
        "import phoropter as ph\ndef same(images, uniforms):\n    return images\nSAME = ph.AugmentationStep('same', apply=same)\n"
    )
    with pytest.raises(SpecError, match="is run only where it is trusted"):
        recipe("my_steps:SAME")
    with trust_code(tmp_path):
        (step,) = recipe("my_steps:SAME").augment
    assert isinstance(step, AugmentationStep) and step.name == "same"


def test_specs_keep_it_and_records_hold_its_name_and_version() -> None:
    made = recipe("hflip", DARKEN, "cutmix")
    assert made.with_changes(batch_size=3).augment[1] is DARKEN
    assert made.plain()["augment"][1] == {"name": "darken", "version": "1"}
    with read_recorded_extensions():
        assert validate_as(Recipe, made.plain()) == made
    with pytest.raises(SpecError, match="expected a phoropter AugmentationStep or module:NAME"):
        validate_as(Recipe, made.plain())


def test_other_code_under_the_same_version_is_another_augmentation() -> None:
    one, same, other = (Augmentation((AugmentationStep("mine", apply=f),), 0).identity() for f in (darken, darken, overwrite))
    assert one == same != other


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["cutmix", DARKEN], "darken stands after cutmix"),
        ([DARKEN, DARKEN], "darken is given twice"),
        ([AugmentationStep("hflip", apply=darken)], "is called 'hflip', the name of a built-in step"),
    ],
)
def test_order_and_names_are_checked_as_for_built_in_steps(steps: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        recipe(*steps)


@pytest.mark.parametrize("options", [{"uniforms": -1}, {"uniforms": 1.5}, {"apply": 3}])
def test_a_step_that_cannot_work_is_refused_when_it_is_made(options: Any) -> None:
    with pytest.raises(ValueError, match="of the step 'mine' is"):
        AugmentationStep("mine", **{"apply": darken, **options})


def test_read_only_images_are_not_written(tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    np.save(file, images().numpy())
    mapped = np.load(file, mmap_mode="r")
    step = AugmentationStep("overwrite", apply=overwrite, uniforms=0)
    Augmentation((step,), 0).apply(list(mapped), HASHES, 0, 0)
    np.testing.assert_array_equal(np.load(file), images().numpy())


@pytest.mark.gpu
def test_a_gpu_applies_it_to_the_batch_on_the_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    augmentation = Augmentation(recipe("hflip", DARKEN).augment, seed=4)
    on_gpu = augmentation.apply(images().cuda(), HASHES, 2, 0).pictures
    on_cpu = augmentation.apply(images(), HASHES, 2, 0).pictures
    assert on_gpu.is_cuda and int((on_gpu.cpu().int() - on_cpu.int()).abs().max()) <= 1
