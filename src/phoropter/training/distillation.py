"""Distillation: the teacher's logits for the images its students see, computed once and cached view by view.

A view is an augmentation draw of (seed, epoch, id), and also of the batch where a step draws for a whole batch or mixes images.
A cache entry is keyed by what made it: the teacher's weights, the pixels, the augmentation, the rows, and, for views that depend
on the batch, the order of the batches. Neither the student, nor α, T or the loss is part of the key.

An image is always evaluated in a batch of fixed composition (its own batch, or a fixed block of rows), because float sums differ
between batch sizes; and all logits are rounded to float16, cached or not. So a student taught from the cache ends with the same
bits as one whose teacher runs beside it.

Left out: cycled and unaugmented views of mixed images, which the teacher would not see as the student does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.errors import DiskError, LeakageError, RunError
from phoropter.core.files import digest, digest_array, format_bytes, require_space
from phoropter.data.splits.protocol import Split
from phoropter.models.classifier import Classifier
from phoropter.training.array_cache import CachedArray, ProgressFunction
from phoropter.training.augmentation.device_arrays import send_array
from phoropter.training.batches.loading import Batch, BatchSampler, PixelLoader, Rows
from phoropter.training.candidates.candidate import DistillationSpec
from phoropter.training.loop.precision import autocast_context

NUMERICS = 1  # raise when the numbers of a teacher's logits change
BLOCK_ROWS = 64  # rows evaluated at once where views do not depend on the batch
MIN_SHIFTED_LOGIT = -60000.0  # lowest logit below the largest of its row; float16 ends at 65504


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained classifier whose logits a student learns from.

    name:        the candidate's, for messages
    identity:    `digest_classifier` of it, known without loading it
    load_model:  loads the classifier; called only when logits are missing
    trained_on:  hashes of the ids it was trained on; empty for a pretrained network used as it is
    dtype:       autocast computes in
    keep_logits: cache logits even for a student that needs classes only, because another student needs them
    uncached:    compute logits at every batch and store nothing (to compare with; the bits are the same)
    """

    name: str
    identity: str
    load_model: Callable[[], Classifier]
    trained_on: NDArray[np.uint64]
    dtype: torch.dtype = torch.float32
    keep_logits: bool = False
    uncached: bool = False

    def load_sound_model(self) -> Classifier:
        """The classifier. Raises RunError where it is not the one of this identity, under which its logits would be stored."""
        model = self.load_model()
        if digest_classifier(model) != self.identity:
            raise RunError(
                f"the model of the teacher '{self.name}' is not the one its run recorded, so that it may not teach: delete the "
                "folder of its run and run the study again"
            )
        return model

    def raise_on_leak(self, hashes: NDArray[np.uint64], split: Split) -> None:
        """Raises LeakageError when the teacher was trained on rows this split tests. hashes: (N,) of the dataset's ids."""
        for part, rows in (("tested", split.test), ("tested", split.external), ("validated on", split.val)):
            common = 0 if rows is None else len(np.intersect1d(hashes[rows], self.trained_on))
            if common:
                raise LeakageError(
                    f"the teacher '{self.name}' was trained on {common} rows that are {part} in {split.name}, and what it knows "
                    "of them would reach the student; train it on the same training rows, as a candidate of this study"
                )


def digest_classifier(model: Classifier, known: Sequence[str] | None = None) -> str:
    """A digest of everything that a classifier's logits depend on besides the image.

    known: the identities of its backbones, where they are known: frozen ones keep theirs, and hashing weights takes seconds
    """
    head = {k: digest_array(v.detach().cpu().float().contiguous().numpy()) for k, v in model.head.state_dict().items()}
    fusion = None if model.spec.fusion is None else model.spec.fusion.plain()
    return digest(
        [list(known or (b.identity for b in model.branches)), head, model.spec.head.plain(), fusion, model.spec.center_crop]
    )


