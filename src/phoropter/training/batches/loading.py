"""Rows → Batch, from two taps: pixels (augmented on the way) or stored features. Which rows make a batch is decided here too.

The order of an epoch is a function of (seed, epoch, ids of the training rows); nothing remembers where it was.

Letters: B rows in a batch, S side of a picture, C classes, D width of a feature vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator, random_permutation
from phoropter.data.dataset import Dataset
from phoropter.data.images.pixels import Pixels
from phoropter.training.augmentation.pipeline import Augmentation
from phoropter.training.batches.gpu_pixels import load_pictures_on_device
from phoropter.training.candidates.recipe import ImbalanceSpec
from phoropter.training.malloc import tune_malloc

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step is shown.

    rows: (B,) of the dataset · inputs: (B, 3, S, S) pictures, or a tuple of (B, D) features, one for each branch ·
    labels: (B,) int64 · partner: (B,) whose label is mixed in, and share: (B,) of the own label, or None ·
    teacher: (B, C) the teacher's logits for this very view, or None
    """

    rows: Rows
    inputs: torch.Tensor | tuple[torch.Tensor, ...]
    labels: torch.Tensor
    mix_index: torch.Tensor | None = None
    mix_lambda: torch.Tensor | None = None
    teacher_logits: torch.Tensor | None = None


class BatchSource(Protocol):
    """Where batches come from."""

    def batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        """Rows of the dataset, seen in this epoch as its batch number `index`."""
        ...


@dataclass(frozen=True, eq=False)
class PixelLoader:
    """Pictures from the memory-mapped array, augmented by draws named after (seed, epoch, id)."""

    dataset: Dataset
    pixels: Pixels
    augmentation: Augmentation | None
    device: torch.device

    def __post_init__(self) -> None:
        tune_malloc()

    def batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        labels = torch.from_numpy(self.dataset.labels[rows]).to(self.device)
        if self.augmentation is None:
            return Batch(rows, load_pictures_on_device(self.pixels, rows, self.device), labels)
        near = self.device.type == "cpu"
        source = self.pixels.read_each(rows) if near else load_pictures_on_device(self.pixels, rows, self.device)
        seen = self.augmentation.apply(source, self.dataset.hashed_ids[rows], epoch, index)
        return Batch(rows, seen.pictures, labels, seen.mix_index, seen.mix_lambda)


@dataclass(frozen=True, eq=False)
class FeatureLoader:
    """Stored outputs of frozen backbones, (N, D) for each branch; no picture is touched. Of several views each has its epoch."""

    dataset: Dataset
    views: Sequence[Sequence[NDArray[np.float32]]]
    device: torch.device

    def batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        features = self.views[epoch % len(self.views)]
        branches = tuple(torch.from_numpy(f[rows]).to(self.device).float() for f in features)
        return Batch(rows, branches, torch.from_numpy(self.dataset.labels[rows]).to(self.device))


@dataclass(frozen=True, eq=False)
class BatchSampler:
    """Which training rows make which batch of which epoch; `split` names the split in the draws of the under-sampling.

    bag: which of the recipe's bags this is, where there are several (bags.py)
    """

    dataset: Dataset
    rows: Rows
    batch_size: int
    seed: int
    imbalance: ImbalanceSpec
    split: str
    bag_index: int = 0

    def epoch_batches(self, epoch: int, whole: Rows | None = None) -> list[Rows]:
        """The batches of an epoch: every chosen row once; a last batch of one row joins the one before it (batch norm).

        whole: all rows of the dataset in the order of this epoch, where it is known already (many runs share it)
        """
        rows = self._select_rows(epoch)
        if whole is None:
            shuffled = rows[random_permutation(self.dataset.hashed_ids[rows], self.seed, "order", epoch)]
        else:
            chosen = np.zeros(len(whole), bool)
            chosen[rows] = True
            shuffled = whole[chosen[whole]]
        if self.imbalance.stratified_batches:
            shuffled = _interleave_classes(shuffled, self.dataset.labels)
        cuts = list(range(self.batch_size, len(shuffled), self.batch_size))
        if cuts and len(shuffled) - cuts[-1] == 1:
            cuts.pop()
        return [shuffled[start:end] for start, end in pairwise([0, *cuts, len(shuffled)])]

    def _select_rows(self, epoch: int) -> Rows:
        ratio = self.imbalance.undersample
        if ratio is None:
            return self.rows
        if self.imbalance.n_bags > 1:
            return select_bag_rows(
                self.rows, self.dataset.labels, ratio, self.bag_index, named_generator(self.seed, "bags", self.split)
            )
        draw = ("undersample", self.split, epoch if self.imbalance.resample_each_epoch else 0)
        return undersample_rows(self.rows, self.dataset.labels, ratio, named_generator(self.seed, *draw))


def undersample_rows(rows: Rows, labels: NDArray[np.int64], ratio: float, draw: np.random.Generator) -> Rows:
    """The rarest class whole; of every other at most floor(ratio · n + ½) rows, drawn without replacement (Hemmi 2024, §7)."""
    kinds, counts = np.unique(labels[rows], return_counts=True)
    most = int(np.floor(ratio * counts.min() + 0.5))
    kept = []
    for kind in kinds:
        of_kind = np.sort(rows[labels[rows] == kind])
        kept.append(of_kind if len(of_kind) <= most else draw.choice(of_kind, most, replace=False))
    return np.sort(np.concatenate(kept))


def select_bag_rows(rows: Rows, labels: NDArray[np.int64], ratio: float, bag: int, draw: np.random.Generator) -> Rows:
    """As `undersampled`, the bag of this number: bags follow each other through one shuffle of each class and begin it again at
    its end, so that no row is in a second bag before every row was in one (signals-and-protocols, §7)."""
    kinds, counts = np.unique(labels[rows], return_counts=True)
    most = int(np.floor(ratio * counts.min() + 0.5))
    kept = []
    for kind in kinds:
        shuffled = draw.permutation(np.sort(rows[labels[rows] == kind]))
        places = np.arange(min(most, len(shuffled))) + bag * most
        kept.append(shuffled[places % len(shuffled)])
    return np.sort(np.concatenate(kept))


def _interleave_classes(shuffled: Rows, labels: NDArray[np.int64]) -> Rows:
    """Each class spread evenly: rank j of a class of n gets the key (j + ½)/n, and all are sorted by (key, label)."""
    kinds = labels[shuffled]
    keys = np.empty(len(shuffled))
    for kind in np.unique(kinds):
        where = np.flatnonzero(kinds == kind)
        keys[where] = (np.arange(len(where)) + 0.5) / len(where)
    return shuffled[np.lexsort((kinds, keys))]


class Prefetcher:
    """Fetches the batches of an epoch in order, one ahead of the step that needs it where that helps (a GPU is waiting)."""

    def __init__(self, tap: BatchSource, device: torch.device) -> None:
        self._source = tap
        self._pool = ThreadPoolExecutor(1) if device.type == "cuda" else None

    def iterate_epoch(self, batches: list[Rows], epoch: int, start: int):  # type: ignore[no-untyped-def]
        """Yields (index, Batch) from batch number `start` on."""
        if self._pool is None:
            for index in range(start, len(batches)):
                yield index, self._source.batch(batches[index], epoch, index)
            return
        coming = [self._pool.submit(self._source.batch, batches[i], epoch, i) for i in range(start, min(start + 2, len(batches)))]
        for index in range(start, len(batches)):
            batch = coming.pop(0).result()
            if index + 2 < len(batches):
                coming.append(self._pool.submit(self._source.batch, batches[index + 2], epoch, index + 2))
            yield index, batch
