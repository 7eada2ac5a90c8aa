"""Augmentation: draws by name, both ways of doing the pixel work, and each step against Pillow, torchvision or by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import SpecError
from phoropter.core.seeds import hash_ids, uniform_numbers
from phoropter.core.spec import validate_as
from phoropter.models import timm_compat
from phoropter.training.augmentation.pipeline import (
    Augmentation,
    AugmentationDraws,
    AugmentedBatch,
    apply_batched,
    apply_per_image,
    boxes_from_lambda,
)
from phoropter.training.candidates.recipe import Recipe

Hashes = NDArray[np.uint64]

ALONE: list[Any] = [
    "hflip",
    "vflip",
    {"crop": {"size": 17}},
    {"crop": {"padding": 4, "fill": 9}},
    {"resized-crop": {"size": 19}},
    {"resized-crop": {"scale": [0.5, 1.0]}},
    {"rotate": {"degrees": 30, "fill": 200}},
    {"pca_lighting": {"sigma": 0.5}},
    {"color_jitter": {"hue": 0.2}},
]
POLICIES: list[Any] = [{"autoaugment": {"policy": p}} for p in ("imagenet", "cifar10", "svhn")] + ["randaugment"]
CUTS: list[Any] = [{"cutout": {"per_sample": True}}, {"slit-cutout": {"per_sample": True}}]
MIXES = ["mixup", "cutmix", "slit-cutmix"]


def made(steps: Any, seed: int = 0) -> Augmentation:
    return Augmentation(validate_as(Recipe, {"augment": steps}).augment, seed)


def pictures(count: int = 12, height: int = 24, width: int = 24) -> torch.Tensor:
    """Noise over a slope: no two places alike, and not all of it noise."""
    rng = np.random.default_rng(count * height)
    slope = np.linspace(0, 160, height)[:, None] + np.linspace(0, 60, width)
    noise = rng.integers(0, 36, (count, 3, height, width))
    return torch.from_numpy((slope + noise).astype(np.uint8))


def hashes(count: int = 12, first: int = 0) -> Hashes:
    return hash_ids([f"sample {i}" for i in range(first, first + count)])


def seen(steps: Any, given: torch.Tensor, epoch: int = 0, batch: int = 0, seed: int = 0) -> AugmentedBatch:
    return made(steps, seed).apply(given, hashes(len(given)), epoch, batch)


def hwc(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))


# ---- draws


@pytest.mark.parametrize("step", ALONE + POLICIES + CUTS, ids=str)
def test_a_sample_is_the_same_in_another_batch_order_and_size_bit_for_bit(step: Any) -> None:
    given, names = pictures(), hashes()
    augmentation = made(step)
    whole = augmentation.apply(given, names, epoch=3, batch_index=0).pictures
    chosen = np.array([7, 2, 9, 4])
    part = augmentation.apply(given[chosen], names[chosen], epoch=3, batch_index=5).pictures
    alone = augmentation.apply(given[2:3], names[2:3], epoch=3, batch_index=1).pictures
    assert torch.equal(part, whole[chosen])
    assert torch.equal(alone, whole[2:3])


@pytest.mark.parametrize("step", ALONE + POLICIES + CUTS + MIXES, ids=str)
def test_draws_differ_by_epoch_and_seed_and_repeat_otherwise(step: Any) -> None:
    given = pictures(32)

    def first(epoch: int, seed: int) -> list[torch.Tensor]:  # several batches, for steps that leave every second one alone
        return [seen(step, given, epoch, batch, seed).pictures for batch in range(6)]

    same, again, later, other = first(0, 0), first(0, 0), first(1, 0), first(0, 1)
    assert all(torch.equal(a, b) for a, b in zip(same, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(same, later, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(same, other, strict=True))


def test_no_global_generator_is_touched_and_the_pictures_given_stay() -> None:
    given = pictures()
    before, torch_state, numpy_state = given.clone(), torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    for step in ALONE + POLICIES + CUTS + ["cutout", "slit-cutout", *MIXES]:
        for batch in range(3):
            seen(step, given, batch=batch)
    assert torch.equal(given, before)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert repr(np.random.get_state()) == numpy_state  # noqa: NPY002


def test_several_threads_make_the_same_bytes_as_one() -> None:
    given = pictures(6, 120, 130)
    steps = [{"resized-crop": {"size": 112}}, "hflip", "rotate", {"color_jitter": {"hue": 0.1}}, "pca_lighting"]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = seen(steps, given).pictures
        torch.set_num_threads(3)
        several = seen(steps, given).pictures
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, several)


@pytest.mark.parametrize("step", [*ALONE, [{"resized-crop": {"size": 15}}, "hflip", "rotate"]], ids=str)
def test_the_whole_batch_at_once_is_the_same_within_a_grey_level(step: Any) -> None:
    given = pictures(16, 24, 30)
    draws = AugmentationDraws(hashes(16), seed=0, epoch=2, batch_index=0)
    steps = made(step).steps
    alone, whole = apply_per_image(steps, given, draws), apply_batched(steps, given, draws)
    assert alone.shape == whole.shape and whole.dtype == torch.uint8
    assert int((alone.int() - whole.int()).abs().max()) <= (1 if len(steps) == 1 else 2)  # a level for each that resamples


def test_a_policy_is_done_one_by_one_on_the_whole_batch_path_too() -> None:
    given, draws = pictures(), AugmentationDraws(hashes(), seed=0, epoch=0, batch_index=0)
    steps = made(["hflip", "randaugment"]).steps
    assert torch.equal(apply_per_image(steps, given, draws), apply_batched(steps, given, draws))


def test_steps_follow_each_other_as_written() -> None:
    given = pictures()
    flipped = seen("hflip", given).pictures
    assert torch.equal(seen(["hflip", {"crop": {"size": 10}}], given).pictures, seen({"crop": {"size": 10}}, flipped).pictures)
    cropped = seen({"crop": {"size": 10}}, given).pictures
    assert torch.equal(seen([{"crop": {"size": 10}}, "hflip"], given).pictures, seen("hflip", cropped).pictures)


# ---- mirrors and crops


@pytest.mark.parametrize(("step", "axis", "draw"), [("hflip", -1, "flip"), ("vflip", -2, "vertical-flip")])
@pytest.mark.parametrize("side", [8, 128])  # big pictures are mirrored by another kernel
def test_a_flip_is_the_picture_or_its_mirror_image_by_chance(step: str, axis: int, draw: str, side: int) -> None:
    given = pictures(40, side, side)
    mirrored = uniform_numbers(hashes(40), 1, 0, f"augment/{draw}", 0)[:, 0] < 0.25
    out = seen({step: {"p": 0.25}}, given).pictures
    assert 0 < mirrored.sum() < 20
    for i in range(40):
        assert torch.equal(out[i], given[i].flip(axis) if mirrored[i] else given[i])


def test_flips_after_each_other_and_before_a_resize_hold_no_reversed_memory() -> None:
    given = pictures(8, 110, 110)
    always = [{"vflip": {"p": 1}}, {"hflip": {"p": 1}}, {"resized-crop": {"scale": [1, 1], "ratio": [1, 1]}}]
    assert torch.equal(seen(always, given).pictures, given.flip(-1, -2))


def test_a_crop_is_a_piece_and_every_place_comes_up() -> None:
    given = torch.arange(36, dtype=torch.uint8).reshape(1, 1, 6, 6).expand(400, 3, 6, 6).contiguous()
    out = seen({"crop": {"size": 4}}, given).pictures
    corners = {int(c) for c in out[:, 0, 0, 0]}
    assert corners == {y * 6 + x for y in range(3) for x in range(3)}
    for picture in out:
        y, x = divmod(int(picture[0, 0, 0]), 6)
        assert torch.equal(picture, given[0, :, y : y + 4, x : x + 4])


def test_a_padded_crop_moves_the_picture_and_fills_with_grey() -> None:
    given = pictures(60, 8, 8)
    out = seen({"crop": {"padding": 2, "fill": 7}}, given).pictures
    padded = torch.nn.functional.pad(given, (2, 2, 2, 2), value=7)
    places = set()
    for picture, wide in zip(out, padded, strict=True):
        fits = [(y, x) for y in range(5) for x in range(5) if torch.equal(picture, wide[:, y : y + 8, x : x + 8])]
        assert len(fits) == 1
        places.add(fits[0])
    assert len(places) > 15


def test_sides_are_known_beforehand_and_a_crop_too_large_is_one_sentence() -> None:
    assert made("hflip").output_size(300) == 300
    assert made([{"crop": {"size": 224}}, "hflip"]).output_size(256) == 224
    assert made({"crop": {"padding": 4}}).output_size(32) == 32
    assert made({"resized-crop": {"size": 96}}).output_size(32) == 96
    with pytest.raises(SpecError, match="a crop of size 224 with padding 0 does not fit into images of 64 × 64"):
        made({"crop": {"size": 224}}).output_size(64)
    with pytest.raises(SpecError, match="does not fit into images of 24 × 24"):
        seen({"crop": {"size": 40, "padding": 4}}, pictures())


def resized_boxes(scale: list[float], ratio: list[float], height: int, width: int, count: int) -> NDArray[np.int64]:
    """top, left, height, width of each piece, read off two ramps seen through the step: it resizes to one pixel, its mean."""
    ys, xs = np.mgrid[:height, :width]
    ramps = np.stack([ys, xs, np.zeros_like(ys)]).astype(np.uint8)
    given = torch.from_numpy(np.broadcast_to(ramps, (count, 3, height, width)).copy())
    steps = made({"resized-crop": {"scale": scale, "ratio": ratio}}).steps
    from phoropter.training.augmentation import ops

    draws = AugmentationDraws(hashes(count), 0, 0, 0)
    drawn = ops.AUGMENTATION_OPS["resized-crop"].draw_parameters(steps[0], draws, (height, width))
    out = apply_per_image(steps, given, draws)
    top, left = out[:, 0, 0, :].float().mean(1), out[:, 1, :, 0].float().mean(1)  # first row, first column of each piece
    assert (top - torch.from_numpy(drawn[:, 0])).abs().max() < 1.5 and (left - torch.from_numpy(drawn[:, 1])).abs().max() < 1.5
    return np.asarray(drawn)


def test_resized_crops_keep_to_scale_and_ratio_and_to_the_picture() -> None:
    top, left, height, width = resized_boxes([0.2, 0.6], [0.5, 2.0], 100, 120, 500).T
    share, ratio = height * width / 12000, width / height
    assert share.min() > 0.19 and share.max() < 0.61 and share.min() < 0.22 and share.max() > 0.58
    assert ratio.min() > 0.48 and ratio.max() < 2.08 and abs(np.log(ratio).mean()) < 0.1
    assert top.min() == 0 and left.min() == 0 and (top + height).max() == 100 and (left + width).max() == 120
    assert (top + height <= 100).all() and (left + width <= 120).all()


def test_a_shape_that_never_fits_takes_the_middle() -> None:
    drawn = resized_boxes([1.0, 1.0], [1.0, 1.0], 60, 100, 4)
    assert (drawn == [0, 20, 60, 60]).all()
    assert (resized_boxes([1.0, 1.0], [2.0, 2.0], 60, 100, 4) == [5, 0, 50, 100]).all()


@pytest.mark.parametrize("size", [20, 90])
def test_a_resized_crop_is_pillow_s_of_the_same_piece(size: int) -> None:
    given = pictures(10, 70, 60)
    steps = made({"resized-crop": {"size": size}}).steps
    from phoropter.training.augmentation import ops

    draws = AugmentationDraws(hashes(10), 0, 0, 0)
    drawn = ops.AUGMENTATION_OPS["resized-crop"].draw_parameters(steps[0], draws, (70, 60))
    for picture, out, (top, left, height, width) in zip(given, apply_per_image(steps, given, draws), drawn.tolist(), strict=True):
        piece = hwc(picture).crop((left, top, left + width, top + height))
        expected = np.asarray(piece.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(out.numpy().astype(int) - expected).max() <= 1


def test_a_rotation_is_bilinear_about_the_middle_with_grey_outside() -> None:
    given = pictures(5, 9, 9)
    out = seen({"rotate": {"degrees": 60, "fill": 77}}, given).pictures
    angles = (2 * uniform_numbers(hashes(5), 1, 0, "augment/rotate", 0)[:, 0] - 1) * np.radians(60)
    for picture, found, angle in zip(given.numpy(), out.numpy(), angles, strict=True):
        for y in range(9):
            for x in range(9):
                sx = 4 + (x - 4) * np.cos(angle) - (y - 4) * np.sin(angle)
                sy = 4 + (x - 4) * np.sin(angle) + (y - 4) * np.cos(angle)
                value = np.zeros(3)
                for j in (int(np.floor(sy)), int(np.floor(sy)) + 1):
                    for i in (int(np.floor(sx)), int(np.floor(sx)) + 1):
                        pixel = picture[:, j, i] if 0 <= j < 9 and 0 <= i < 9 else np.full(3, 77)
                        value += (1 - abs(sy - j)) * (1 - abs(sx - i)) * pixel
                assert np.abs(found[:, y, x] - value).max() < 0.51
    assert angles.min() < 0 < angles.max()


# ---- colours


def test_lighting_shifts_a_picture_by_one_colour_with_the_covariance_of_its_source() -> None:
    given = torch.full((6000, 3, 1, 2), 128, dtype=torch.uint8)
    out = seen({"pca_lighting": {"sigma": 0.5}}, given).pictures.double() - 128
    assert torch.equal(out[..., 0], out[..., 1])
    values = 255 * 0.5 * np.diag([0.2175, 0.0188, 0.0045])
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-3)
    expected = vectors @ values @ values @ vectors.T
    found = np.cov(out[:, :, 0, 0].numpy().T)
    np.testing.assert_allclose(found, expected, atol=12)  # expected is about 250 everywhere
    assert float(out.mean((0, 2, 3)).abs().max()) < 1


def test_lighting_stops_at_black_and_white() -> None:
    out = seen({"pca_lighting": {"sigma": 1.0}}, torch.tensor([0, 255], dtype=torch.uint8).repeat(300, 3, 1, 1)).pictures
    assert int(out[..., 0].max()) < 255 and int(out[..., 1].min()) > 0
    assert (out[..., 0] == 0).all(1).any() and (out[..., 1] == 255).all(1).any()


@pytest.mark.parametrize(
    ("part", "operation", "column"),
    [("brightness", "adjust_brightness", 0), ("contrast", "adjust_contrast", 1), ("saturation", "adjust_saturation", 2)],
)
def test_each_part_of_jitter_is_torchvision_s(part: str, operation: str, column: int) -> None:
    given = pictures()
    strengths = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, part: 0.6}
    out = seen({"color_jitter": strengths}, given).pictures
    factors = 1 + (2 * uniform_numbers(hashes(), 4, 0, "augment/jitter", 0)[:, column] - 1) * 0.6
    for picture, found, factor in zip(given, out, factors, strict=True):
        expected = (
            getattr(timm_compat.import_torchvision("transforms.functional"), operation)(picture.double() / 255, factor) * 255
        )
        assert float((found - expected).abs().max()) < 0.6  # we round to whole levels
    assert not torch.equal(out, given)


def test_the_hue_of_jitter_is_torchvision_s() -> None:
    rng = np.random.default_rng(0)
    given = torch.from_numpy(rng.integers(0, 256, (12, 3, 24, 24), dtype=np.uint8))
    out = seen({"color_jitter": {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.5}}, given).pictures
    turns = (2 * uniform_numbers(hashes(), 4, 0, "augment/jitter", 0)[:, 3] - 1) * 0.5
    for picture, found, turn in zip(given, out, turns, strict=True):
        expected = timm_compat.import_torchvision("transforms.functional").adjust_hue(picture.double() / 255, turn) * 255
        assert float((found - expected).abs().max()) < 0.51


def test_grey_pictures_have_no_hue_to_turn() -> None:
    grey = pictures()[:, :1].expand(-1, 3, -1, -1).contiguous()
    assert torch.equal(seen({"color_jitter": {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.5}}, grey).pictures, grey)


# ---- policies


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_autoaugment_is_torchvision_s_fed_with_our_draws(policy: str) -> None:
    given = pictures(60)
    out = seen({"autoaugment": {"policy": policy, "fill": 128}}, given).pictures
    module = timm_compat.import_torchvision("transforms.autoaugment")
    theirs = module.AutoAugment(module.AutoAugmentPolicy(policy), fill=[128, 128, 128])
    for picture, found, u in zip(given, out, uniform_numbers(hashes(60), 5, 0, "augment/autoaugment", 0), strict=True):
        signs = torch.tensor([int(u[3] >= 0.5), int(u[4] >= 0.5)])
        theirs.get_params = lambda count, u=u, signs=signs: (int(u[0] * count), torch.from_numpy(u[1:3]), signs)
        assert np.array_equal(found.permute(1, 2, 0), np.asarray(theirs(hwc(picture))))
    assert not torch.equal(out, given)


def test_randaugment_is_torchvision_s_fed_with_our_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    given = pictures(60)
    out = seen({"randaugment": {"ops": 3, "magnitude": 14}}, given).pictures
    module = timm_compat.import_torchvision("transforms.autoaugment")
    theirs = module.RandAugment(num_ops=3, magnitude=14, fill=[0, 0, 0])
    for picture, found, u in zip(given, out, uniform_numbers(hashes(60), 6, 0, "augment/randaugment", 0), strict=True):
        pairs = iter(u.reshape(3, 2).tolist())
        sign = 0.0

        def drawn(high: int, size: Any, pairs: Any = pairs) -> torch.Tensor:
            nonlocal sign
            if high == 2:  # asked for only where the operation has a sign; 1 is negative there
                return torch.tensor([int(sign < 0.5)])
            which, sign = next(pairs)
            return torch.tensor([int(which * high)])

        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", drawn)
            expected = np.asarray(theirs(hwc(picture)))
        assert np.array_equal(found.permute(1, 2, 0), expected)


# ---- cutting out and mixing


def one_box(lam: float, y: int, x: int, form: str) -> list[int]:
    return boxes_from_lambda(np.array([lam]), np.array([[y, x]]), (224, 224), form)[0].tolist()


VECTORS = [  # signals-and-protocols, §6: λ, centre, form → y0, y1, x0, x1, λ'
    (0.75, (112, 112), "rect", [56, 168, 56, 168], 0.75),
    (0.75, (112, 112), "area", [0, 224, 84, 140], 0.75),
    (0.75, (112, 112), "sqrt", [0, 224, 56, 168], 0.5),
    (0.75, (0, 0), "rect", [0, 56, 0, 56], 0.9375),
    (0.75, (0, 0), "area", [0, 224, 0, 28], 0.875),
    (0.0, (112, 112), "rect", [0, 224, 0, 224], 0.0),
    (0.0, (112, 112), "area", [0, 224, 0, 224], 0.0),
]


@pytest.mark.parametrize(("lam", "centre", "form", "expected", "share"), VECTORS)
def test_boxes_of_the_specification(lam: float, centre: tuple[int, int], form: str, expected: list[int], share: float) -> None:
    found = one_box(lam, *centre, form)
    assert found == expected
    assert 1 - (found[1] - found[0]) * (found[3] - found[2]) / 224**2 == share


@pytest.mark.parametrize("form", ["rect", "area", "sqrt"])
def test_lambda_1_is_an_empty_box(form: str) -> None:
    y0, y1, x0, x1 = one_box(1.0, 100, 50, form)
    assert (y1 - y0) * (x1 - x0) == 0


@pytest.mark.parametrize(("form", "area"), [("rect", 0.5 - 0.2 + 1 / 48), ("area", 5 / 12)])
def test_the_mean_area_of_clipped_boxes(form: str, area: float) -> None:
    rng = np.random.default_rng(0)
    y0, y1, x0, x1 = boxes_from_lambda(rng.random(200_000), rng.integers(0, 224, (200_000, 2)), (224, 224), form).T
    assert ((y1 - y0) * (x1 - x0)).mean() / 224**2 == pytest.approx(area, abs=0.004)


def batches(step: Any, given: torch.Tensor, count: int = 40) -> list[AugmentedBatch]:
    return [seen(step, given, batch=b) for b in range(count)]


def spans(changed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows and the columns of an (H, W) mask that hold anything."""
    return np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))


