"""Pictures that decode to next to nothing: one colour, very few greys, or nothing bright. Most often they were read wrong, or
exported empty: a camera of 10 bits that writes into 16 gives a quarter of the brightness. And pictures of one dataset that were
scaled by different depths, each by its own largest value: a dark one comes out bright."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.data.dataset import Dataset
from phoropter.data.images.intensity import BIT_DEPTHS, DEPTH_KEY

MAX_FEW_GREYS = 16
MIN_PIXELS = 256  # a smaller picture has few greys by nature
MAX_NAMED = 3
ONE_COLOUR = "one colour"
FEW_GREYS = f"at most {MAX_FEW_GREYS} greys"

MAX_DARK = 64
DARK = "at most a quarter of the brightness"

BlankRow = tuple[int, str]  # row, and ONE_COLOUR, FEW_GREYS or DARK, or the depth of a deep picture, as in "12 bits"


def describe_picture(picture: Image.Image | NDArray[np.uint8]) -> list[str]:
    """An RGB picture → what a BlankRow says of it."""
    depth = picture.info.get(DEPTH_KEY) if isinstance(picture, Image.Image) else None
    return [kind for kind in (find_blankness(picture), f"{depth} bits" if depth else None) if kind]


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
            what = "so they may be empty or read wrong"
            if kind == DARK:
                what = "so their values may have another range than was read (intensity: {window: [lo, hi]} says which)"
            notes.append(f"{len(rows)} of {looked_at} pictures have {kind}, {what}: {_name_rows(dataset, rows)}")
    return (*notes, *_describe_depths(dataset, blank, looked_at))


def _describe_depths(dataset: Dataset, found: Sequence[BlankRow], looked_at: int) -> tuple[str, ...]:
    """A note where deep pictures were scaled by different depths; those of the rarest are named."""
    rows_of = {bits: [row for row, kind in found if kind == f"{bits} bits"] for bits in BIT_DEPTHS}
    rows_of = {bits: rows for bits, rows in rows_of.items() if rows}
    if len(rows_of) < 2:
        return ()
    counts = " and ".join(f"{len(rows)} by {bits} bits" for bits, rows in rows_of.items())
    rarest = min(rows_of, key=lambda bits: len(rows_of[bits]))
    return (
        f"WARNING: of {looked_at} pictures {counts} were scaled, each by its own largest value, so one value is shown in several "
        f"brightnesses (intensity: {{window: [0, {2 ** max(rows_of) - 1}]}} scales all alike); by {rarest} bits: "
        f"{_name_rows(dataset, rows_of[rarest])}",
    )


def _name_rows(dataset: Dataset, rows: Sequence[int]) -> str:
    return ", ".join(dataset.ids[list(rows[:MAX_NAMED])].tolist()) + " …" * (len(rows) > MAX_NAMED)
