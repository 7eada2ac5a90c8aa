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
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.errors import DiskError, LeakageError, RunError
from phoropter.core.files import digest, digest_array, require_space, size_text, write_json
from phoropter.core.seeds import order
from phoropter.data.protocols import Split
from phoropter.models.classifier import Classifier
from phoropter.training.batches import Batch, Order, PixelTap, Rows
from phoropter.training.cache import Progress, Stored
from phoropter.training.candidate import Teaching

NUMERICS = 1  # raise when the numbers of an answer change
BLOCK = 64  # rows asked at once where views do not depend on the batch
EXAMINED = 256  # training rows a teacher is examined on
DEVIATIONS = 3.0  # above chance, of a guesser's score: fewer is near chance
LOWEST = -60000.0  # of a logit below its row's largest; float16 ends at 65504


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
    load: Callable[[], Classifier]
    trained_on: NDArray[np.uint64]
    dtype: torch.dtype = torch.float32
    whole: bool = False
    live: bool = False

    def refuse_met(self, hashes: NDArray[np.uint64], split: Split) -> None:
        """Raises LeakageError when the teacher was trained on rows this split tests. hashes: (N,) of the dataset's ids."""
        for part, rows in (("tested", split.test), ("tested", split.external), ("validated on", split.val)):
            met = 0 if rows is None else len(np.intersect1d(hashes[rows], self.trained_on))
            if met:
                raise LeakageError(
                    f"the teacher '{self.name}' was trained on {met} rows that are {part} in {split.name}: what it knows of them "
                    "would reach the student; train it on the same training rows, as a candidate of this study"
                )


def identity_of(model: Classifier, known: Sequence[str] | None = None) -> str:
    """A digest of everything a classifier's answer depends on besides the picture.

    known: the identities of its backbones, where they are known: frozen ones keep theirs, and a digest takes a while
    """
    head = {k: digest_array(v.detach().cpu().float().contiguous().numpy()) for k, v in model.head.state_dict().items()}
    fusion = None if model.spec.fusion is None else model.spec.fusion.plain()
    return digest([list(known or (b.identity for b in model.branches)), head, model.spec.head.plain(), fusion, model.spec.crop])


@dataclass(frozen=True, eq=False)
class Showing:
    """What a student is shown in its training, and in which company the teacher is asked about it.

    tap: gives the student's pictures · order: of its batches · epochs: of its training
    rows: those that may be shown, ascending; where views do not depend on the batch, answers are kept for each of them
    """

    tap: PixelTap
    order: Order
    epochs: int
    rows: Rows
    teaching: Teaching

    @cached_property
    def bound(self) -> bool:
        """Whether a view depends on the batch it is in."""
        augmentation = self.tap.augmentation
        return self.teaching.views == "exact" and augmentation is not None and augmentation.bound

    @property
    def views(self) -> int:
        """How many views there are of each picture."""
        if self.tap.augmentation is None or self.teaching.views == "clean":
            return 1
        return min(self.epochs, self.teaching.pool) if self.teaching.views == "pool" else self.epochs

    @cached_property
    def count(self) -> int:
        """Answers in a view: a row's each."""
        return sum(map(len, self.blocks(0)))

    def view(self, epoch: int) -> int:
        """The view of an epoch; a pool's come round."""
        return epoch % self.views

    def shown(self, rows: Rows, epoch: int, index: int) -> Batch:
        """The student's batch."""
        return self.tap.batch(rows, self.view(epoch) if self.teaching.views == "pool" else epoch, index)

    def asked(self, rows: Rows, view: int, index: int) -> torch.Tensor:
        """The pictures the teacher is asked about."""
        tap = replace(self.tap, augmentation=None) if self.teaching.views == "clean" else self.tap
        pictures = tap.batch(rows, view, index).inputs
        assert isinstance(pictures, torch.Tensor)
        return pictures

    def blocks(self, view: int) -> list[Rows]:
        """The rows of a view, as they are asked together."""
        if self.bound:
            return self.order.epoch(view)
        return np.split(self.rows, range(BLOCK, len(self.rows), BLOCK))

    def places(self, rows: Rows, index: int) -> Rows:
        """Where the answers to a batch lie within its view."""
        if self.bound:
            return index * self.order.batch + np.arange(len(rows), dtype=np.int64)
        return np.searchsorted(self.rows, rows).astype(np.int64)

    def identity(self) -> list[Any]:
        """What decides the pictures of every view, and who is asked beside whom."""
        augmentation, clean = self.tap.augmentation, self.teaching.views == "clean"
        drawn = None if augmentation is None or clean else augmentation.identity()
        company: Any = digest_array(self.rows)
        if self.bound:
            o = self.order
            drawn_by = o.split if o.imbalance.undersample is not None else None
            company = [digest_array(np.sort(o.rows)), o.batch, o.seed, o.imbalance.plain(), drawn_by]
        return [self.tap.pixels.identity, drawn, self.bound, company]


