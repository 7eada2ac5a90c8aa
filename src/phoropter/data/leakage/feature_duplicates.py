"""Duplicates in a network's feature space: mutual nearest neighbours, far closer to each other than to any third image.

This finds what near_duplicates.py does not: tighter crops, tilted copies, shots of one burst. Features are standardised
(deviation from the mean in units of the standard deviation) and compared by their cosine. A high cosine alone means "of one
kind" (two forests reach 0.8), so a gap is required: the copies of an image are its first neighbours with a cosine of at least
MIN_COSINE, the next neighbour is lower by at least MIN_GAP, and this holds from both sides. Windows of one recording have many
equally close neighbours and no such gap, so copies are found, and not people.

Left out: datasets of more than MAX_ROWS images, whose pairs would take minutes.

Letters: N images · D features · K neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phoropter.data.leakage.near_duplicates import DuplicatePairs

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

VERSION = 1  # raise it when equal features would give other pairs
MIN_COSINE = 0.65  # checked by eye on Intel scenes and Caltech-101, see docs/leakage.md
MIN_GAP = 0.2
K = 8  # neighbours compared: an image may have several copies
MIN_ROWS = 50  # fewer give no reliable mean, and too few third images to compare with
MAX_ROWS = 30_000
_BLOCK_ROWS = 512


def find_feature_duplicates(features: NDArray[np.floating], name: str = "a network") -> DuplicatePairs:
    """(N, D) features → the duplicate pairs, the most similar first. name: the network, for `relation`."""
    count = len(features)
    if count < MIN_ROWS or count > MAX_ROWS:
        few = f"{count:,} images are too few" if count < MIN_ROWS else f"at most {MAX_ROWS:,} images are compared"
        return _make_result(np.empty((0, 2), dtype=np.int64), [], name, f"images were not compared by features: {few}")
    unit = _standardize_features(np.asarray(features, dtype=np.float32))
    if unit is None:
        return _make_result(
            np.empty((0, 2), dtype=np.int64), [], name, "images were not compared by features, because these are not finite"
        )
    near, score = _find_nearest_rows(unit)
    gaps = score[:, :-1] - score[:, 1:]
    # the copies of an image are the neighbours before the last wide gap
    wide = (gaps >= MIN_GAP) & (score[:, :-1] >= MIN_COSINE)
    copies = np.where(wide.any(axis=1), K - 1 - np.argmax(wide[:, ::-1], axis=1), 0)
    listed = np.arange(K)[None, :] < copies[:, None]
    first, second, cosine = np.repeat(np.arange(count), copies), near[listed], score[listed]
    directed = set(zip(first.tolist(), second.tolist(), strict=True))
    both = np.array([a < b and (b, a) in directed for a, b in zip(first.tolist(), second.tolist(), strict=True)], dtype=np.bool_)
    pairs = np.stack([first, second], axis=1).astype(np.int64)[both]
    order = np.argsort(-cosine[both], kind="stable")
    return _make_result(pairs[order], cosine[both][order], name)


def _standardize_features(features: Floats) -> Floats | None:
    """(N, D) → standardised features as unit rows; None where a value is not finite."""
    spread = features.std(axis=0)
    if not np.isfinite(spread).all():
        return None
    varied = spread > 1e-6
    white = (features[:, varied] - features[:, varied].mean(axis=0)) / spread[varied]
    return np.asarray(white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _find_nearest_rows(unit: Floats) -> tuple[Rows, Floats]:
    """(N, K) the nearest other rows, nearest first, and their cosines."""
    near, score = np.empty((len(unit), K), dtype=np.int64), np.empty((len(unit), K), dtype=np.float32)
    for start in range(0, len(unit), _BLOCK_ROWS):
        cosines = unit[start : start + _BLOCK_ROWS] @ unit.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -2
        top = np.argpartition(-cosines, K, axis=1)[:, :K]
        values = np.take_along_axis(cosines, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        near[start + rows], score[start + rows] = np.take_along_axis(top, order, 1), np.take_along_axis(values, order, 1)
    return near, score


def _make_result(pairs: Rows, score: Floats | list[float], name: str, *skipped: str) -> DuplicatePairs:
    relation = np.full(len(pairs), f"by the features of {name}")
    return DuplicatePairs(pairs, np.asarray(score, dtype=np.float32), relation.astype(np.str_), skipped)