@dataclass(frozen=True, eq=False)
class TeacherInputs:
    """The images that a student sees in training, and the batches in which the teacher evaluates them.

    pixel_loader: loads the student's images · batch_sampler: the order of its batches · epochs: of its training
    rows: those it may see, ascending; where views do not depend on the batch, logits are stored for each of them
    """

    pixel_loader: PixelLoader
    batch_sampler: BatchSampler
    epochs: int
    rows: Rows
    distillation: DistillationSpec

    @cached_property
    def depends_on_batch(self) -> bool:
        """Whether a view depends on the batch it is in."""
        augmentation = self.pixel_loader.augmentation
        return self.distillation.teacher_views == "same" and augmentation is not None and augmentation.depends_on_batch

    @property
    def view_count(self) -> int:
        """How many views there are of each image."""
        if self.pixel_loader.augmentation is None or self.distillation.teacher_views == "unaugmented":
            return 1
        return min(self.epochs, self.distillation.n_teacher_views) if self.distillation.teacher_views == "cycled" else self.epochs

    @cached_property
    def rows_per_view(self) -> int:
        """How many rows of logits a view has."""
        return sum(map(len, self.row_blocks(0)))

    def view_of_epoch(self, epoch: int) -> int:
        """The view that an epoch shows; cycled views return after `view_count` epochs."""
        return epoch % self.view_count

    def student_batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        """The student's batch of these rows, number `index` of an epoch."""
        cycled = self.distillation.teacher_views == "cycled"
        return self.pixel_loader.batch(rows, self.view_of_epoch(epoch) if cycled else epoch, index)

    def teacher_images(self, rows: Rows, view: int, index: int) -> torch.Tensor:
        """(B, 3, S, S) uint8 images that the teacher evaluates for these rows, in a view."""
        unaugmented = self.distillation.teacher_views == "unaugmented"
        loader = replace(self.pixel_loader, augmentation=None) if unaugmented else self.pixel_loader
        images = loader.batch(rows, view, index).inputs
        assert isinstance(images, torch.Tensor)
        return images

    def row_blocks(self, view: int) -> list[Rows]:
        """The rows of a view, in the blocks in which they are evaluated."""
        if self.depends_on_batch:
            return self.batch_sampler.epoch_batches(view)
        return np.split(self.rows, range(BLOCK_ROWS, len(self.rows), BLOCK_ROWS))

    def locate_rows(self, rows: Rows, index: int) -> Rows:
        """Where the logits of a student's batch lie within its view."""
        if self.depends_on_batch:
            return index * self.batch_sampler.batch_size + np.arange(len(rows), dtype=np.int64)
        return np.searchsorted(self.rows, rows).astype(np.int64)

    def identity(self) -> list[Any]:
        """What decides the images of every view, and the composition of the batches they are evaluated in."""
        augmentation = self.pixel_loader.augmentation
        unaugmented = augmentation is None or self.distillation.teacher_views == "unaugmented"
        augmented = None if augmentation is None or unaugmented else augmentation.identity()
        composition: Any = digest_array(self.rows)
        if self.depends_on_batch:
            sampler = self.batch_sampler
            drawn = sampler.imbalance.undersample is not None  # the whole split decides which rows are
            composition = [
                sampler.split.content_key(sampler.dataset) if drawn else digest_array(np.sort(sampler.split.train)),
                sampler.batch_size,
                sampler.split.seed,
                sampler.imbalance.plain(),
            ]
        return [self.pixel_loader.pixels.identity, augmented, self.depends_on_batch, composition]


def make_teacher_inputs(
    loader: PixelLoader, sampler: BatchSampler, epochs: int, split: Split, teacher: Teacher, distillation: DistillationSpec
) -> TeacherInputs:
    """The images a student of this split sees.

    A teacher that was trained on no rows of the dataset may evaluate all rows, so that all folds share one entry.
    """
    parts = [split.train]
    if not len(teacher.trained_on) and split.folds > 1:
        parts += [p for p in (split.test, split.val, split.external) if p is not None]
    return TeacherInputs(loader, sampler, epochs, np.unique(np.concatenate(parts)), distillation)


