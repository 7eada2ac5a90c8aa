"""Near-duplicate images: pairs of a dataset that show one photograph, saved again, recoloured, rotated or mirrored.

An image is described by its 16 × 16 lowest DCT coefficients (the block that Zauner 2010 hashes), standardised over the dataset:
deviation from the mean in units of the standard deviation. What all images share (the frame of a chart, a centred digit, a sky)
thereby carries no weight, and fine detail counts as much as large shapes, in which unrelated photographs often agree.
Two steps: the signs of the 64 lowest coefficients form a 64-bit hash, and all pairs of hashes are compared by Hamming distance;
the few close pairs are confirmed by the correlation of all coefficients. The time grows with the square of N, which MAX_ROWS and
MAX_ROWS_TURNED bound. Hashes that differ in 12 of 64 bits agree in no quarter but for 3 bits, and to look up all such quarters in
tables takes longer than to compare all pairs, of which a core does 10⁹ a second.

Left out: local features, which would find tighter crops and images within images at a hundred times the cost; and a network's
features (feature_duplicates.py), which also find two images of one kind similar.

Letters: N images · K coefficients along a side · D coefficients of an image, without the mean brightness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

VERSION = 1  # of `dct_features`: raise it when the same pixels would give other numbers
DCT_SIDE = 16  # K
HASH_BITS = 64
MAX_HAMMING = 12  # bits of 64 in which two hashes of one photograph may differ
MIN_CORRELATION = 0.8  # checked by eye on CIFAR-10, Intel scenes and Caltech-101, see docs/leakage.md
MIN_CORRELATION_TURNED = 0.9  # of mirrored and rotated copies: symmetrical objects resemble their own mirror image
CHANCE_FACTOR = 1.5  # images of one class resemble each other more than independent ones do by chance
MIN_CONTRAST = 2.0  # standard deviation in grey levels; images with less (blank pages) all look alike
NOISE_LEVEL = 0.2  # grey levels; a coefficient that varies less reflects how images were saved, not what they show
MIN_ROWS = 8  # fewer give no reliable mean
MAX_ROWS_TURNED = 25_000  # above, only upright and mirrored copies are searched for; time grows with the square
MAX_ROWS = 250_000
MAX_PAIRS = 100_000
MAX_CANDIDATES = 20_000_000
_BLOCK_SHAPE = (128, 4096)


class PixelBatches(Protocol):
    """What the search reads of Pixels."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, 3, S, S)."""
        ...

    def batch(self, rows: Rows) -> NDArray[np.uint8]:
        """(B,) rows → (B, 3, S, S) uint8."""
        ...


@dataclass(frozen=True, eq=False)
class DuplicatePairs:
    """Pairs of rows that show one photograph.

    pairs: (P, 2), the smaller row first · score: (P,) correlation or cosine · relation: (P,) orientation of the second image
    relative to the first, or whose features · skipped: sentences on what was not searched for, and why
    """

    pairs: Rows
    score: Floats
    relation: NDArray[np.str_]
    skipped: tuple[str, ...] = field(default=())


def dct_features(pixels: PixelBatches, progress: Callable[[int, int], None] | None = None) -> Floats:
    """(N, 3, S, S) images → (N, K, K) float32 DCT coefficients of their luminance.

    The squares of all but the first sum to the variance at this resolution, in grey levels squared.
    """
    count, _, side, _ = pixels.shape
    cosines = _dct_matrix(side)
    step = max(1, 2**25 // (3 * side * side))
    out = np.empty((count, DCT_SIDE, DCT_SIDE), dtype=np.float32)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count), dtype=np.int64)
        out[rows] = cosines @ _to_luminance(pixels.batch(rows)) @ cosines.T / side
        if progress:
            progress(int(rows[-1]) + 1, count)
    return out


def _to_luminance(pictures: NDArray[np.uint8]) -> Floats:
    """(B, 3, S, S) → (B, S, S) luminance in 0..255, with integer weights (256ths) because that is three times as fast."""
    red, green, blue = (np.uint16(weight) for weight in (77, 150, 29))
    grey = pictures[:, 0] * red
    grey += pictures[:, 1] * green
    grey += pictures[:, 2] * blue
    return grey.astype(np.float32) / np.float32(256)


