"""Pictures that decode to next to nothing: one colour, or very few greys. Most often they were read wrong, or exported empty."""

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

BlankRow = tuple[int, str]  # row, ONE_COLOUR or FEW_GREYS


def find_blankness(picture: Image.Image | NDArray[np.uint8]) -> str | None:
    """An RGB picture → ONE_COLOUR, FEW_GREYS, or None. Counting stops at the 17th colour, so it costs next to nothing."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    if image.width * image.height < MIN_PIXELS or (colours := image.getcolors(MAX_FEW_GREYS)) is None:
        return None
    if len(colours) == 1:
        return ONE_COLOUR
    return FEW_GREYS if all(len(set(colour)) == 1 for _, colour in colours) else None  # type: ignore[arg-type]


def describe_blank_rows(dataset: Dataset, blank: Sequence[BlankRow], looked_at: int) -> tuple[str, ...]:
    """Blank rows among so many that were looked at → notes with counts and names."""
    notes = []
    for kind in (ONE_COLOUR, FEW_GREYS):
        rows = [row for row, own in blank if own == kind]
        if rows:
            names = ", ".join(dataset.ids[rows[:MAX_NAMED]].tolist()) + " …" * (len(rows) > MAX_NAMED)
            notes.append(f"{len(rows)} of {looked_at} pictures have {kind}, so they may be empty or read wrong: {names}")
    return tuple(notes)