@pytest.mark.parametrize("name", ["cutout", "slit-cutout"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_cutting_out_paints_one_white_box_and_nothing_else(name: str, per_sample: bool) -> None:
    given = pictures(6)
    sizes = set()
    for out in batches({name: {"per_sample": per_sample, "p": 0.9}}, given, 10):
        assert out.mix_index is None and out.mix_lambda is None and out.pictures.dtype == torch.uint8
        masks = (out.pictures != given).numpy()
        assert (masks.any(1) == masks.all(1)).all()  # the same places in all channels
        assert (out.pictures.numpy()[masks] == 255).all()
        for mask in masks.any(1):
            rows, columns = spans(mask)
            assert mask.sum() == len(rows) * len(columns)
            assert name == "cutout" or len(rows) in (0, 24)
        sizes.add(len({int(m.sum()) for m in masks}))
    assert (max(sizes) > 1) == per_sample


def test_a_fixed_cutout_is_a_square_of_that_side_clipped_to_the_picture() -> None:
    given = pictures(200, 24, 24)
    out = seen({"cutout": {"box_size": 11, "per_sample": True, "p": 1, "fill": 0}}, given + 1).pictures
    shapes = [tuple(map(len, spans(mask))) for mask in (out == 0).all(1).numpy()]
    assert max(shapes) == (11, 11) and min(h for h, _ in shapes) == 6 and shapes.count((11, 11)) > 40


@pytest.mark.parametrize("name", ["cutmix", "slit-cutmix"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_cutmix_takes_the_box_from_the_partner_and_counts_its_pixels(name: str, per_sample: bool) -> None:
    base = pictures(8)
    base[:, 0] = torch.arange(8, dtype=torch.uint8)[:, None, None]  # the first channel says whose pixel it is
    applied = 0
    for out in batches({name: {"per_sample": per_sample}}, base):
        if out.mix_index is None or out.mix_lambda is None:
            assert out.mix_index is None and out.mix_lambda is None and torch.equal(out.pictures, base)
            continue
        applied += 1
        if not per_sample:
            assert sorted(out.mix_index.tolist()) == list(range(8))
        for i in range(8):
            j = int(out.mix_index[i])
            foreign = (out.pictures[i, 0] != i).numpy()
            rows, columns = spans(foreign)
            assert torch.equal(out.pictures[i][:, ~foreign], base[i][:, ~foreign])
            assert torch.equal(out.pictures[i][:, foreign], base[j][:, foreign])
            assert foreign.sum() == len(rows) * len(columns)
            assert name == "cutmix" or len(rows) in (0, 24)
            if i != j:
                assert float(out.mix_lambda[i]) == pytest.approx(1 - foreign.mean())
            assert 0 <= float(out.mix_lambda[i]) <= 1
    assert applied == 40 if per_sample else 10 < applied < 30


def test_one_box_for_the_batch_and_one_share() -> None:
    for out in batches("cutmix", pictures(), 10):
        assert out.mix_lambda is None or len(set(out.mix_lambda.tolist())) == 1


def test_mixed_per_sample_about_half_are_left_alone_and_are_their_own_partners() -> None:
    given = pictures(400, 8, 8)
    out = seen({"cutmix": {"per_sample": True}}, given)
    assert out.mix_index is not None and out.mix_lambda is not None
    alone = out.mix_lambda == 1
    assert 180 < int(alone.sum()) < 260  # half, and boxes too small for a pixel
    assert torch.equal(out.mix_index[alone], torch.arange(400)[alone])
    assert torch.equal(out.pictures[alone], given[alone])


@pytest.mark.parametrize("name", MIXES)
def test_the_same_rows_in_another_order_meet_the_same_partners(name: str) -> None:
    given, names = pictures(), hashes()
    augmentation = made({name: {"p": 1}})
    shuffled = np.random.default_rng(0).permutation(12)
    one = augmentation.apply(given, names, 0, 4)
    two = augmentation.apply(given[shuffled], names[shuffled], 0, 4)
    assert one.mix_index is not None and two.mix_index is not None
    assert torch.equal(two.pictures, one.pictures[shuffled])
    assert (shuffled[two.mix_index.numpy()] == one.mix_index.numpy()[shuffled]).all()


def test_batches_of_one_epoch_have_their_own_boxes_and_permutations() -> None:
    outs = batches({"cutmix": {"p": 1}}, pictures(), 12)
    assert len({o.mix_lambda[0].item() for o in outs if o.mix_lambda is not None}) > 8
    assert len({tuple(o.mix_index.tolist()) for o in outs if o.mix_index is not None}) == 12


@pytest.mark.parametrize("per_sample", [False, True])
def test_mixup_is_the_weighted_mean_of_two_pictures(per_sample: bool) -> None:
    given = pictures()
    out = seen({"mixup": {"per_sample": per_sample}}, given)
    assert out.mix_index is not None and out.mix_lambda is not None and out.pictures.dtype == torch.float32
    for i in range(12):
        share, j = float(out.mix_lambda[i]), int(out.mix_index[i])
        expected = share * given[i].double() + (1 - share) * given[j].double()
        torch.testing.assert_close(out.pictures[i].double(), expected, rtol=0, atol=1e-4)
    assert (len(set(out.mix_lambda.tolist())) == 1) != per_sample


def test_mixup_left_alone_is_the_picture_in_the_same_type() -> None:
    out = seen({"mixup": {"p": 0}}, pictures())
    assert out.mix_index is None and torch.equal(out.pictures, pictures().float())


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_lambda_follows_its_beta_distribution(alpha: float) -> None:
    from scipy import stats

    out = seen({"mixup": {"alpha": alpha, "per_sample": True}}, torch.zeros((3000, 3, 1, 1), dtype=torch.uint8))
    assert out.mix_lambda is not None
    assert stats.kstest(out.mix_lambda.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_a_batch_of_one_can_be_mixed() -> None:
    for name in MIXES:
        out = made({name: {"p": 1}}).apply(pictures(1), hashes(1), 0, 0)
        assert out.mix_index is None or out.mix_index.tolist() == [0]
        assert torch.allclose(out.pictures.float(), pictures(1).float())


# ---- what it says of itself


def test_mixes_and_identity() -> None:
    assert not made(["hflip", "cutout"]).mixes_labels and made(["hflip", "cutmix"]).mixes_labels and not made(None).mixes_labels
    one = made(["hflip", {"crop": {"padding": 4}}])
    assert one.identity() == made([{"hflip": {"p": 0.5}}, {"crop": {"padding": 4, "fill": 0}}]).identity()
    others = [
        made(["hflip", {"crop": {"padding": 3}}]),
        made([{"crop": {"padding": 4}}, "hflip"]),
        made(["hflip"]),
        made(one.steps, 1),
    ]
    assert len({a.identity() for a in [one, *others]}) == 5


def test_pictures_that_are_no_bytes_and_hashes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 12 uint8 images"):
        made("hflip").apply(pictures().float(), hashes(), 0, 0)
    with pytest.raises(ValueError, match="expected 5 uint8 images"):
        made("hflip").apply(pictures(), hashes(5), 0, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("step", [*ALONE, *POLICIES, "cutout", "slit-cutout", "cutmix", "slit-cutmix", "mixup", *CUTS], ids=str)
def test_a_gpu_agrees_with_the_processor_within_a_grey_level(step: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    given = pictures(16, 40, 40)
    here = made(step).apply(given, hashes(16), 1, 1)
    there = made(step).apply(given.cuda(), hashes(16), 1, 1)
    assert there.pictures.is_cuda and there.pictures.dtype == here.pictures.dtype
    assert float((there.pictures.cpu().float() - here.pictures.float()).abs().max()) <= 1
    for a, b in ((here.mix_index, there.mix_index), (here.mix_lambda, there.mix_lambda)):
        assert (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b.cpu()))