@dataclass(eq=False)
class TeacherLogits:
    """A teacher's logits for a student's images: (n, C) float16 a view, each row's largest 0, or (n,) classes for hard and token.

    cache: the shared cache · progress: called with (rows done, rows in all)
    """

    teacher: Teacher
    inputs: TeacherInputs
    cache: Path
    progress: ProgressFunction | None = None
    _model: Classifier | None = field(default=None, repr=False)
    _current_view: tuple[int, NDArray[Any]] | None = field(default=None, repr=False)

    @cached_property
    def cache_entry(self) -> tuple[Path, bool]:
        """The entry's folder, and whether it holds classes only: enough for hard and token where no logits are stored yet."""
        key = [NUMERICS, self.teacher.identity, str(self.teacher.dtype), self.inputs.identity()]
        classes, logits = (self.cache / "teacher-logits" / digest([*key, kind]) for kind in ("classes", "logits"))
        compact = self.inputs.distillation.loss in ("hard", "token") and not logits.exists() and not self.teacher.keep_logits
        return (classes if compact else logits), compact

    @property
    def device(self) -> torch.device:
        return self.inputs.pixel_loader.device

    @property
    def nbytes(self) -> int:
        """Bytes on the disk when every view is stored."""
        return self.inputs.view_count * self._view_array(0).nbytes

    def compute_missing(self) -> None:
        """Computes and stores every missing view. Raises DiskError before the first one when the disk is too small."""
        if self.teacher.uncached:
            return
        missing = [v for v in range(self.inputs.view_count) if not self._view_array(v).is_complete]
        self._require_space(len(missing) * self._view_array(0).nbytes)
        for number, view in enumerate(missing):
            self._fill_view(view, number, len(missing))
        self._model = None

    def targets_for_batch(self, rows: Rows, epoch: int, index: int) -> torch.Tensor:
        """(B, C) float32 logits, or for hard and token (B,) int64 classes, for the student's batch of these rows."""
        view = self.inputs.view_of_epoch(epoch)
        if self._current_view is None or self._current_view[0] != view:
            self._current_view = (view, self._compute_view(view) if self.teacher.uncached else self._load_view(view))
        targets = np.asarray(self._current_view[1][self.inputs.locate_rows(rows, index)])
        if self.inputs.distillation.loss in ("hard", "token"):
            classes = targets.argmax(1) if targets.ndim == 2 else targets
            return send_array(classes.astype(np.int64), self.device)
        return send_array(targets.astype(np.float32), self.device)

    def _fill_view(self, view: int, number: int, of: int) -> None:
        blocks = self.inputs.row_blocks(view)

        def compute_block(block: int) -> NDArray[Any]:
            return self._evaluate_rows(blocks[block], view, block)

        def report_progress(done: int, total: int) -> None:
            if self.progress:
                self.progress(number * total + done, of * total)

        self._view_array(view).load_or_compute([len(b) for b in blocks], compute_block, report_progress)

    def _load_view(self, view: int) -> NDArray[Any]:
        stored = self._view_array(view)
        if not stored.is_complete:
            self._fill_view(view, 0, 1)  # damaged since the training began
        return np.asarray(stored.load())

    def _compute_view(self, view: int) -> NDArray[Any]:
        return np.concatenate([self._evaluate_rows(rows, view, i) for i, rows in enumerate(self.inputs.row_blocks(view))])

    def _evaluate_rows(self, rows: Rows, view: int, index: int) -> NDArray[Any]:
        if self._model is None:
            self._model = self.teacher.load_sound_model().to(self.device).eval()
        logits = compute_teacher_logits(self._model, self.inputs.teacher_images(rows, view, index), self.teacher.dtype)
        return logits.argmax(1).astype(np.uint16) if self.cache_entry[1] else logits

    def _view_array(self, view: int) -> CachedArray:
        folder, compact = self.cache_entry
        count, classes = self.inputs.rows_per_view, len(self.inputs.pixel_loader.dataset.classes)
        shape, dtype = ((count,), "uint16") if compact else ((count, classes), "float16")
        return CachedArray(folder / f"{view:05d}", "logits.npy", shape, dtype, f"the logits of the teacher '{self.teacher.name}'")

    def _require_space(self, needed: int) -> None:
        views = self.inputs.distillation.teacher_views
        try:
            require_space(self.cache, needed, f"keeping the logits of the teacher '{self.teacher.name}' (teacher_views: {views})")
        except DiskError as error:
            one = format_bytes(self._view_array(0).nbytes)
            advice = "" if views == "unaugmented" else f"; or choose teacher_views: unaugmented, which needs {one}"
            raise DiskError(f"{error}{advice}") from None


@dataclass(frozen=True, eq=False)
class DistillationLoader:
    """The student's batches, with the teacher's logits for them."""

    inputs: TeacherInputs
    teacher_logits: TeacherLogits

    @property
    def depends_on_batch(self) -> bool:
        return self.inputs.depends_on_batch

    def batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        return replace(
            self.inputs.student_batch(rows, epoch, index),
            teacher_logits=self.teacher_logits.targets_for_batch(rows, epoch, index),
        )


@torch.inference_mode()
def compute_teacher_logits(model: Classifier, images: torch.Tensor, dtype: torch.dtype = torch.float32) -> NDArray[np.float16]:
    """(B, 3, S, S) images → (B, C) float16 logits, shifted so that each row's largest is 0.

    A softmax does not change by the shift, and logits near the largest, which decide, keep the most digits. Logits of several
    labels are not shifted: the sigmoid of each would change.
    """
    with autocast_context(images.device, dtype):
        logits = model(images).float()
    if model.spec.multi_label:
        return np.asarray(logits.clamp(MIN_SHIFTED_LOGIT, -MIN_SHIFTED_LOGIT).half().cpu().numpy(), dtype=np.float16)
    shifted: NDArray[np.float16] = (logits - logits.amax(1, keepdim=True)).clamp_min(MIN_SHIFTED_LOGIT).half().cpu().numpy()
    return shifted
