"""Pictures that decode to next to nothing: one colour, very few greys, or nothing bright. Most often they were read wrong, or
exported empty: a camera of 10 bits that writes into 16 gives a quarter of the brightness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.data.dataset import Dataset

MAX_FEW_GREYS = 16
MIN_PIXELS = 256  # a smaller picture has few greys by nature
MAX_NAMED = 3
ONE_COLOUR = "one colour"
FEW_GREYS = f"at most {MAX_FEW_GREYS} greys"

MAX_DARK = 64
DARK = "at most a quarter of the brightness"

BlankRow = tuple[int, str]  # row, and ONE_COLOUR, FEW_GREYS or DARK


def find_blankness(picture: Image.Image | NDArray[np.uint8]) -> str | None:
    """An RGB picture → ONE_COLOUR, FEW_GREYS, DARK, or None. Counting stops at the 17th colour, so it costs next to nothing."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    if image.width * image.height < MIN_PIXELS:
        return None
    if (colours := image.getcolors(MAX_FEW_GREYS)) is None:
        return DARK if max(high for _, high in image.getextrema()) <= MAX_DARK else None  # type: ignore[misc]
    if len(colours) == 1:
        return ONE_COLOUR
    return FEW_GREYS if all(len(set(colour)) == 1 for _, colour in colours) else None  # type: ignore[arg-type]


def describe_blank_rows(dataset: Dataset, blank: Sequence[BlankRow], looked_at: int) -> tuple[str, ...]:
    """Blank rows among so many that were looked at → notes with counts and names."""
    notes = []
    for kind in (ONE_COLOUR, FEW_GREYS, DARK):
        rows = [row for row, own in blank if own == kind]
        if rows:
            names = ", ".join(dataset.ids[rows[:MAX_NAMED]].tolist()) + " …" * (len(rows) > MAX_NAMED)
            what = "so they may be empty or read wrong"
            if kind == DARK:
                what = "so their values may have another range than was read (intensity: {window: [lo, hi]} says which)"
            notes.append(f"{len(rows)} of {looked_at} pictures have {kind}, {what}: {names}")
    return tuple(notes)
