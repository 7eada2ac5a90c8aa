"""Resampling weights: how often each independent unit is drawn in each resample, a function of the seed and the sorted units.

Three kinds: `simple`; `all-classes`, where a resample without all classes is drawn again (macro means, MCC); `stratified`, where
the units of each class are drawn separately (AUC).

Letters: N rows · U units · B resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator
from phoropter.results.metrics.sufficient_sums import Floats, Ints

BLOCK_CELLS = 2_000_000  # of one block of draws or sums: 16 MB as float64
_MAX_DRAWN_CELLS = 20_000_000  # of draws that are not kept
_UNITS_PER_CHUNK = 2048  # units whose draws are turned into floats at once
MAX_KEPT_CELLS = 100_000_000  # draws kept for the next candidate, a byte each
MIN_ACCEPTANCE_RATE = (
    0.1  # below this share of complete resamples (many rare classes), drawing again would bias more than it corrects
)

ResamplingKind = Literal["simple", "all-classes", "stratified"]
_DRAW_NAMES = {"simple": "plain", "all-classes": "whole", "stratified": "stratified"}  # in seeds, which must not change
DrawCounts = NDArray[np.uint8]  # how often each unit was drawn; above 255 only with a probability below 1e-500


def resampled_sums(values: Floats, random: np.random.Generator, resamples: int) -> Floats:
    """(U,) values → (B,) sums of U values drawn with replacement."""
    width = max(1, _MAX_DRAWN_CELLS // len(values))
    sizes = [min(width, resamples - start) for start in range(0, resamples, width)]
    return np.concatenate([values[random.integers(0, len(values), (size, len(values)))].sum(axis=1) for size in sizes])


def units_by_answer(labels: Ints, units: Ints) -> tuple[Ints, Ints]:
    """Each (class, unit) that has rows, once, by class; classes numbered from 0 among those that occur.

    Of several labels (N, C) the answers yes and no of each label stand for classes, so that a unit is in several.
    """
    count = max(int(units.max(initial=-1)) + 1, 1)
    if labels.ndim == 2:
        n_labels = int(labels.shape[-1])
        labels, units = (2 * np.arange(n_labels) + labels).ravel(), np.repeat(units, n_labels)
    pairs = np.unique(np.unique(labels, return_inverse=True)[1] * count + units)
    return pairs // count, pairs % count


class UnitResampler:
    """B resamples of U units; the same for every caller.

    labels: (N,) int64, or (N, C) of several a row · units: (N,) 0..U-1 of each row. Keeps up to 100 MB for each kind in use.
    """

    def __init__(self, labels: Ints, units: Ints, *, seed: int, resamples: int) -> None:
        self.labels, self.units = labels, units
        self.count = int(units.max(initial=-1)) + 1
        self.seed, self.resamples = seed, resamples
        self.redrawn = 0  # of the `all-classes` ones, once they are drawn
        self._kept: dict[ResamplingKind, list[DrawCounts]] = {}

    @cached_property
    def can_stratify(self) -> bool:
        """Whether every unit has one label and every class two units or more; a stratum of one unit could not vary."""
        classes, units = self._unit_labels
        return bool(len(units) == self.count and np.bincount(classes).min(initial=2) >= 2)

    def weight_blocks(self, kind: ResamplingKind, width: int) -> Iterator[Floats]:
        """(U, b) float64 with b at most `width`, B columns in all."""
        for block in self._cached_blocks(kind):
            yield from (block[:, i : i + width].astype(np.float64) for i in range(0, block.shape[1], width))

    def weighted_sums(self, kind: ResamplingKind, values: Floats) -> Floats:
        """(U,) values → (B,) their sums, each unit as often as it is drawn; a few rows at a time, which stay in the cache."""
        cuts = range(0, self.count, _UNITS_PER_CHUNK)

        def sum_block(block: DrawCounts) -> Floats:
            return np.asarray(
                sum(values[i : i + _UNITS_PER_CHUNK] @ block[i : i + _UNITS_PER_CHUNK].astype(np.float64) for i in cuts)
            )

        return np.concatenate([sum_block(block) for block in self._cached_blocks(kind)])

    @cached_property
    def _unit_labels(self) -> tuple[Ints, Ints]:
        """`units_by_answer` of these labels."""
        return units_by_answer(self.labels, self.units)

    def _cached_blocks(self, kind: ResamplingKind) -> Iterator[DrawCounts]:
        if kind in self._kept:
            return iter(self._kept[kind])
        blocks = self._all_class_blocks() if kind == "all-classes" else self._limited_blocks(kind)
        if self.count * self.resamples > MAX_KEPT_CELLS:
            return blocks
        self._kept[kind] = list(blocks)
        return iter(self._kept[kind])

    def _limited_blocks(self, kind: ResamplingKind) -> Iterator[DrawCounts]:
        left = self.resamples
        for block in self._endless_blocks(kind):
            yield block[:, :left]
            left -= block.shape[1]
            if left <= 0:
                return

    def _all_class_blocks(self) -> Iterator[DrawCounts]:
        """Resamples with every class; any resample where hardly one has them all."""
        self.redrawn, left = 0, self.resamples
        for number, block in enumerate(self._endless_blocks("all-classes")):
            complete = self._has_every_class(block)
            if number == 0 and complete.mean() < MIN_ACCEPTANCE_RATE:
                yield from self._limited_blocks("all-classes")
                return
            kept = np.flatnonzero(complete)[:left]
            left -= len(kept)
            seen = complete[: kept[-1] + 1] if left == 0 else complete
            self.redrawn += len(seen) - len(kept)
            yield block[:, kept]
            if left == 0:
                return

    def _has_every_class(self, block: DrawCounts) -> NDArray[np.bool_]:
        """(U, b) → (b,)."""
        from scipy.sparse import csr_array

        classes, units = self._unit_labels
        inside: Any = csr_array((np.ones(len(units), dtype=np.float32), (classes, units)), shape=(classes.max() + 1, self.count))
        return np.asarray((inside @ block.astype(np.float32) > 0).all(axis=0))

    def _endless_blocks(self, kind: ResamplingKind) -> Iterator[DrawCounts]:
        classes, units = self._unit_labels
        strata = np.split(units, np.flatnonzero(np.diff(classes)) + 1) if kind == "stratified" else [np.arange(self.count)]
        draw = named_generator(self.seed, "bootstrap", _DRAW_NAMES[kind])
        width = min(max(1, BLOCK_CELLS // self.count), self.resamples)
        while True:
            block = np.zeros((self.count, width), dtype=np.uint8)
            for members in strata:
                n = len(members)
                picked = draw.integers(0, n, (width, n)) + n * np.arange(width)[:, None]
                block[members] = np.bincount(picked.ravel(), minlength=n * width).reshape(width, n).T
            yield block
