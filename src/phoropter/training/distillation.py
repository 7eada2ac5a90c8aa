"""A teacher is asked once: its answers to the pictures its students are shown, kept in the cache view by view.

A view is an augmentation draw of (seed, epoch, id); where something is drawn for a whole batch, or pictures are mixed, it is also
(batch). An entry is keyed by what made it: the teacher's weights, the pixels, the augmentation, which rows are asked, and for
views that depend on the batch the order of the batches. Neither the student, nor α, T or the loss has a part in it.

A picture is always asked in the same company (its own batch, or a fixed block of rows), because the sums of a network may differ
in the last bit between batches; and every answer passes through float16, live or stored. So a student taught from the cache ends
with the same bits as one taught live.

Left out: pool and clean views of pictures that are mixed, which the teacher would never have seen as the student does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.errors import DiskError, LeakageError, RunError
from phoropter.core.files import digest, digest_array, format_bytes, require_space, write_json
from phoropter.core.seeds import random_permutation
from phoropter.data.splits.protocol import Split
from phoropter.models.classifier import Classifier
from phoropter.training.array_cache import CachedArray, ProgressFunction
from phoropter.training.batches.loading import Batch, BatchSampler, PixelLoader, Rows
from phoropter.training.candidates.candidate import DistillationSpec
from phoropter.training.loop.precision import autocast_context

NUMERICS = 1  # raise when the numbers of an answer change
BLOCK_ROWS = 64  # rows asked at once where views do not depend on the batch
ACCURACY_CHECK_ROWS = 256  # training rows a teacher is examined on
MIN_DEVIATIONS_ABOVE_CHANCE = 3.0  # above chance, of a guesser's score: fewer is near chance
MIN_SHIFTED_LOGIT = -60000.0  # of a logit below its row's largest; float16 ends at 65504


@dataclass(frozen=True, eq=False)
class Teacher:
    """Who teaches.

    name:       the candidate's, for people
    identity:   `identity_of` its classifier, known without loading it
    load:       gives the classifier; called only when something is to be asked
    trained_on: hashes of the ids it has met; empty for a pretrained network used as it is
    dtype:      autocast computes in · whole: keep its logits even for a student that reads classes alone, for others that do not
    live:       ask anew and store nothing (to compare with; the bits are the same)
    """

    name: str
    identity: str
    load_model: Callable[[], Classifier]
    trained_on: NDArray[np.uint64]
    dtype: torch.dtype = torch.float32
    keep_logits: bool = False
    uncached: bool = False

    def raise_on_leak(self, hashes: NDArray[np.uint64], split: Split) -> None:
        """Raises LeakageError when the teacher was trained on rows this split tests. hashes: (N,) of the dataset's ids."""
        for part, rows in (("tested", split.test), ("tested", split.external), ("validated on", split.val)):
            met = 0 if rows is None else len(np.intersect1d(hashes[rows], self.trained_on))
            if met:
                raise LeakageError(
                    f"the teacher '{self.name}' was trained on {met} rows that are {part} in {split.name}: what it knows of them "
                    "would reach the student; train it on the same training rows, as a candidate of this study"
                )


def digest_classifier(model: Classifier, known: Sequence[str] | None = None) -> str:
    """A digest of everything a classifier's answer depends on besides the picture.

    known: the identities of its backbones, where they are known: frozen ones keep theirs, and a digest takes a while
    """
    head = {k: digest_array(v.detach().cpu().float().contiguous().numpy()) for k, v in model.head.state_dict().items()}
    fusion = None if model.spec.fusion is None else model.spec.fusion.plain()
    return digest([list(known or (b.identity for b in model.branches)), head, model.spec.head.plain(), fusion, model.spec.crop])


