"""Windows of recordings drawn from their samples in random order: what is left are their values, not their course."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import digest
from phoropter.core.seeds import named_generator
from phoropter.data.recordings.dataset import RenderedPictures

Rows = NDArray[np.int64]


class ShuffledPictures:
    """Rendered windows, each of its own samples in random order, as the PictureSource of a Dataset.

    All channels of a window are shuffled alike, after they were cleaned, so that values measured together stay together. Each
    picture has a grey scale of its own, also where those of the study span the windows of a subject.
    ids: (n,) of the rows, by which the order is drawn
    """

    def __init__(self, pictures: RenderedPictures, ids: NDArray[np.str_]) -> None:
        self.pictures, self.ids = pictures, ids

    def images(self, rows: Rows) -> NDArray[np.uint8]:
        """(m,) rows → (m, S, S, 3) uint8, rendered as one batch."""
        windows, at = self.pictures.windows, self.pictures.index[rows]
        name_of = dict(zip(at.tolist(), self.ids[rows].tolist(), strict=True))

        def shuffle(samples: NDArray[np.float32], places: Rows) -> NDArray[np.float32]:
            return np.stack([shuffle_samples(each, name_of[p]) for each, p in zip(samples, places.tolist(), strict=True)])

        return windows.view.render_rows(windows.recordings, windows.table, at, None, shuffle)

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (S, S, 3) uint8."""
        return np.array(self.images(np.array([row]))[0])

    def shape(self, row: int) -> tuple[int, int]:
        """(S, S)."""
        return self.pictures.shape(row)

    def identity(self, rows: Rows) -> str:
        """A digest of the windows and of the orders of their samples."""
        return digest(["time shuffled", self.pictures.identity(rows), self.ids[rows].tolist()])

    def select(self, rows: Rows) -> ShuffledPictures:
        """Only these rows, in this order."""
        return ShuffledPictures(self.pictures.select(rows), self.ids[rows])


def shuffle_samples(samples: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """(..., T) samples of a window in an order drawn by its id, the same in all channels."""
    return samples[..., named_generator("time shuffled", name).permutation(samples.shape[-1])]