def showing(tap: PixelTap, order_: Order, epochs: int, split: Split, teacher: Teacher, teaching: Teaching) -> Showing:
    """What the student of a split is shown. A teacher that met nothing may be asked of every row, once for all folds."""
    parts = [split.train]
    if not len(teacher.trained_on) and split.folds > 1:
        parts += [p for p in (split.test, split.val, split.external) if p is not None]
    return Showing(tap, order_, epochs, np.unique(np.concatenate(parts)), teaching)


@dataclass(eq=False)
class Answers:
    """A teacher's answers to a showing: (n, C) float16 logits a view, each row's largest 0, or (n,) classes for hard and token.

    cache: the shared cache · progress: told about (answers, of so many)
    """

    teacher: Teacher
    showing: Showing
    cache: Path
    progress: Progress | None = None
    _model: Classifier | None = field(default=None, repr=False)
    _held: tuple[int, NDArray[Any]] | None = field(default=None, repr=False)

    @cached_property
    def entry(self) -> tuple[Path, bool]:
        """The entry's folder, and whether it holds classes alone: enough for hard and token where no logits are there yet."""
        said = [NUMERICS, self.teacher.identity, str(self.teacher.dtype), self.showing.identity()]
        classes, logits = (self.cache / "answers" / digest([*said, kind]) for kind in ("classes", "logits"))
        compact = self.showing.teaching.loss in ("hard", "token") and not logits.exists() and not self.teacher.whole
        return (classes if compact else logits), compact

    @property
    def device(self) -> torch.device:
        return self.showing.tap.device

    @property
    def bytes(self) -> int:
        """On the disk when every view is there."""
        return self.showing.views * self._view(0).bytes

    def fill(self) -> None:
        """Asks about every view that is not there yet. Raises DiskError before the first question when there is no room."""
        if self.teacher.live:
            return
        missing = [v for v in range(self.showing.views) if not self._view(v).there]
        self._require_space(len(missing) * self._view(0).bytes)
        for number, view in enumerate(missing):
            self._fill_view(view, number, len(missing))
        self._model = None

    def of(self, rows: Rows, epoch: int, index: int) -> torch.Tensor:
        """(B, C) float32 logits, or for hard and token (B,) int64 classes, for the student's batch of these rows."""
        view = self.showing.view(epoch)
        if self._held is None or self._held[0] != view:
            self._held = (view, self._asked_now(view) if self.teacher.live else self._loaded(view))
        said = np.asarray(self._held[1][self.showing.places(rows, index)])
        if self.showing.teaching.loss in ("hard", "token"):
            classes = said.argmax(1) if said.ndim == 2 else said
            return torch.from_numpy(classes.astype(np.int64)).to(self.device)
        return torch.from_numpy(said.astype(np.float32)).to(self.device)

    def _fill_view(self, view: int, number: int, of: int) -> None:
        blocks = self.showing.blocks(view)

        def compute(block: int) -> NDArray[Any]:
            return self._compute(blocks[block], view, block)

        def told(done: int, total: int) -> None:
            if self.progress:
                self.progress(number * total + done, of * total)

        self._view(view).get([len(b) for b in blocks], compute, told)

    def _loaded(self, view: int) -> NDArray[Any]:
        stored = self._view(view)
        return np.asarray(np.load(stored.folder / stored.file, mmap_mode="r", allow_pickle=False))

    def _asked_now(self, view: int) -> NDArray[Any]:
        return np.concatenate([self._compute(rows, view, i) for i, rows in enumerate(self.showing.blocks(view))])

    def _compute(self, rows: Rows, view: int, index: int) -> NDArray[Any]:
        if self._model is None:
            self._model = self.teacher.load().to(self.device).eval()
        logits = asked(self._model, self.showing.asked(rows, view, index), self.teacher.dtype)
        return logits.argmax(1).astype(np.uint16) if self.entry[1] else logits

    def _view(self, view: int) -> Stored:
        folder, compact = self.entry
        count, classes = self.showing.count, len(self.showing.tap.dataset.classes)
        shape, dtype = ((count,), "uint16") if compact else ((count, classes), "float16")
        what = f"the answers of the teacher '{self.teacher.name}'"
        return Stored(folder / f"{view:05d}", "answers.npy", shape, dtype, what)

    def _require_space(self, needed: int) -> None:
        teaching = self.showing.teaching
        what = f"keeping the answers of the teacher '{self.teacher.name}' (views: {teaching.views})"
        try:
            require_space(self.cache, needed, what)
        except DiskError as error:
            one = self._view(0).bytes
            other = "" if teaching.views == "clean" else f"; or choose views: clean, which needs {size_text(one)}"
            raise DiskError(f"{error}{other}") from None


