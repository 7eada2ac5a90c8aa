"""Parts of a batch: the share of one of several processes, and micro-batches.

A part knows the rows and labels of the whole batch, since losses are divided by what all rows weigh and mixed labels may be those
of a row in another part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch

from phoropter.data.dataset import Dataset
from phoropter.training.augmentation.device_arrays import send_array
from phoropter.training.batches.loading import Batch, BatchSource, Rows


class ShareFinder(Protocol):
    """Knows which rows of a batch are its own (TrainingGroup)."""

    device: torch.device

    def find_share(self, rows: int) -> slice:
        """Consecutive rows, perhaps none, of a batch of so many."""
        ...


@dataclass(frozen=True, eq=False)
class ShareLoader:
    """The share of each batch of a source that is this process's; where it has no row of a batch, the first one stands in.

    Pictures that are augmented by themselves are read for the share alone. A batch whose pictures depend on each other, as by
    MixUp, is read whole and cut.
    """

    source: BatchSource
    dataset: Dataset
    owner: ShareFinder

    @property
    def depends_on_batch(self) -> bool:
        return self.source.depends_on_batch

    def batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        found = self.owner.find_share(len(rows))
        share = found if found.stop > found.start else slice(0, 1)
        if self.source.depends_on_batch:
            return take_part(self.source.batch(rows, epoch, index), share)
        labels = send_array(self.dataset.labels[rows], self.owner.device)
        return replace(self.source.batch(rows[share], epoch, index), rows=rows, labels=labels, part=share)


def cut_batch(batch: Batch, most_rows: int) -> list[Batch]:
    """The batch, or the part of one, in parts of at most `most_rows` rows; 0: as it is."""
    here = batch.part or slice(0, len(batch.rows))
    if most_rows == 0 or here.stop - here.start <= most_rows:
        return [batch]
    return [
        take_part(batch, slice(start, min(start + most_rows, here.stop))) for start in range(here.start, here.stop, most_rows)
    ]


def take_part(batch: Batch, part: slice) -> Batch:
    """These rows of the batch, which `batch` holds; numbered from its first."""
    before = batch.first_row
    held = slice(part.start - before, part.stop - before)
    inputs = batch.inputs[held] if isinstance(batch.inputs, torch.Tensor) else tuple(branch[held] for branch in batch.inputs)
    teacher = None if batch.teacher_logits is None else batch.teacher_logits[held]
    return replace(batch, inputs=inputs, teacher_logits=teacher, part=part)
