"""PictureOptions: which values, channels and page of a picture file become its pixels, where the file leaves that open.

They hold for the thread that decodes, so that every storage obeys them without knowing them, and are part of the identity of the
decoded pixels.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.core.files import digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from phoropter.data.dataset import Dataset, PictureSource

MAX_PIXELS = 100_000_000

Window = Literal["auto", "percentile"] | tuple[float, float]
Page = Literal["first", "middle", "last"] | int
Channels = tuple[int, int, int]


@dataclass(frozen=True)
class PictureOptions:
    """How picture files are decoded.

    window:   which values become black and white (see intensity.py)
    channels: the channels, counted from 1, that become red, green and blue; None: the picture has 1, 3 or 4
    page:     which page of a TIFF or frame of a DICOM file, counted from 1; None: files of several are refused
    """

    window: Window = "auto"
    channels: Channels | None = None
    page: Page | None = None

    @property
    def key(self) -> list[Any]:
        """Plain data for digests."""
        if self.channels is None and self.page is None:
            return ["window", self.window]
        return ["options", self.window, self.channels, self.page]


_DEFAULT = PictureOptions()
_ACTIVE_OPTIONS: ContextVar[PictureOptions] = ContextVar("options", default=_DEFAULT)  # of the thread that decodes


class OptionedPictures:
    """The pictures of another storage, decoded with options."""

    def __init__(self, pictures: PictureSource, options: PictureOptions) -> None:
        self.pictures, self.options = pictures, options

    def image(self, row: int) -> Any:
        """Row → RGB Image, or (H, W, 3) uint8 where the storage has no images."""
        with use_options(self.options):
            read: Any = getattr(self.pictures, "image", self.pictures.read)
            return read(row)

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8."""
        with use_options(self.options):
            return self.pictures.read(row)

    def identity(self, rows: NDArray[np.int64]) -> str:
        """A digest of the contents of these rows, in order, and of the options."""
        return digest([*self.options.key, self.pictures.identity(rows)])

    def select(self, rows: NDArray[np.int64]) -> OptionedPictures:
        """The same pictures, only these rows, in this order."""
        return OptionedPictures(self.pictures.select(rows), self.options)

    def __getattr__(self, name: str) -> Any:
        """The optional methods that answer without decoding, where the storage has them."""
        if name not in ("shape", "digests", "byte_count"):
            raise AttributeError(name)
        return getattr(self.pictures, name)


def apply_options(dataset: Dataset, options: PictureOptions) -> Dataset:
    """The dataset, its pictures decoded with the options; unchanged for the default ones."""
    return dataset if options == _DEFAULT else replace(dataset, pictures=OptionedPictures(dataset.pictures, options))


def active_options() -> PictureOptions:
    """The options with which this thread decodes."""
    return _ACTIVE_OPTIONS.get()


@contextmanager
def use_options(options: PictureOptions) -> Iterator[None]:
    """Decodes with the options in its body, in this thread."""
    token = _ACTIVE_OPTIONS.set(options)
    try:
        yield
    finally:
        _ACTIVE_OPTIONS.reset(token)


def choose_page(count: int, name: str, what: str) -> int:
    """The index, from 0, of the page that is read of so many. what: `pages`, `frames`

    Raises DataError for several pages where none is chosen, and for a page that is not there.
    """
    page = active_options().page
    if page is None and count > 1:
        raise DataError(
            f"{name}: the file has {count} {what}, and one is a picture here: choose it with data: {{page: first}} (or middle, "
            f"last, or its number from 1), or write each of the {what} to a file of its own"
        )
    if isinstance(page, int):
        if not 1 <= page <= count:
            raise DataError(f"{name}: page {page} is asked for, and the file has {count} {what}; choose one of 1 to {count}")
        return page - 1
    return {"middle": (count - 1) // 2, "last": count - 1}.get(page or "first", 0)


def choose_channels(values: NDArray[Any], name: str) -> NDArray[Any]:
    """(H, W, C) → (H, W, 3), the channels that `channels` names. Raises DataError for one that is not there."""
    channels = active_options().channels
    assert channels is not None
    count = values.shape[2] if values.ndim == 3 else 1
    if max(channels) > count:
        raise DataError(
            f"{name}: channel {max(channels)} is asked for, and the picture has {count}; name three of 1 to {count} in channels, "
            "or leave channels out"
        )
    return np.stack([values[:, :, at - 1] if values.ndim == 3 else values for at in channels], axis=2)


def check_pixel_count(pixels: int, name: str) -> None:
    """Raises DataError for a header that promises more pixels than are decoded."""
    if pixels > MAX_PIXELS:
        raise DataError(
            f"{name}: the header promises more than {MAX_PIXELS // 10**6} million pixels, which is refused before decoding; "
            "scale the picture down or remove it"
        )
