"""Intensity window: which pixel values of a picture become black and white.

    data: {folder: xrays, intensity: {window: [0, 4095]}}

Files of 8 bits have an agreed brightness. Files of 16 or 32 bits and of floating-point numbers have none: a camera of 12 bits
writes 0..4095 into 16, a CT scanner −1000..3000. The window is part of the identity of the decoded pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import field_validator

from phoropter.core.errors import DataError
from phoropter.core.spec import Spec
from phoropter.data.images.options import Window, active_options

PERCENTILES = (1.0, 99.0)
BIT_DEPTHS = (8, 12, 16)
DEPTH_KEY = "phoropter-depth"  # in the `info` of an Image: the bits by which `auto` scaled it


class IntensitySpec(Spec):
    """How pixel values become the 256 greys that networks are given.

    window: `auto` leaves pictures of 8 bits as they are, scales whole numbers by the fewest of 8, 12 or 16 bits that hold the
            largest value of the picture, floating-point numbers from 0..1, and DICOM by the window in the file; `[lo, hi]` makes
            lo black and hi white, in every picture; `percentile` does so with the 1st and 99th percentile of each picture
    """

    window: Window = "auto"

    @field_validator("window")
    @classmethod
    def _check_window(cls, window: Window) -> Window:
        if isinstance(window, tuple) and not (math.isfinite(window[0]) and math.isfinite(window[1]) and window[0] < window[1]):
            raise ValueError(f"the window is {list(window)}, expected two numbers [lo, hi] with lo below hi")
        return window


def show_values(values: NDArray[Any], name: str) -> Image.Image:
    """(H, W) or (H, W, 3) pixel values of any type → an RGB Image by the active window. Raises DataError as `scale_to_uint8`.

    Under DEPTH_KEY its `info` holds the bits that the picture's own largest value has chosen, where it has.
    """
    shown = Image.fromarray(scale_to_uint8(values, name)).convert("RGB")
    if active_options().window == "auto" and values.dtype.kind in "iu" and values.dtype.itemsize > 1 and values.any():
        shown.info[DEPTH_KEY] = _fewest_bits(int(values.max()))
    return shown


def _fewest_bits(high: int) -> int | None:
    """The fewest of BIT_DEPTHS that hold a value; None where none does."""
    return next((bits for bits in BIT_DEPTHS if high < 2**bits), None)


def scale_to_uint8(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Pixel values of any type → 0..255 by the active window. Raises DataError for values that the window says nothing about."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(
            f"{name}: floating-point pixels must be finite to have a brightness; fill the gaps, or leave the picture out"
        )
    window = active_options().window
    if window == "auto":
        return _scale_float(values, name) if values.dtype.kind == "f" else _scale_whole_numbers(values, name)
    low, high = np.percentile(values, PERCENTILES).tolist() if window == "percentile" else window
    if high <= low:  # a picture of one colour
        return np.zeros(values.shape, dtype=np.uint8)
    scaled = (values.astype(np.float64) - low) * 255 / (high - low)
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def _scale_float(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if values.min() < 0 or values.max() > 1:
        raise DataError(
            f"{name}: floating-point pixels must lie in 0..1 to have a brightness, but run from {values.min():g} to "
            f"{values.max():g}; say which range it is with data: {{intensity: {{window: [lo, hi]}}}}"
        )
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)


def _scale_whole_numbers(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    bits = _fewest_bits(high)
    if low < 0 or bits is None:
        raise DataError(
            f"{name}: whole numbers outside 0..65535 have no agreed brightness, and these pixels run from {low} to {high}; say "
            "which range it is with data: {intensity: {window: [lo, hi]}}"
        )
    top, wide = 2**bits - 1, values.astype(np.int32)  # of at most 16 bits here, so that 255 times as much fits
    scaled: NDArray[np.uint8] = ((wide * 255 + top // 2) // top).astype(np.uint8)
    return scaled
