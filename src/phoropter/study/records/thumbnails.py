"""Small JPEGs of images kept with results: the most confident mistakes of a run, and pairs found by the leakage audit."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

THUMBNAIL_SIZE = 112  # largest side in pixels


def encode_thumbnail(image: NDArray[np.uint8]) -> bytes:
    """(3, H, W) uint8 → JPEG of at most THUMBNAIL_SIZE pixels a side."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
