"""Corruptions of pictures against SciPy's Gaussian filter and discrete cosine transform, and against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter, zoom

from phoropter.data.shift.squares import corrupt_square
from phoropter.results.shift.corruption_kinds import Corruption

RNG = np.random.default_rng(0)
SQUARE = np.stack([np.clip(zoom(RNG.uniform(0, 255, (9, 9)), 64 / 9, order=3), 0, 255) for _ in range(3)]).astype(np.uint8)
# Table K.1 of the JPEG standard (ITU-T T.81), for quality 50
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


def corrupt(kind: str, level: float, square: np.ndarray = SQUARE, row: str = "a", seed: int = 0) -> np.ndarray:
    return corrupt_square(square, row, Corruption(kind, level, seed)).astype(float)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0])
def test_a_blur_is_scipys_gaussian_filter(sigma: float) -> None:
    noisy = np.clip(SQUARE + RNG.normal(0, 30, SQUARE.shape), 0, 255).astype(np.uint8)
    ours = corrupt("blur", sigma, noisy)
    theirs = np.stack([gaussian_filter(channel.astype(float), sigma, mode="nearest") for channel in noisy])
    inside = slice(8, -8)  # borders are continued otherwise
    assert np.abs(ours - theirs)[:, inside, inside].mean() < 1.0 < np.abs(noisy - theirs)[:, inside, inside].mean()


@pytest.mark.parametrize("quality", [50, 25, 10])
def test_jpeg_is_the_standards_quantisation_of_cosines(quality: int) -> None:
    grey = np.repeat(SQUARE[:1], 3, axis=0)  # without colour, only the table of luminance acts
    table = np.maximum(np.floor((LUMINANCE * (5000 // quality if quality < 50 else 200 - 2 * quality) + 50) / 100), 1)
    expected = np.empty((64, 64))
    for top in range(0, 64, 8):
        for left in range(0, 64, 8):
            block = dctn(grey[0, top : top + 8, left : left + 8].astype(float) - 128, norm="ortho")
            expected[top : top + 8, left : left + 8] = idctn(np.rint(block / table) * table, norm="ortho") + 128
    ours = corrupt("jpeg", quality, grey)
    # Where a cosine lies half way between two steps, the library's integers may round it the other way
    off = np.abs(ours - np.clip(expected, 0, 255))
    assert (off <= 2).mean() > 0.85 and off.mean() < 0.5 * np.abs(ours - grey).mean()


def test_brightness_and_contrast_are_plain_arithmetic() -> None:
    assert np.abs(corrupt("brightness", 0.5) - SQUARE * 0.5).max() <= 1
    assert np.abs(corrupt("brightness", 1.5) - np.clip(SQUARE * 1.5, 0, 255)).max() <= 1
    grey = np.tensordot([0.299, 0.587, 0.114], SQUARE.astype(float), axes=1).mean()
    assert np.abs(corrupt("contrast", 0.25) - (grey + 0.25 * (SQUARE - grey))).max() <= 1.5


def test_noise_has_its_deviation_and_is_drawn_by_seed_and_row() -> None:
    middle = np.full((3, 96, 96), 128, np.uint8)
    added = corrupt("noise", 0.1, middle) - 128
    assert added.std() == pytest.approx(25.5, rel=0.02) and abs(added.mean()) < 0.5
    assert np.array_equal(added, corrupt("noise", 0.1, middle) - 128)
    for other in (corrupt("noise", 0.1, middle, row="b"), corrupt("noise", 0.1, middle, seed=1)):
        assert abs(np.corrcoef(added.ravel(), other.ravel())[0, 1]) < 0.05
    assert np.corrcoef(added.ravel(), corrupt("noise", 0.05, middle).ravel())[0, 1] > 0.99  # the same noise, smaller


@pytest.mark.parametrize(("kind", "level"), [("blur", 0), ("brightness", 1), ("contrast", 1), ("noise", 0)])
def test_the_level_that_changes_nothing_changes_nothing(kind: str, level: float) -> None:
    assert np.array_equal(corrupt(kind, level), SQUARE)
