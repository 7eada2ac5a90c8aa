"""Pictures that a network takes for one: far nearer to each other, by its features, than either is to any third.

This finds what the cosine coefficients of likeness.py do not: tighter crops, tilted copies, shots of one burst. Features are
taken as deviations from the mean picture in units of their own spread, and compared by the cosine of the angle. A high cosine
alone says "of one kind" (two forests reach 0.8), so what is asked for is a gap: the copies of a picture come first among its
neighbours, at least LEAST alike, and the next neighbour is AHEAD less so, from both sides. Windows of one recording have many
equally near neighbours and no such gap; so it is copies that are found, and not people.

Left out: sets of more than MOST_ROWS pictures, whose every pair would take minutes.

Letters: N pictures · D features · K neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phoropter.data.leakage.near_duplicates import DuplicatePairs

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

VERSION = 1  # raise it when equal features would give other pairs
MIN_COSINE = 0.65  # cosine; looked at by eye on Intel scenes and Caltech-101, see docs/leakage.md
MIN_GAP = 0.2
K = 8  # neighbours looked at: a picture may be there several times
MIN_ROWS = 50  # fewer have no mean picture, and no third to compare with
MAX_ROWS = 30_000
_BLOCK_ROWS = 512


def find_feature_duplicates(features: NDArray[np.floating], name: str = "a network") -> DuplicatePairs:
    """(N, D) features → the pairs it takes for one picture, the most alike first; `view` says whose features these are."""
    count = len(features)
    if count < MIN_ROWS or count > MAX_ROWS:
        few = f"{count:,} pictures are too few" if count < MIN_ROWS else f"at most {MAX_ROWS:,} pictures are compared"
        return _make_result(np.empty((0, 2), dtype=np.int64), [], name, f"pictures were not compared by features: {few}")
    unit = _standardize_features(np.asarray(features, dtype=np.float32))
    if unit is None:
        return _make_result(
            np.empty((0, 2), dtype=np.int64), [], name, "pictures were not compared by features, which are not finite"
        )
    near, score = _find_nearest_rows(unit)
    gaps = score[:, :-1] - score[:, 1:]
    # copies: as many neighbours as come before the last wide gap
    wide = (gaps >= MIN_GAP) & (score[:, :-1] >= MIN_COSINE)
    copies = np.where(wide.any(axis=1), K - 1 - np.argmax(wide[:, ::-1], axis=1), 0)
    listed = np.arange(K)[None, :] < copies[:, None]
    first, second, cosine = np.repeat(np.arange(count), copies), near[listed], score[listed]
    here = set(zip(first.tolist(), second.tolist(), strict=True))
    both = np.array([a < b and (b, a) in here for a, b in zip(first.tolist(), second.tolist(), strict=True)], dtype=np.bool_)
    pairs = np.stack([first, second], axis=1).astype(np.int64)[both]
    order = np.argsort(-cosine[both], kind="stable")
    return _make_result(pairs[order], cosine[both][order], name)


def _standardize_features(features: Floats) -> Floats | None:
    """(N, D) → unit rows of deviations, each feature in units of its spread; None where something is not finite."""
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
        some = np.argpartition(-cosines, K, axis=1)[:, :K]
        own = np.take_along_axis(cosines, some, axis=1)
        order = np.argsort(-own, axis=1, kind="stable")
        near[start + rows], score[start + rows] = np.take_along_axis(some, order, 1), np.take_along_axis(own, order, 1)
    return near, score


def _make_result(pairs: Rows, score: Floats | list[float], name: str, *said: str) -> DuplicatePairs:
    view = np.full(len(pairs), f"by the features of {name}")
    return DuplicatePairs(pairs, np.asarray(score, dtype=np.float32), view.astype(np.str_), said)