@dataclass(frozen=True, eq=False)
class TeacherInputs:
    """What a student is shown in its training, and in which company the teacher is asked about it.

    tap: gives the student's pictures · order: of its batches · epochs: of its training
    rows: those that may be shown, ascending; where views do not depend on the batch, answers are kept for each of them
    """

    pixel_loader: PixelLoader
    batch_sampler: BatchSampler
    epochs: int
    rows: Rows
    teaching: DistillationSpec

    @cached_property
    def depends_on_batch(self) -> bool:
        """Whether a view depends on the batch it is in."""
        augmentation = self.pixel_loader.augmentation
        return self.teaching.teacher_views == "same" and augmentation is not None and augmentation.depends_on_batch

    @property
    def view_count(self) -> int:
        """How many views there are of each picture."""
        if self.pixel_loader.augmentation is None or self.teaching.teacher_views == "unaugmented":
            return 1
        return min(self.epochs, self.teaching.pool) if self.teaching.teacher_views == "cycled" else self.epochs

    @cached_property
    def rows_per_view(self) -> int:
        """Answers in a view: a row's each."""
        return sum(map(len, self.row_blocks(0)))

    def view_of_epoch(self, epoch: int) -> int:
        """The view of an epoch; a pool's come round."""
        return epoch % self.view_count

    def student_batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        """The student's batch."""
        return self.pixel_loader.batch(
            rows, self.view_of_epoch(epoch) if self.teaching.teacher_views == "cycled" else epoch, index
        )

    def teacher_pictures(self, rows: Rows, view: int, index: int) -> torch.Tensor:
        """The pictures the teacher is asked about."""
        tap = replace(self.pixel_loader, augmentation=None) if self.teaching.teacher_views == "unaugmented" else self.pixel_loader
        pictures = tap.batch(rows, view, index).inputs
        assert isinstance(pictures, torch.Tensor)
        return pictures

    def row_blocks(self, view: int) -> list[Rows]:
        """The rows of a view, as they are asked together."""
        if self.depends_on_batch:
            return self.batch_sampler.epoch_batches(view)
        return np.split(self.rows, range(BLOCK_ROWS, len(self.rows), BLOCK_ROWS))

    def locate_rows(self, rows: Rows, index: int) -> Rows:
        """Where the answers to a batch lie within its view."""
        if self.depends_on_batch:
            return index * self.batch_sampler.batch_size + np.arange(len(rows), dtype=np.int64)
        return np.searchsorted(self.rows, rows).astype(np.int64)

    def identity(self) -> list[Any]:
        """What decides the pictures of every view, and who is asked beside whom."""
        augmentation, clean = self.pixel_loader.augmentation, self.teaching.teacher_views == "unaugmented"
        drawn = None if augmentation is None or clean else augmentation.identity()
        company: Any = digest_array(self.rows)
        if self.depends_on_batch:
            o = self.batch_sampler
            drawn_by = o.split if o.imbalance.undersample is not None else None
            company = [digest_array(np.sort(o.rows)), o.batch_size, o.seed, o.imbalance.plain(), drawn_by]
        return [self.pixel_loader.pixels.identity, drawn, self.depends_on_batch, company]


def make_teacher_inputs(
    tap: PixelLoader, order_: BatchSampler, epochs: int, split: Split, teacher: Teacher, teaching: DistillationSpec
) -> TeacherInputs:
    """What the student of a split is shown. A teacher that met nothing may be asked of every row, once for all folds."""
    parts = [split.train]
    if not len(teacher.trained_on) and split.folds > 1:
        parts += [p for p in (split.test, split.val, split.external) if p is not None]
    return TeacherInputs(tap, order_, epochs, np.unique(np.concatenate(parts)), teaching)


@dataclass(eq=False)
class TeacherLogits:
    """A teacher's answers to a showing: (n, C) float16 logits a view, each row's largest 0, or (n,) classes for hard and token.

    cache: the shared cache · progress: told about (answers, of so many)
    """

    teacher: Teacher
    inputs: TeacherInputs
    cache: Path
    progress: ProgressFunction | None = None
    _model: Classifier | None = field(default=None, repr=False)
    _current_view: tuple[int, NDArray[Any]] | None = field(default=None, repr=False)

    @cached_property
    def cache_entry(self) -> tuple[Path, bool]:
        """The entry's folder, and whether it holds classes alone: enough for hard and token where no logits are there yet."""
        said = [NUMERICS, self.teacher.identity, str(self.teacher.dtype), self.inputs.identity()]
        classes, logits = (self.cache / "answers" / digest([*said, kind]) for kind in ("classes", "logits"))
        compact = self.inputs.teaching.loss in ("hard", "token") and not logits.exists() and not self.teacher.keep_logits
        return (classes if compact else logits), compact

    @property
    def device(self) -> torch.device:
        return self.inputs.pixel_loader.device

    @property
    def nbytes(self) -> int:
        """On the disk when every view is there."""
        return self.inputs.view_count * self._view_array(0).nbytes

    def compute_missing(self) -> None:
        """Asks about every view that is not there yet. Raises DiskError before the first question when there is no room."""
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
        said = np.asarray(self._current_view[1][self.inputs.locate_rows(rows, index)])
        if self.inputs.teaching.loss in ("hard", "token"):
            classes = said.argmax(1) if said.ndim == 2 else said
            return torch.from_numpy(classes.astype(np.int64)).to(self.device)
        return torch.from_numpy(said.astype(np.float32)).to(self.device)

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
        return np.asarray(np.load(stored.folder / stored.file_name, mmap_mode="r", allow_pickle=False))

    def _compute_view(self, view: int) -> NDArray[Any]:
        return np.concatenate([self._evaluate_rows(rows, view, i) for i, rows in enumerate(self.inputs.row_blocks(view))])

    def _evaluate_rows(self, rows: Rows, view: int, index: int) -> NDArray[Any]:
        if self._model is None:
            self._model = self.teacher.load_model().to(self.device).eval()
        logits = compute_teacher_logits(self._model, self.inputs.teacher_pictures(rows, view, index), self.teacher.dtype)
        return logits.argmax(1).astype(np.uint16) if self.cache_entry[1] else logits

    def _view_array(self, view: int) -> CachedArray:
        folder, compact = self.cache_entry
        count, classes = self.inputs.rows_per_view, len(self.inputs.pixel_loader.dataset.classes)
        shape, dtype = ((count,), "uint16") if compact else ((count, classes), "float16")
        what = f"the answers of the teacher '{self.teacher.name}'"
        return CachedArray(folder / f"{view:05d}", "answers.npy", shape, dtype, what)

    def _require_space(self, needed: int) -> None:
        teaching = self.inputs.teaching
        what = f"keeping the answers of the teacher '{self.teacher.name}' (teacher_views: {teaching.teacher_views})"
        try:
            require_space(self.cache, needed, what)
        except DiskError as error:
            one = self._view_array(0).nbytes
            other = (
                ""
                if teaching.teacher_views == "unaugmented"
                else f"; or choose teacher_views: unaugmented, which needs {format_bytes(one)}"
            )
            raise DiskError(f"{error}{other}") from None


