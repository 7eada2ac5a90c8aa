"""Simple features of pictures: mean colours of cells, histograms of colour, and texture (NumPy alone).

Letters: n pictures, S side in pixels.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float32]
CELLS = 8  # rows and columns of cells of `mean-image`
BINS = 16  # of a histogram of colour, and grey levels of a co-occurrence matrix
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))  # neighbours of a pixel, clockwise
_OFFSETS = ((0, 1), (1, 1), (1, 0), (1, -1))  # of co-occurring pixels: 0, 45, 90 and 135 degrees


def measure_mean_image(pictures: Pictures) -> Floats:
    """(n, 3, S, S) bytes → (n, 192): the mean of each colour in 8 × 8 cells, in 0..1."""
    edges = np.linspace(0, pictures.shape[-1], CELLS + 1).round().astype(np.int64)
    cells = [
        pictures[:, :, top : max(bottom, top + 1), left : max(right, left + 1)].mean(axis=(2, 3))
        for (top, bottom), (left, right) in itertools.product(itertools.pairwise(edges), repeat=2)
    ]
    return (np.stack(cells, axis=-1) / 255).reshape(len(pictures), -1).astype(np.float32)


def measure_colour_texture(pictures: Pictures) -> Floats:
    """(n, 3, S, S) bytes → (n, 69): histograms of red, green and blue (16 bins each, shares), their means and deviations in 0..1,
    the shares of the 10 rotation-invariant uniform local binary patterns, and 5 properties of the co-occurrence matrix."""
    rows = []
    for picture in pictures:
        flat = picture.reshape(3, -1)
        histograms = [np.bincount(channel // (256 // BINS), minlength=BINS) / channel.size for channel in flat]
        moments = np.concatenate([flat.mean(axis=1), flat.std(axis=1)]) / 255
        grey = np.tensordot(_LUMA, picture.astype(np.float32), axes=1)
        rows.append(np.concatenate([*histograms, moments, count_binary_patterns(grey), describe_cooccurrence(grey)]))
    return np.array(rows, dtype=np.float32)


def count_binary_patterns(grey: NDArray[np.floating]) -> NDArray[np.float64]:
    """(S, S) → (10,) shares of the pixels' local binary patterns on their 8 neighbours (Ojala et al. 2002).

    A pattern with at most two changes around the ring is named by its number of neighbours that are at least as bright (0 to 8),
    all others are 9. Pixels at the border have no pattern.
    """
    side_y, side_x = grey.shape
    centre = grey[1:-1, 1:-1]
    ring = np.stack([grey[1 + y : side_y - 1 + y, 1 + x : side_x - 1 + x] >= centre for y, x in _RING])
    changes = (ring != np.roll(ring, 1, axis=0)).sum(axis=0)
    patterns = np.where(changes <= 2, ring.sum(axis=0), 9)
    return np.bincount(patterns.ravel(), minlength=10) / max(patterns.size, 1)


def describe_cooccurrence(grey: NDArray[np.floating]) -> NDArray[np.float64]:
    """(S, S) in 0..255 → (5,) contrast, dissimilarity, homogeneity, energy and correlation (Haralick et al. 1973).

    Of the symmetric matrix of 16 grey levels of pixels that are neighbours in four directions, added up.
    """
    levels = np.minimum(grey.astype(np.int64) // (256 // BINS), BINS - 1)
    height, width = levels.shape
    matrix = np.zeros((BINS, BINS))
    for y, x in _OFFSETS:
        one = levels[: height - y, max(0, -x) : width - max(0, x)]
        other = levels[y:, max(0, x) : width + min(0, x)]
        matrix += np.bincount((one * BINS + other).ravel(), minlength=BINS**2).reshape(BINS, BINS)
    matrix += matrix.T
    matrix /= max(matrix.sum(), 1)
    i, j = np.indices(matrix.shape)
    apart = np.abs(i - j)
    mean = (matrix * i).sum()
    variance = (matrix * (i - mean) ** 2).sum()
    covariance = (matrix * (i - mean) * (j - mean)).sum()
    correlation = covariance / variance if variance > 0 else 1.0
    sums = [(matrix * apart**2).sum(), (matrix * apart).sum(), (matrix / (1 + apart**2)).sum(), np.sqrt((matrix**2).sum())]
    return np.array([*sums, correlation])