def find_near_duplicates(features: Floats) -> DuplicatePairs:
    """(N, K, K) coefficients → the near-duplicate pairs, each once, in its best orientation."""
    squares = features.astype(np.float64) ** 2
    detail = np.sqrt(np.maximum(squares.sum(axis=(1, 2)) - squares[:, 0, 0], 0))
    rows = np.flatnonzero(detail >= MIN_CONTRAST)
    if len(rows) < MIN_ROWS:
        return _empty_result(f"{len(rows)} images with any detail are too few to tell copies from similar images")
    if len(rows) > MAX_ROWS:
        return _empty_result(
            f"near-duplicates were not searched for among {len(rows):,} images: at most {MAX_ROWS:,} are compared"
        )
    upright_only = len(rows) > MAX_ROWS_TURNED
    skipped = [f"rotated copies were not searched for among {len(rows):,} images; mirrored ones were"] if upright_only else []
    orientations = list(ORIENTATIONS)[: 2 if upright_only else len(ORIENTATIONS)]
    search = _PairSearch(features[rows])
    parts = []
    for orientation in orientations:
        pairs, score = search.find_pairs(orientation)
        parts.append((rows[pairs], score, np.full(len(pairs), orientation)))
    if search.truncated:
        skipped.append("the images of this dataset are so similar that the search for near-duplicates was cut short")
    pairs, score, relation = (np.concatenate(column) for column in zip(*parts, strict=True))
    return DuplicatePairs(*_keep_best_orientation(pairs, score, relation), tuple(skipped))


class _PairSearch:
    """The standardised coefficients of a dataset, and the search through all pairs."""

    def __init__(self, features: Floats) -> None:
        self.features = features
        flat = features.reshape(len(features), -1)
        self.mean = flat.mean(axis=0)
        self.spread = np.hypot(flat.std(axis=0), NOISE_LEVEL)
        self.whitened = self._whiten_features(features)  # (N, D), unit rows
        self.hashes = _hash_signs(self.whitened)
        self.threshold = max(MIN_CORRELATION, _chance_correlation(self.whitened))
        self.candidates_left = MAX_CANDIDATES
        self.truncated = False

    def find_pairs(self, orientation: str) -> tuple[Rows, Floats]:
        """(P, 2) positions and (P,) correlations of the pairs whose second image, in this orientation, is the first."""
        turn = ORIENTATIONS[orientation]
        upright = orientation == UPRIGHT
        threshold = self.threshold if upright else max(MIN_CORRELATION_TURNED, self.threshold)
        hashes = self.hashes if upright else self._hash_turned(turn)
        kept_pairs, kept_score, total = [], [], 0
        for pairs in _find_close_hashes(self.hashes, hashes):
            self.candidates_left -= len(pairs)
            if self.candidates_left < 0 or total > MAX_PAIRS:
                self.truncated = True
                break
            second = self.whitened[pairs[:, 1]] if upright else self._whiten_features(turn(self.features[pairs[:, 1]]))
            score = np.einsum("ij,ij->i", self.whitened[pairs[:, 0]], second)
            good = score >= threshold
            kept_pairs.append(pairs[good])
            kept_score.append(score[good])
            total += int(good.sum())
        if not kept_pairs:
            return np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32)
        return np.concatenate(kept_pairs), np.concatenate(kept_score).astype(np.float32)

    def _whiten_features(self, features: Floats) -> Floats:
        white = ((features.reshape(len(features), -1) - self.mean) / self.spread)[:, _COARSE_TO_FINE]
        return np.asarray(white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-6), dtype=np.float32)

    def _hash_turned(self, turn: Callable[[Floats], Floats]) -> NDArray[np.uint64]:
        step = 4096
        blocks = (self.features[start : start + step] for start in range(0, len(self.features), step))
        return np.concatenate([_hash_signs(self._whiten_features(turn(block))) for block in blocks])


def _hash_signs(white: Floats) -> NDArray[np.uint64]:
    """(N, D) → (N,) hashes: one bit for each of the 64 lowest coefficients, set where it is above the mean."""
    packed = np.ascontiguousarray(np.packbits(white[:, :HASH_BITS] > 0, axis=1))
    return packed.view(np.uint64)[:, 0]