@dataclass(frozen=True, eq=False)
class DistillationLoader:
    """The student's batches, with the teacher's answers to them."""

    inputs: TeacherInputs
    teacher_logits: TeacherLogits

    def batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        return replace(
            self.inputs.student_batch(rows, epoch, index),
            teacher_logits=self.teacher_logits.targets_for_batch(rows, epoch, index),
        )


@torch.inference_mode()
def compute_teacher_logits(model: Classifier, pictures: torch.Tensor, dtype: torch.dtype = torch.float32) -> NDArray[np.float16]:
    """(B, 3, S, S) pictures → (B, C) float16 logits, each row's largest 0: a softmax does not see the shift, and the numbers near
    the largest, which decide, keep the most digits."""
    with autocast_context(pictures.device, dtype):
        logits = model(pictures).float()
    shifted: NDArray[np.float16] = (logits - logits.amax(1, keepdim=True)).clamp_min(MIN_SHIFTED_LOGIT).half().cpu().numpy()
    return shifted


def check_teacher_accuracy(teacher: Teacher, tap: PixelLoader, rows: Rows, cache: Path) -> dict[str, float]:
    """The teacher's accuracy on clean pictures of some training rows, and what guessing the commonest class would give.

    Raises RunError when it is near chance: a head that was silently drawn anew, or classes in another order. Remembered.
    """
    some = np.sort(rows[random_permutation(tap.dataset.hashed_ids[rows], "exam")[:ACCURACY_CHECK_ROWS]])
    labels = tap.dataset.labels[some]
    file = (
        cache
        / "answers"
        / f"exam-{digest([teacher.identity, tap.pixels.identity, digest_array(some), digest_array(labels)])}.json"
    )
    try:
        found: dict[str, float] = json.loads(file.read_text())
    except (OSError, ValueError):
        found = _measure_teacher_accuracy(teacher, replace(tap, augmentation=None), some)
        write_json(file, found)
    enough = found["chance"] + MIN_DEVIATIONS_ABOVE_CHANCE * math.sqrt(found["chance"] * (1 - found["chance"]) / found["rows"])
    if found["accuracy"] < min(enough, 1.0):
        raise RunError(
            f"the teacher '{teacher.name}' names {found['accuracy']:.1%} of {found['rows']:.0f} training pictures correctly, and "
            f"guessing {found['chance']:.1%}: it has nothing to teach; was its head drawn anew, or was it trained too little?"
        )
    return found


def _measure_teacher_accuracy(teacher: Teacher, tap: PixelLoader, rows: Rows) -> dict[str, float]:
    model = teacher.load_model().to(tap.device).eval()
    right = 0
    for some in np.split(rows, range(BLOCK_ROWS, len(rows), BLOCK_ROWS)):
        batch = tap.batch(some, 0, 0)
        assert isinstance(batch.inputs, torch.Tensor)
        right += int((compute_teacher_logits(model, batch.inputs, teacher.dtype).argmax(1) == tap.dataset.labels[some]).sum())
    commonest = np.bincount(tap.dataset.labels[rows]).max()
    return {"accuracy": right / len(rows), "chance": float(commonest) / len(rows), "rows": float(len(rows))}
