"""Near-identical pictures: which pairs of a dataset show one photograph, saved again, recoloured, turned or mirrored.

A picture is its 16 × 16 lowest cosine coefficients (Zauner 2010 hashes such a block), here as deviations from the mean picture of
the dataset, each in units of its own spread. What all pictures of a set share (the frame of a strip chart, a centred digit, a
sky above) thereby says nothing, and fine detail counts as much as the large shapes, in which unrelated photographs often agree.
Two steps: the signs of the 64 lowest as one 64-bit word, every pair compared by the bits in which the words differ; the few that
come close are confirmed by the correlation of all coefficients.

Left out: local features, which would find tighter crops and pictures within pictures at a hundred times the cost; and a
network's features, which call two pictures of one thing alike.

Letters: N pictures · K coefficients along a side · D coefficients of a picture, without the mean brightness.
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

VERSION = 1  # of `coefficients`: raise it when the same pixels would give other numbers
DCT_SIDE = 16  # K
HASH_BITS = 64
MAX_HAMMING = 12  # bits of 64 in which two words of one photograph may differ
MIN_CORRELATION = 0.8  # correlation; looked at by eye on CIFAR-10, Intel scenes and Caltech-101, see docs/leakage.md
MIN_CORRELATION_TURNED = 0.9  # of mirrored and turned copies: symmetrical things resemble their own mirror image
CHANCE_FACTOR = 1.5  # pictures of one class resemble each other more than chance lets independent ones
MIN_CONTRAST = 2.0  # standard deviation in grey levels: paler pictures (blank pages) all look alike
NOISE_LEVEL = 0.2  # grey levels; a coefficient that varies less between pictures says how they were saved, not what they show
MIN_ROWS = 8  # fewer have no mean picture to deviate from
MAX_ROWS_TURNED = 25_000  # above, only upright and mirrored copies are looked for; time grows with the square
MAX_ROWS = 250_000
MAX_PAIRS = 100_000
MAX_CANDIDATES = 20_000_000
_BLOCK_SHAPE = (128, 4096)


class PixelBatches(Protocol):
    """Pictures as `Pixels` gives them."""

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

    pairs: (P, 2), the smaller row first · score: (P,) correlation · view: (P,) how the second lies to the first
    said: what was not looked for, and why
    """

    pairs: Rows
    score: Floats
    relation: NDArray[np.str_]
    skipped: tuple[str, ...] = field(default=())


def dct_features(pixels: PixelBatches, progress: Callable[[int, int], None] | None = None) -> Floats:
    """(N, 3, S, S) pictures → (N, K, K) float32 cosine coefficients of their luminance; the squares of all but the first sum to
    the variance that is left at this resolution, in grey levels squared."""
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
    """(B, 3, S, S) → (B, S, S) luminance in 0..255, weighed in whole 256ths because that is three times as fast."""
    red, green, blue = (np.uint16(weight) for weight in (77, 150, 29))
    grey = pictures[:, 0] * red
    grey += pictures[:, 1] * green
    grey += pictures[:, 2] * blue
    return grey.astype(np.float32) / np.float32(256)


def find_near_duplicates(found: Floats) -> DuplicatePairs:
    """(N, K, K) coefficients → the pairs that show one photograph, each once, in its best view."""
    detail = np.sqrt(np.maximum((found.astype(np.float64) ** 2).sum(axis=(1, 2)) - found[:, 0, 0].astype(np.float64) ** 2, 0))
    rows = np.flatnonzero(detail >= MIN_CONTRAST)
    if len(rows) < MIN_ROWS:
        return _empty_result(f"{len(rows)} pictures with any detail are too few to tell copies from likeness")
    if len(rows) > MAX_ROWS:
        return _empty_result(
            f"near-identical pictures were not looked for among {len(rows):,}: at most {MAX_ROWS:,} are compared"
        )
    said = (
        []
        if len(rows) <= MAX_ROWS_TURNED
        else [f"turned copies were not looked for among {len(rows):,} pictures, mirrored ones were"]
    )
    views = list(ORIENTATIONS)[: len(ORIENTATIONS) if len(rows) <= MAX_ROWS_TURNED else 2]
    search = _PairSearch(found[rows])
    parts = []
    for view in views:
        pairs, score = search.find_pairs(view)
        parts.append((rows[pairs], score, np.full(len(pairs), view)))
    if search.truncated:
        said.append("the pictures of this dataset resemble each other so much that the search for copies was cut short")
    pairs, score, view_of = (np.concatenate(column) for column in zip(*parts, strict=True))
    return DuplicatePairs(*_keep_best_orientation(pairs, score, view_of), tuple(said))