def _find_close_hashes(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> Iterator[Rows]:
    """Blocks of (P, 2) positions i < j whose hashes first[i] and second[j] differ in at most MAX_HAMMING bits.

    Every pair is compared, in blocks that fit the processor's cache; no more is held than the close pairs of one.
    """
    tall, wide = _BLOCK_SHAPE
    for top in range(0, len(first), tall):
        column = first[top : top + tall, None]
        for left in range(top, len(second), wide):
            near = np.bitwise_count(column ^ second[None, left : left + wide]) <= MAX_HAMMING
            if near.any():
                i, j = np.nonzero(near)
                upper = j + left > i + top
                block = np.stack([i[upper] + top, j[upper] + left], axis=1).astype(np.int64)
                yield from (block[start : start + 2**15] for start in range(0, len(block), 2**15))


def _chance_correlation(white: Floats) -> float:
    """A correlation that no pair of N unrelated images reaches (Fisher's z, one in a hundred datasets), times CHANCE_FACTOR in z.

    Images of few effective dimensions (digits of 8 × 8 pixels) reach 0.8 by chance.
    """
    count = len(white)
    gram = white.T @ white / count  # (D, D)
    dimensions = 1 / float((gram.astype(np.float64) ** 2).sum())
    expected = math.sqrt(2 * math.log(100 * count * count / 2))
    return math.tanh(CHANCE_FACTOR * expected / math.sqrt(max(dimensions - 3, 1)))


def _keep_best_orientation(pairs: Rows, score: Floats, relation: NDArray[np.str_]) -> tuple[Rows, Floats, NDArray[np.str_]]:
    """Each pair once: upright where that was found, else in the orientation of highest correlation; most similar first."""
    order = np.lexsort((-score, relation != UPRIGHT, pairs[:, 1], pairs[:, 0]))
    pairs, score, relation = pairs[order], score[order], relation[order]
    new = np.ones(len(pairs), dtype=np.bool_)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    kept = np.flatnonzero(new)
    kept = kept[np.argsort(-score[kept], kind="stable")]
    return pairs[kept], score[kept], relation[kept]


def _empty_result(reason: str) -> DuplicatePairs:
    return DuplicatePairs(np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32), np.empty(0, dtype=np.str_), (reason,))


def _dct_matrix(side: int) -> Floats:
    """(K, S): the first K rows of the orthonormal DCT; zero rows beyond the resolution of the image."""
    place, order = np.arange(side) + 0.5, np.arange(DCT_SIDE)[:, None]
    rows = np.cos(np.pi * order * place / side) * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    rows[side:] = 0
    return rows.astype(np.float32)


def _coarse_to_fine_order() -> Rows:
    """The D positions of a flattened (K, K) block from coarse to fine, without the mean brightness."""
    down, across = np.mgrid[:DCT_SIDE, :DCT_SIDE]
    return np.lexsort((down.ravel() * DCT_SIDE + across.ravel(), (down**2 + across**2).ravel()))[1:].astype(np.int64)


# Mirroring an image negates its odd DCT coefficients; transposing it transposes them.
_COARSE_TO_FINE = _coarse_to_fine_order()
_ODD_SIGNS: Floats = ((-1.0) ** np.arange(DCT_SIDE)).astype(np.float32)
UPRIGHT = "as it is"
# Orientation of the second image relative to the first, and the function of coefficients that undoes it.
ORIENTATIONS: dict[str, Callable[[Floats], Floats]] = {
    UPRIGHT: lambda c: c,
    "mirrored": lambda c: c * _ODD_SIGNS,
    "mirrored top to bottom": lambda c: c * _ODD_SIGNS[:, None],
    "turned by 180°": lambda c: c * _ODD_SIGNS * _ODD_SIGNS[:, None],
    "mirrored over a diagonal": lambda c: c.swapaxes(1, 2),
    "turned to the left": lambda c: c.swapaxes(1, 2) * _ODD_SIGNS,
    "turned to the right": lambda c: c.swapaxes(1, 2) * _ODD_SIGNS[:, None],
    "mirrored over the other diagonal": lambda c: c.swapaxes(1, 2) * _ODD_SIGNS * _ODD_SIGNS[:, None],
}
