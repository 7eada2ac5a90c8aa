"""Rasterises lines and areas into images of S × S pixels, a batch at a time, without a plotting library.

Time runs from left to right, large values are at the top, the background is white and the trace dark (Hemmi 2024; where that
paper leaves the geometry open, it is ours). Sample i of n lies in column i·S // n. Left out on purpose: axes, grids and text,
which a network would learn to read.

    m  windows     n  samples     S  pixels a side
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from phoropter.core.errors import SpecError
from phoropter.core.spec import Spec

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Pen(Spec):
    """Width, smoothing and colours of a trace.

    width_px:    width of the line in pixels
    antialiased: grey pixels at the edges of the line; else black and white only
    polarity:    "paper": dark on white; "ink": bright on black
    """

    width_px: PositiveFloat = 2.0
    antialiased: bool = True
    polarity: Literal["paper", "ink"] = "paper"


def draw_trace(values: NDArray[np.floating], axis: NDArray[np.floating], size: int, pen: Pen | None = None) -> Bytes:
    """(m, n) values on an axis of (m, 2) or (2,) (low, high) → (m, S, S).

    Every column holds one vertical stroke from the lowest to the highest of its samples and of the midpoints towards its
    neighbours, extended by half the line width at both ends. A column without a finite sample stays empty. Where there are fewer
    samples than columns, they are joined by straight lines first.
    """
    pen = pen or Pen()
    height = _pixel_heights(_upsample_to_width(np.asarray(values, np.float32), size), axis, size)  # (m, n), 0 is the top row
    top, bottom = _column_extents(height, size)
    return _fill_columns(top - pen.width_px / 2, bottom + pen.width_px / 2, size, pen)


def draw_area(values: NDArray[np.floating], axis: NDArray[np.floating], size: int, pen: Pen | None = None) -> Bytes:
    """As `draw_trace`, filled from the mean of each column's samples to the bottom."""
    height = _column_means(_pixel_heights(_upsample_to_width(np.asarray(values, np.float32), size), axis, size), size)  # (m, S)
    top = np.where(np.isfinite(height), height, np.inf)
    return _fill_columns(top, np.where(np.isfinite(height), np.float32(size), -np.inf), size, pen or Pen())


def draw_heatmap(values: NDArray[np.floating], axis: NDArray[np.floating], size: int, pen: Pen | None = None) -> Bytes:
    """(m, n) → (m, S, S) with identical rows: the darkness of a column is its mean on the axis, none for low, full for high."""
    pen = pen or Pen()
    height = _column_means(_pixel_heights(_upsample_to_width(np.asarray(values, np.float32), size), axis, size), size)
    ink = np.nan_to_num(1.0 - height / (size - 1), nan=0.0)  # (m, S)
    return np.repeat(_ink_to_pixels(255.0 * ink.astype(np.float32), pen)[:, None, :], size, axis=1)


def column_starts(n: int, size: int) -> NDArray[np.int64]:
    """(S,) first sample of every column when n >= S: the smallest i with i·S // n equal to the column."""
    return -(-np.arange(size, dtype=np.int64) * n // size)


def _upsample_to_width(values: Floats, size: int) -> Floats:
    """(m, n) → unchanged when n >= size, else `size` samples by linear interpolation; a gap widens to its neighbours."""
    n = values.shape[1]
    if n >= size:
        return values
    if n < 2:
        raise SpecError(f"trace: expected windows of two samples or more, came {n}")
    at = np.linspace(0, n - 1, size)
    left = np.minimum(at.astype(int), n - 2)
    part = (at - left).astype(np.float32)
    between = values[:, left] * (1 - part) + values[:, left + 1] * part
    return np.where(part == 0, values[:, left], np.where(part == 1, values[:, left + 1], between))


def _pixel_heights(values: Floats, axis: NDArray[np.floating], size: int) -> Floats:
    """Values → pixels below the top row's centre, 0..S-1, clipped to the axis; the middle for an axis without extent."""
    bounds = np.asarray(axis, np.float32)
    low, high = bounds[..., :1], bounds[..., 1:]
    extent = np.where(high > low, high - low, np.float32(1))
    height = (high - np.clip(values, low, high)) / extent * np.float32(size - 1)
    return np.where(high > low, height, height + np.float32((size - 1) / 2)).astype(np.float32, copy=False)


def _column_extents(height: Floats, size: int) -> tuple[Floats, Floats]:
    """(m, n) heights → (m, S) top and bottom of every column's stroke; +inf and -inf where there is none."""
    starts = column_starts(height.shape[1], size)
    finite = np.isfinite(height)
    complete = bool(finite.all())
    top = np.minimum.reduceat(height if complete else np.where(finite, height, np.float32(np.inf)), starts, axis=1)
    bottom = np.maximum.reduceat(height if complete else np.where(finite, height, np.float32(-np.inf)), starts, axis=1)
    middle = (height[:, starts[1:] - 1] + height[:, starts[1:]]) / 2  # (m, S - 1), NaN beside a gap
    for columns in (slice(1, None), slice(None, -1)):
        top[:, columns] = np.fmin(top[:, columns], middle)
        bottom[:, columns] = np.fmax(bottom[:, columns], middle)
    return top, bottom


def _column_means(height: Floats, size: int) -> Floats:
    """(m, n) → (m, S) mean of the finite heights of every column, NaN where there is none."""
    starts = column_starts(height.shape[1], size)
    finite = np.isfinite(height)
    count = np.add.reduceat(finite.astype(np.float32), starts, axis=1)
    total = np.add.reduceat(np.where(finite, height, np.float32(0)), starts, axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.float32(np.nan))


def _fill_columns(top: Floats, bottom: Floats, size: int, pen: Pen) -> Bytes:
    """(m, S) tops and bottoms → (m, S, S) pixels, each as dark as the share of it that lies between them."""
    row = np.arange(size, dtype=np.float32)[:, None] + np.float32(0.5)
    ink = row - top[:, None, :]  # from the top of the stroke to the pixel's lower edge
    np.minimum(ink, bottom[:, None, :] - (row - 1), out=ink)  # from the pixel's upper edge to the bottom of the stroke
    np.minimum(ink, (bottom - top)[:, None, :], out=ink)
    ink *= 255
    return _ink_to_pixels(ink, pen)


def _ink_to_pixels(ink: Floats, pen: Pen) -> Bytes:
    """Darkness, clipped to 0..255 → pixels."""
    if not pen.antialiased:
        ink = np.where(ink >= 127.5, np.float32(255), np.float32(0))
    np.clip(ink, 0, 255, out=ink)
    if pen.polarity == "paper":
        np.subtract(255, ink, out=ink)
    ink += 0.5
    return ink.astype(np.uint8)