@dataclass(frozen=True, eq=False)
class TaughtTap:
    """The student's batches, with the teacher's answers to them."""

    showing: Showing
    answers: Answers

    def batch(self, rows: Rows, epoch: int, index: int) -> Batch:
        return replace(self.showing.shown(rows, epoch, index), teacher=self.answers.of(rows, epoch, index))


@torch.inference_mode()
def asked(model: Classifier, pictures: torch.Tensor, dtype: torch.dtype = torch.float32) -> NDArray[np.float16]:
    """(B, 3, S, S) pictures → (B, C) float16 logits, each row's largest 0: a softmax does not see the shift, and the numbers near
    the largest, which decide, keep the most digits."""
    with nullcontext() if dtype is torch.float32 else torch.autocast(pictures.device.type, dtype):
        logits = model(pictures).float()
    shifted: NDArray[np.float16] = (logits - logits.amax(1, keepdim=True)).clamp_min(LOWEST).half().cpu().numpy()
    return shifted


def examine(teacher: Teacher, tap: PixelTap, rows: Rows, cache: Path) -> dict[str, float]:
    """The teacher's accuracy on clean pictures of some training rows, and what guessing the commonest class would give.

    Raises RunError when it is near chance: a head that was silently drawn anew, or classes in another order. Remembered.
    """
    some = np.sort(rows[order(tap.dataset.hashes[rows], "exam")[:EXAMINED]])
    labels = tap.dataset.labels[some]
    file = (
        cache
        / "answers"
        / f"exam-{digest([teacher.identity, tap.pixels.identity, digest_array(some), digest_array(labels)])}.json"
    )
    try:
        found: dict[str, float] = json.loads(file.read_text())
    except (OSError, ValueError):
        found = _examined(teacher, replace(tap, augmentation=None), some)
        write_json(file, found)
    enough = found["chance"] + DEVIATIONS * math.sqrt(found["chance"] * (1 - found["chance"]) / found["rows"])
    if found["accuracy"] < min(enough, 1.0):
        raise RunError(
            f"the teacher '{teacher.name}' names {found['accuracy']:.1%} of {found['rows']:.0f} training pictures correctly, and "
            f"guessing {found['chance']:.1%}: it has nothing to teach; was its head drawn anew, or was it trained too little?"
        )
    return found


def _examined(teacher: Teacher, tap: PixelTap, rows: Rows) -> dict[str, float]:
    model = teacher.load().to(tap.device).eval()
    right = 0
    for some in np.split(rows, range(BLOCK, len(rows), BLOCK)):
        batch = tap.batch(some, 0, 0)
        assert isinstance(batch.inputs, torch.Tensor)
        right += int((asked(model, batch.inputs, teacher.dtype).argmax(1) == tap.dataset.labels[some]).sum())
    commonest = np.bincount(tap.dataset.labels[rows]).max()
    return {"accuracy": right / len(rows), "chance": float(commonest) / len(rows), "rows": float(len(rows))}
