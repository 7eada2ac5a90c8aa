"""Inputs of a finished classifier that are objects in memory: PIL images, arrays, tensors and recordings → a Dataset.

They are made square, or cut and rendered, by the functions that files go through, so that equal pixels get equal logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError
from phoropter.core.files import digest_array
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.sources.items import convert_picture
from phoropter.signals.recording import Recording


class ObjectPictures:
    """Pictures held as PIL images, (H, W[, C]) arrays or (C, H, W) tensors, in a list. Batches are taken apart before."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = list(items)

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8. Raises DataError for an item that is no picture."""
        return convert_picture(self.items[row], f"input {row}")

    def identity(self, rows: NDArray[np.int64]) -> str:
        """A digest of the pixels of these rows."""
        return "".join(digest_array(self.read(int(row))) for row in rows)

    def select(self, rows: NDArray[np.int64]) -> ObjectPictures:
        """Only these rows, in this order."""
        return ObjectPictures([self.items[int(row)] for row in rows])


def list_inputs(x: Any) -> list[Any]:
    """One input or many → a list: a batch (4 axes) becomes its images, a DataFrame the paths in its column `path`.

    Raises DataError for nothing, and for a DataFrame without that column.
    """
    if hasattr(x, "columns") and hasattr(x, "itertuples"):
        if "path" not in x.columns:
            raise DataError(f"the DataFrame has no column 'path', expected one with the inputs; it has {list(x.columns)}")
        items: list[Any] = [Path(str(value)) for value in x["path"]]
    elif isinstance(x, (str, Path, Image.Image, Recording)):
        items = [x]
    elif hasattr(x, "ndim"):  # an array or a tensor
        items = list(x) if x.ndim == 4 else [x]
    else:
        items = list(x)
    if not items:
        raise DataError("there is no input; expected paths, PIL images, arrays, tensors, recordings or a DataFrame of paths")
    return items


def make_picture_dataset(items: Sequence[Any], classes: tuple[str, ...]) -> Dataset:
    """Images in memory → a Dataset without labels; ids are their numbers, from 0."""
    return Dataset(
        name="inputs",
        ids=np.array([str(row) for row in range(len(items))]),
        labels=np.full(len(items), UNLABELLED, dtype=np.int64),
        classes=classes,
        pictures=ObjectPictures(items),
    )
