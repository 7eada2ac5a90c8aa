"""Small JPEGs of images kept with results: a run's surest mistakes, pairs found by the leakage audit, maps of the leader."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL_SIZE = 112  # largest side in pixels


def encode_thumbnail(image: NDArray[np.uint8]) -> bytes:
    """(3, H, W) uint8 → JPEG of at most THUMBNAIL_SIZE pixels a side."""
    from PIL import Image

    return encode_jpeg(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))), THUMBNAIL_SIZE)


def encode_jpeg(picture: Image.Image, side: int) -> bytes:
    """JPEG of a picture, which is made smaller in place where a side of it is longer than `side` pixels."""
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
