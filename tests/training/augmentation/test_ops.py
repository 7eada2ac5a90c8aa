"""Per-image ops against Pillow, torchvision, or arithmetic by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from augmented_images import (
    augment,
    make_augmentation,
    make_hashes,
    make_images,
    to_pil,
)
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import SpecError
from phoropter.core.seeds import uniform_numbers
from phoropter.models import timm_compat
from phoropter.training.augmentation import ops
from phoropter.training.augmentation.pipeline import (
    AugmentationDraws,
    apply_per_image,
)

# ---- mirrors and crops


@pytest.mark.parametrize(("step", "axis", "draw"), [("hflip", -1, "flip"), ("vflip", -2, "vertical-flip")])
@pytest.mark.parametrize("side", [8, 128])  # big pictures are mirrored by another kernel
def test_a_flip_mirrors_with_its_probability(step: str, axis: int, draw: str, side: int) -> None:
    given = make_images(40, side, side)
    mirrored = uniform_numbers(make_hashes(40), 1, 0, f"augment/{draw}", 0)[:, 0] < 0.25
    out = augment({step: {"p": 0.25}}, given).pictures
    assert 0 < mirrored.sum() < 20
    for i in range(40):
        assert torch.equal(out[i], given[i].flip(axis) if mirrored[i] else given[i])


def test_two_flips_and_a_resize_work_on_mirrored_memory() -> None:
    given = make_images(8, 110, 110)
    always = [{"vflip": {"p": 1}}, {"hflip": {"p": 1}}, {"random-resized-crop": {"scale": [1, 1], "ratio": [1, 1]}}]
    assert torch.equal(augment(always, given).pictures, given.flip(-1, -2))


def test_a_crop_may_begin_anywhere() -> None:
    given = torch.arange(36, dtype=torch.uint8).reshape(1, 1, 6, 6).expand(400, 3, 6, 6).contiguous()
    out = augment({"random-crop": {"size": 4}}, given).pictures
    corners = {int(c) for c in out[:, 0, 0, 0]}
    assert corners == {y * 6 + x for y in range(3) for x in range(3)}
    for picture in out:
        y, x = divmod(int(picture[0, 0, 0]), 6)
        assert torch.equal(picture, given[0, :, y : y + 4, x : x + 4])


def test_a_padded_crop_shifts_the_image_and_fills_with_grey() -> None:
    given = make_images(60, 8, 8)
    out = augment({"random-crop": {"padding": 2, "fill": 7}}, given).pictures
    padded = torch.nn.functional.pad(given, (2, 2, 2, 2), value=7)
    places = set()
    for picture, wide in zip(out, padded, strict=True):
        fits = [(y, x) for y in range(5) for x in range(5) if torch.equal(picture, wide[:, y : y + 8, x : x + 8])]
        assert len(fits) == 1
        places.add(fits[0])
    assert len(places) > 15


@pytest.mark.parametrize(
    ("step", "side", "expected"),
    [
        ("hflip", 300, 300),
        ({"random-crop": {"size": 224}}, 256, 224),
        ({"random-crop": {"padding": 4}}, 32, 32),
        ({"random-resized-crop": {"size": 96}}, 32, 96),
    ],
)
def test_the_output_size_is_known_beforehand(step: Any, side: int, expected: int) -> None:
    (only,) = make_augmentation(step).steps
    assert ops.output_shape(only, (side, side)) == (expected, expected)
    assert augment(step, torch.zeros(2, 3, side, side, dtype=torch.uint8)).pictures.shape[-2:] == (expected, expected)


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(SpecError, match="a crop of size 224 with padding 0 does not fit into images of 64 × 64"):
        augment({"random-crop": {"size": 224}}, torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(SpecError, match="does not fit into images of 24 × 24"):
        augment({"random-crop": {"size": 40, "padding": 4}}, make_images())


def resized_boxes(scale: list[float], ratio: list[float], height: int, width: int, count: int) -> NDArray[np.int64]:
    """top, left, height, width of each piece, read off two ramps seen through the step: it resizes to one pixel, its mean."""
    ys, xs = np.mgrid[:height, :width]
    ramps = np.stack([ys, xs, np.zeros_like(ys)]).astype(np.uint8)
    given = torch.from_numpy(np.broadcast_to(ramps, (count, 3, height, width)).copy())
    steps = make_augmentation({"random-resized-crop": {"scale": scale, "ratio": ratio}}).steps
    from phoropter.training.augmentation import ops

    draws = AugmentationDraws(make_hashes(count), 0, 0, 0)
    drawn = ops.AUGMENTATION_OPS["random-resized-crop"].draw_parameters(steps[0], draws, (height, width))
    out = apply_per_image(steps, given, draws)
    top, left = out[:, 0, 0, :].float().mean(1), out[:, 1, :, 0].float().mean(1)  # first row, first column of each piece
    assert (top - torch.from_numpy(drawn[:, 0])).abs().max() < 1.5 and (left - torch.from_numpy(drawn[:, 1])).abs().max() < 1.5
    return np.asarray(drawn)


def test_resized_crops_keep_scale_ratio_and_bounds() -> None:
    top, left, height, width = resized_boxes([0.2, 0.6], [0.5, 2.0], 100, 120, 500).T
    share, ratio = height * width / 12000, width / height
    assert share.min() > 0.19 and share.max() < 0.61 and share.min() < 0.22 and share.max() > 0.58
    assert ratio.min() > 0.48 and ratio.max() < 2.08 and abs(np.log(ratio).mean()) < 0.1
    assert top.min() == 0 and left.min() == 0 and (top + height).max() == 100 and (left + width).max() == 120
    assert (top + height <= 100).all() and (left + width <= 120).all()


def test_a_shape_that_never_fits_is_cropped_at_the_centre() -> None:
    drawn = resized_boxes([1.0, 1.0], [1.0, 1.0], 60, 100, 4)
    assert (drawn == [0, 20, 60, 60]).all()
    assert (resized_boxes([1.0, 1.0], [2.0, 2.0], 60, 100, 4) == [5, 0, 50, 100]).all()


@pytest.mark.parametrize("size", [20, 90])
def test_a_resized_crop_equals_pillow_s(size: int) -> None:
    given = make_images(10, 70, 60)
    steps = make_augmentation({"random-resized-crop": {"size": size}}).steps
    from phoropter.training.augmentation import ops

    draws = AugmentationDraws(make_hashes(10), 0, 0, 0)
    drawn = ops.AUGMENTATION_OPS["random-resized-crop"].draw_parameters(steps[0], draws, (70, 60))
    for picture, out, (top, left, height, width) in zip(given, apply_per_image(steps, given, draws), drawn.tolist(), strict=True):
        piece = to_pil(picture).crop((left, top, left + width, top + height))
        expected = np.asarray(piece.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(out.numpy().astype(int) - expected).max() <= 1


def test_a_rotation_is_bilinear_about_the_centre_with_grey_outside() -> None:
    given = make_images(5, 9, 9)
    out = augment({"rotate": {"degrees": 60, "fill": 77}}, given).pictures
    angles = (2 * uniform_numbers(make_hashes(5), 1, 0, "augment/rotate", 0)[:, 0] - 1) * np.radians(60)
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


def test_pca_lighting_shifts_an_image_by_one_colour_with_the_published_covariance() -> None:
    given = torch.full((6000, 3, 1, 2), 128, dtype=torch.uint8)
    out = augment({"pca-lighting": {"sigma": 0.5}}, given).pictures.double() - 128
    assert torch.equal(out[..., 0], out[..., 1])
    values = 255 * 0.5 * np.diag([0.2175, 0.0188, 0.0045])
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-3)
    expected = vectors @ values @ values @ vectors.T
    found = np.cov(out[:, :, 0, 0].numpy().T)
    np.testing.assert_allclose(found, expected, atol=12)  # expected is about 250 everywhere
    assert float(out.mean((0, 2, 3)).abs().max()) < 1


def test_pca_lighting_stops_at_black_and_white() -> None:
    out = augment({"pca-lighting": {"sigma": 1.0}}, torch.tensor([0, 255], dtype=torch.uint8).repeat(300, 3, 1, 1)).pictures
    assert int(out[..., 0].max()) < 255 and int(out[..., 1].min()) > 0
    assert (out[..., 0] == 0).all(1).any() and (out[..., 1] == 255).all(1).any()


@pytest.mark.parametrize(
    ("part", "operation", "column"),
    [("brightness", "adjust_brightness", 0), ("contrast", "adjust_contrast", 1), ("saturation", "adjust_saturation", 2)],
)
def test_each_part_of_color_jitter_equals_torchvision_s(part: str, operation: str, column: int) -> None:
    given = make_images()
    strengths = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, part: 0.6}
    out = augment({"color-jitter": strengths}, given).pictures
    factors = 1 + (2 * uniform_numbers(make_hashes(), 4, 0, "augment/jitter", 0)[:, column] - 1) * 0.6
    for picture, found, factor in zip(given, out, factors, strict=True):
        expected = (
            getattr(timm_compat.import_torchvision("transforms.functional"), operation)(picture.double() / 255, factor) * 255
        )
        assert float((found - expected).abs().max()) < 0.6  # we round to whole levels
    assert not torch.equal(out, given)


def test_the_hue_of_color_jitter_equals_torchvision_s() -> None:
    rng = np.random.default_rng(0)
    given = torch.from_numpy(rng.integers(0, 256, (12, 3, 24, 24), dtype=np.uint8))
    out = augment({"color-jitter": {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.5}}, given).pictures
    turns = (2 * uniform_numbers(make_hashes(), 4, 0, "augment/jitter", 0)[:, 3] - 1) * 0.5
    for picture, found, turn in zip(given, out, turns, strict=True):
        expected = timm_compat.import_torchvision("transforms.functional").adjust_hue(picture.double() / 255, turn) * 255
        assert float((found - expected).abs().max()) < 0.51


def test_the_hue_of_grey_images_stays() -> None:
    grey = make_images()[:, :1].expand(-1, 3, -1, -1).contiguous()
    assert torch.equal(
        augment({"color-jitter": {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.5}}, grey).pictures, grey
    )