class _PairSearch:
    """One dataset's coefficients, whitened, and the search through all pairs."""

    def __init__(self, found: Floats) -> None:
        self.features = found
        flat = found.reshape(len(found), -1)
        self.mean = flat.mean(axis=0)
        self.spread = np.hypot(flat.std(axis=0), NOISE_LEVEL)
        self.whitened = self._whiten_features(found)  # (N, D), unit rows
        self.hashes = _hash_signs(self.whitened)
        self.threshold = max(MIN_CORRELATION, _chance_correlation(self.whitened))
        self.candidates_left = MAX_CANDIDATES
        self.truncated = False

    def find_pairs(self, view: str) -> tuple[Rows, Floats]:
        """(P, 2) places and (P,) correlations of the pairs whose second picture, so turned, is the first."""
        turn = ORIENTATIONS[view]
        upright = view == UPRIGHT
        threshold = self.threshold if upright else max(MIN_CORRELATION_TURNED, self.threshold)
        words = self.hashes if upright else self._hash_turned(turn)
        kept_pairs, kept_score, total = [], [], 0
        for pairs in _find_close_hashes(self.hashes, words):
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

    def _whiten_features(self, found: Floats) -> Floats:
        white = ((found.reshape(len(found), -1) - self.mean) / self.spread)[:, _COARSE_TO_FINE]
        return np.asarray(white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-6), dtype=np.float32)

    def _hash_turned(self, turn: Callable[[Floats], Floats]) -> NDArray[np.uint64]:
        step = 4096
        blocks = (self.features[start : start + step] for start in range(0, len(self.features), step))
        return np.concatenate([_hash_signs(self._whiten_features(turn(block))) for block in blocks])


def _hash_signs(white: Floats) -> NDArray[np.uint64]:
    """(N, D) → (N,) words: a bit for each of the 64 lowest coefficients, set where it is above the mean picture's."""
    packed = np.ascontiguousarray(np.packbits(white[:, :HASH_BITS] > 0, axis=1))
    return packed.view(np.uint64)[:, 0]


def _find_close_hashes(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> Iterator[Rows]:
    """Blocks of (P, 2) places i < j with at most REACH different bits between first[i] and second[j]: every pair is compared, by
    blocks that stay in the processor's cache."""
    tall, wide = _BLOCK_SHAPE
    gathered: list[Rows] = []
    for top in range(0, len(first), tall):
        column = first[top : top + tall, None]
        for left in range(top, len(second), wide):
            near = np.bitwise_count(column ^ second[None, left : left + wide]) <= MAX_HAMMING
            if near.any():
                i, j = np.nonzero(near)
                upper = j + left > i + top
                gathered.append(np.stack([i[upper] + top, j[upper] + left], axis=1).astype(np.int64))
        if sum(map(len, gathered)) >= 2**15 or top + tall >= len(first):
            for block in gathered:
                yield from (block[start : start + 2**15] for start in range(0, len(block), 2**15))
            gathered = []


def _chance_correlation(white: Floats) -> float:
    """The correlation that pairs of N unrelated pictures of this set do not reach (Fisher's z, one in a hundred such sets), and
    half again as far: what differs between digits of 8 × 8 pixels has few dimensions, and there 0.8 is no likeness."""
    count = len(white)
    gram = white.T @ white / count  # (D, D)
    dimensions = 1 / float((gram.astype(np.float64) ** 2).sum())
    expected = math.sqrt(2 * math.log(100 * count * count / 2))
    return math.tanh(CHANCE_FACTOR * expected / math.sqrt(max(dimensions - 3, 1)))


def _keep_best_orientation(pairs: Rows, score: Floats, view: NDArray[np.str_]) -> tuple[Rows, Floats, NDArray[np.str_]]:
    """Each pair once: as it is where that was found, else in the view that agrees best; the most alike first."""
    order = np.lexsort((-score, view != UPRIGHT, pairs[:, 1], pairs[:, 0]))
    pairs, score, view = pairs[order], score[order], view[order]
    new = np.ones(len(pairs), dtype=np.bool_)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    kept = np.flatnonzero(new)
    kept = kept[np.argsort(-score[kept], kind="stable")]
    return pairs[kept], score[kept], view[kept]


def _empty_result(said: str) -> DuplicatePairs:
    return DuplicatePairs(np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32), np.empty(0, dtype=np.str_), (said,))


def _dct_matrix(side: int) -> Floats:
    """(K, S): the orthonormal cosine transform's first K rows; zero where a picture has no such detail."""
    place, order = np.arange(side) + 0.5, np.arange(DCT_SIDE)[:, None]
    rows = np.cos(np.pi * order * place / side) * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    rows[side:] = 0
    return rows.astype(np.float32)


def _coarse_to_fine_order() -> Rows:
    """The D places of a flattened (K, K) block from coarse to fine, without the mean brightness."""
    down, across = np.mgrid[:DCT_SIDE, :DCT_SIDE]
    return np.lexsort((down.ravel() * DCT_SIDE + across.ravel(), (down**2 + across**2).ravel()))[1:].astype(np.int64)


# A mirrored picture has the cosine coefficients of the picture, the odd ones negated; a transposed one has them transposed.
_COARSE_TO_FINE = _coarse_to_fine_order()
_ODD_SIGNS: Floats = ((-1.0) ** np.arange(DCT_SIDE)).astype(np.float32)
UPRIGHT = "as it is"
# A view names how the second picture lies to the first, and turns it back.
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
