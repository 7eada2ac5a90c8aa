"""Batches: which rows each holds, and their contents, from pixels (augmented) or from cached features.

The order of an epoch is a function of (seed, epoch, ids of the training rows). No position is stored, so a resumed run, and every
other candidate, meets the same batches.

Letters: B rows in a batch, S side of an image, C classes, D width of a feature vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator, random_permutation
from phoropter.data.dataset import Dataset
from phoropter.data.images.pixels import Pixels
from phoropter.data.splits.protocol import Split
from phoropter.training.augmentation.device_arrays import send_array
from phoropter.training.augmentation.pipeline import Augmentation
from phoropter.training.batches.gpu_pixels import load_pictures_on_device
from phoropter.training.candidates.recipe import ImbalanceSpec
from phoropter.training.malloc import tune_malloc

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """The input of one training step.

    rows:           (B,) indices into the dataset
    inputs:         (B, 3, S, S) images, or a tuple of (B, D) features, one for each branch
    labels:         (B,) int64
    mix_index:      (B,) row of the batch whose label is mixed in, mix_lambda: (B,) weight of the own label; None: not mixed
    teacher_logits: (B, C) the teacher's logits for the same augmented images, or None
    part:           the rows of the batch that `inputs` and `teacher_logits` hold, where they hold a part of it; all else is of
                    the whole batch. None: all rows
    """

    rows: Rows
    inputs: torch.Tensor | tuple[torch.Tensor, ...]
    labels: torch.Tensor
    mix_index: torch.Tensor | None = None
    mix_lambda: torch.Tensor | None = None
    teacher_logits: torch.Tensor | None = None
    part: slice | None = None

    @property
    def own_labels(self) -> torch.Tensor:
        """Those of the rows that `inputs` holds."""
        return self.labels if self.part is None else self.labels[self.part]

    @property
    def first_row(self) -> int:
        """The number in the batch of the first row that `inputs` holds."""
        return 0 if self.part is None else int(self.part.start)


class BatchSource(Protocol):
    """A source of batches."""

    @property
    def depends_on_batch(self) -> bool:
        """Whether what a row shows depends on the batch it is in."""
        ...

    def batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        """These rows of the dataset, as batch number `index` of the epoch."""
        ...


@dataclass(frozen=True, eq=False)
class PixelLoader:
    """Images from the memory-mapped array, augmented by random numbers that depend on (seed, epoch, id)."""

    dataset: Dataset
    pixels: Pixels
    augmentation: Augmentation | None
    device: torch.device

    def __post_init__(self) -> None:
        tune_malloc()

    @property
    def depends_on_batch(self) -> bool:
        return self.augmentation is not None and self.augmentation.depends_on_batch

    def batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        labels = send_array(self.dataset.labels[rows], self.device)
        if self.augmentation is None:
            return Batch(rows, load_pictures_on_device(self.pixels, rows, self.device), labels)
        # On a CPU each image is augmented straight from the array; gathering a batch first would copy it once more
        on_cpu = self.device.type == "cpu"
        source = self.pixels.read_each(rows) if on_cpu else load_pictures_on_device(self.pixels, rows, self.device)
        augmented = self.augmentation.apply(source, self.dataset.hashed_ids[rows], epoch, index)
        return Batch(rows, augmented.pictures, labels, augmented.mix_index, augmented.mix_lambda)


@dataclass(frozen=True, eq=False)
class FeatureLoader:
    """Cached features of frozen backbones, (N, D) for each branch; of n cached views, epoch e reads view e mod n."""

    dataset: Dataset
    views: Sequence[Sequence[NDArray[np.float32]]]
    device: torch.device
    depends_on_batch = False

    def batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        features = self.views[epoch % len(self.views)]
        branches = tuple(send_array(f[rows], self.device).float() for f in features)
        return Batch(rows, branches, send_array(self.dataset.labels[rows], self.device))


@dataclass(frozen=True, eq=False)
class BatchSampler:
    """Which training rows make which batch of which epoch.

    split:     its training rows are shown; the draws of the undersampling depend on its seed and on the ids in it
    bag_index: number of the bag, where the recipe has several (training/bagging)
    """

    dataset: Dataset
    split: Split
    batch_size: int
    imbalance: ImbalanceSpec
    bag_index: int = 0

    def epoch_batches(self, epoch: int, epoch_order: Rows | None = None) -> list[Rows]:
        """The batches of an epoch: every selected row once. A last batch of one row joins the one before, for batch norm.

        epoch_order: all rows of the dataset in the order of this epoch, where the caller has computed it for many runs
        """
        rows = self._select_rows(epoch)
        if epoch_order is None:
            shuffled = rows[random_permutation(self.dataset.hashed_ids[rows], self.split.seed, "order", epoch)]
        else:  # the order of some rows is that of all rows, the others left out: random_permutation sorts by a key of each id
            selected = np.zeros(len(epoch_order), bool)
            selected[rows] = True
            shuffled = epoch_order[selected[epoch_order]]
        if self.imbalance.stratified_batches:
            shuffled = _interleave_classes(shuffled, self.dataset.labels)
        cuts = list(range(self.batch_size, len(shuffled), self.batch_size))
        if cuts and len(shuffled) - cuts[-1] == 1:
            cuts.pop()
        return [shuffled[start:end] for start, end in pairwise([0, *cuts, len(shuffled)])]

    def _select_rows(self, epoch: int) -> Rows:
        ratio, rows, labels = self.imbalance.undersample, self.split.train, self.dataset.labels
        if ratio is None:
            return rows
        if self.imbalance.n_bags > 1:
            draw = named_generator(self.split.seed, "bags", self._split_key)
            return select_bag_rows(rows, labels, ratio, self.bag_index, draw)
        number = epoch if self.imbalance.resample_each_epoch else 0
        return undersample_rows(rows, labels, ratio, named_generator(self.split.seed, "undersample", self._split_key, number))

    @cached_property
    def _split_key(self) -> str:
        return self.split.content_key(self.dataset)


def undersample_rows(rows: Rows, labels: NDArray[np.int64], ratio: float, draw: np.random.Generator) -> Rows:
    """The n rows of the rarest class, and at most floor(ratio · n + ½) of every other, without replacement (Hemmi 2024)."""
    classes, counts = np.unique(labels[rows], return_counts=True)
    limit = int(np.floor(ratio * counts.min() + 0.5))
    kept = []
    for label in classes:
        of_class = np.sort(rows[labels[rows] == label])  # sorted: the draw must not depend on the order of `rows`
        kept.append(of_class if len(of_class) <= limit else draw.choice(of_class, limit, replace=False))
    return np.sort(np.concatenate(kept))


def select_bag_rows(rows: Rows, labels: NDArray[np.int64], ratio: float, bag: int, draw: np.random.Generator) -> Rows:
    """As `undersample_rows`, for bag number `bag`.

    Bags take consecutive pieces of one shuffle of each class and start again at its end, so that no row is in a second bag before
    every row was in one.
    """
    classes, counts = np.unique(labels[rows], return_counts=True)
    limit = int(np.floor(ratio * counts.min() + 0.5))
    kept = []
    for label in classes:
        shuffled = draw.permutation(np.sort(rows[labels[rows] == label]))
        places = np.arange(min(limit, len(shuffled))) + bag * limit
        kept.append(shuffled[places % len(shuffled)])
    return np.sort(np.concatenate(kept))


def _interleave_classes(shuffled: Rows, labels: NDArray[np.int64]) -> Rows:
    """Spreads each class evenly: row j of a class of n gets the key (j + ½)/n, and rows are sorted by (key, label)."""
    row_labels = labels[shuffled]
    keys = np.empty(len(shuffled))
    for label in np.unique(row_labels):
        where = np.flatnonzero(row_labels == label)
        keys[where] = (np.arange(len(where)) + 0.5) / len(where)
    return shuffled[np.lexsort((row_labels, keys))]


class Prefetcher:
    """Fetches the batches of an epoch in order; for a GPU, two ahead of the step that needs them, on a thread.

    On a CPU a thread would only compete with the step for the same cores.
    """

    def __init__(self, batch_source: BatchSource, device: torch.device) -> None:
        self._source = batch_source
        self._pool = ThreadPoolExecutor(1) if device.type == "cuda" else None

    def iterate_epoch(self, batches: list[Rows], epoch: int, start: int) -> Iterator[tuple[int, Batch]]:
        """Yields (index, Batch) from batch number `start` on."""
        if self._pool is None:
            for index in range(start, len(batches)):
                yield index, self._source.batch(batches[index], epoch, index)
            return
        pending = [
            self._pool.submit(self._source.batch, batches[i], epoch, i) for i in range(start, min(start + 2, len(batches)))
        ]
        for index in range(start, len(batches)):
            batch = pending.pop(0).result()
            if index + 2 < len(batches):
                pending.append(self._pool.submit(self._source.batch, batches[index + 2], epoch, index + 2))
            yield index, batch
