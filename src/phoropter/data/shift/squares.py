"""Corruptions of stored pictures: blur, JPEG, brightness, contrast and noise of (3, S, S) bytes.

They act on the square that is stored, so that a blur of 2 pixels means the same for a photograph of 300 pixels and one of 4,000,
after both were scaled. The kinds are some of Hendrycks & Dietterich 2019; the levels are in physical units, not theirs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from phoropter.core.seeds import named_generator
from phoropter.results.shift.corruption_kinds import Corruption

Square = NDArray[np.uint8]


def corrupt_square(square: Square, row_id: str, corruption: Corruption) -> Square:
    """(3, S, S) bytes → the same size. row_id: of the picture, by which its noise is drawn"""
    if corruption.kind == "noise":
        drawn = named_generator(corruption.seed, "shift", "noise", row_id).standard_normal(square.shape, dtype=np.float32)
        noisy = square + np.float32(255 * corruption.level) * drawn
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(square.transpose(1, 2, 0)))
    changed = PICTURE_CORRUPTIONS[corruption.kind](picture, corruption.level)
    return np.ascontiguousarray(np.asarray(changed).transpose(2, 0, 1))


def _blur_picture(picture: Image.Image, sigma: float) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(sigma))


def _compress_picture(picture: Image.Image, quality: float) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(quality))
    return Image.open(file).convert("RGB")


def _scale_brightness(picture: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(factor)


def _scale_contrast(picture: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(picture).enhance(factor)


PICTURE_CORRUPTIONS: Mapping[str, Callable[[Image.Image, float], Image.Image]] = {
    "blur": _blur_picture,
    "jpeg": _compress_picture,
    "brightness": _scale_brightness,
    "contrast": _scale_contrast,
}
