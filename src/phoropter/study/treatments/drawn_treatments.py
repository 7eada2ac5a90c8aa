"""A few rows of a study's data at every step on their way to a network, made by the code that training uses.

Recorded, cleaned, filtered and drawn where the data are recordings, else as in the file and made square; then under each value of
a swept key of the data, in the centre crop of testing, and under each augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset
from phoropter.data.images.decode_pool import picture_reader
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.results.shown_treatments import ShownRow
from phoropter.study.spec import StudySpec
from phoropter.study.treatments.treatment_list import AS_IT_IS, Treatment, list_treatments

SHOWN_ROWS = 3
DEFAULT_SIDE = 224  # of pictures where neither the data nor the caller says how large they are stored
_MAX_UNREADABLE = 20  # bad pictures that are passed over before there is nothing to show
_BEFORE_ANY_RULE = "The samples of the window that is drawn."
_AFTER_A_RULE = "The same samples after this step; a gap is what is missing."

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class DrawnStep:
    """One step, and what it leaves of each row: samples of one channel, or a picture.

    title, about: in words · channel, unit: of traces · traces: (n,) samples of each row, NaN where one is missing; none where
    pictures are shown · pictures: (H, W, 3) uint8 of each row; none where traces are shown
    """

    title: str
    about: str
    channel: str = ""
    unit: str = ""
    traces: tuple[NDArray[np.floating], ...] = ()
    pictures: tuple[Bytes, ...] = ()


@dataclass(frozen=True, eq=False)
class DrawnTreatments:
    """rows: which are shown · steps: in the order in which they act; of those after "as it is" each acts alone"""

    rows: tuple[ShownRow, ...]
    steps: tuple[DrawnStep, ...]


def draw_treatments(parts: Sequence[StudySpec], side: int = DEFAULT_SIDE) -> DrawnTreatments:
    """The first part, and what further ones with the same source do otherwise, on rows that the same data always give.

    side: of stored pictures in pixels, where the data do not say it. Raises what `open_dataset` raises, and DataError for data
    of which no picture can be read.
    """
    base = parts[0].base
    first, *others = list_treatments(parts)
    dataset = open_dataset(first.data, base)
    rows = _choose_rows(dataset)
    ids = [str(dataset.ids[row]) for row in rows]
    steps = list(_draw_origin(dataset, rows))
    steps.append(_draw_step(first, dataset, ids, side))
    opened: tuple[DataSpec, Dataset] = first.data, dataset
    for treatment in others:
        if treatment.data != opened[0]:  # augmentations share theirs
            opened = treatment.data, open_dataset(treatment.data, base)
        steps.append(_draw_step(treatment, opened[1], ids, side))
    return DrawnTreatments(tuple(_describe_row(dataset, row) for row in rows), tuple(steps))


def show_treatment(treatment: Treatment, dataset: Dataset, ids: Sequence[str], side: int = DEFAULT_SIDE) -> Bytes:
    """(m, 3, S, S): the rows of these ids as the treatment shows them to a network. dataset: of its data

    Where the data have not all of these ids, as with windows that begin elsewhere, rows are chosen anew.
    """
    rows = _find_rows(dataset, ids) or _choose_rows(dataset)
    square, read = treatment.data.square_resize(treatment.data.size or side), picture_reader(dataset)
    pictures = np.stack([square.resize_image(read(row)) for row in rows])
    if not treatment.steps and treatment.crop is None:
        return pictures
    from phoropter.models.classifier import crop_centre
    from phoropter.training.augmentation.pipeline import Augmentation

    seen = Augmentation(treatment.steps, 0).apply(list(pictures), dataset.hashed_ids[np.array(rows)], 0, 0).pictures
    return np.asarray(crop_centre(seen, treatment.crop)).clip(0, 255).astype(np.uint8)


def _find_rows(dataset: Dataset, ids: Sequence[str]) -> list[int]:
    """The rows of these ids; none where the data have not all of them."""
    rows = [int(row) for name in ids for row in np.flatnonzero(dataset.ids == name)]
    return rows if len(rows) == len(ids) else []


def _choose_rows(dataset: Dataset) -> list[int]:
    """Rows that can be read, one of each class in turn. Raises DataError where none can."""
    read, chosen, reason = picture_reader(dataset), [], ""
    for row in dataset.order_by_turns("preview")[: SHOWN_ROWS + _MAX_UNREADABLE].tolist():
        try:
            read(row)
        except DataError as error:
            reason = reason or str(error)
            continue
        chosen.append(row)
        if len(chosen) == SHOWN_ROWS:
            break
    if not chosen:
        raise DataError(f"{dataset.name}: no picture can be shown: {reason}")
    return chosen


def _describe_row(dataset: Dataset, row: int) -> ShownRow:
    span = None if dataset.spans is None else (float(dataset.spans[row][0]), float(dataset.spans[row][1]))
    return ShownRow(id=str(dataset.ids[row]), label=dataset.describe_label(row) or "no label", span=span)


def _draw_origin(dataset: Dataset, rows: Sequence[int]) -> Iterator[DrawnStep]:
    """Of windows the samples at every stage, else the pictures as they are in their files."""
    if isinstance(dataset.pictures, RenderedPictures):
        before = ""
        for stages in zip(*(dataset.pictures.trace_stages(row) for row in rows), strict=True):
            channel, unit, title, _ = stages[0]
            about = _AFTER_A_RULE if channel == before else _BEFORE_ANY_RULE
            before = channel
            yield DrawnStep(title, about, channel, unit, tuple(stage.values for stage in stages))
        return
    pictures = tuple(np.asarray(picture_reader(dataset)(row), dtype=np.uint8) for row in rows)
    yield DrawnStep("as in the file", "The picture before anything is done to it.", pictures=pictures)


def _draw_step(treatment: Treatment, dataset: Dataset, ids: Sequence[str], side: int) -> DrawnStep:
    title, shown = treatment.title, show_treatment(treatment, dataset, ids, side)
    if title == AS_IT_IS:
        drawn = dataset.pictures.windows.view.representation.kind if isinstance(dataset.pictures, RenderedPictures) else ""
        how = f"drawn as {drawn}" if drawn else f"made square ({treatment.data.resize})"
        title = f"{how}, {shown.shape[-1]} pixels a side"
    about = treatment.about if _find_rows(dataset, ids) else f"{treatment.about} Other rows: not all of those above are there."
    return DrawnStep(title, about, pictures=tuple(np.ascontiguousarray(p.transpose(1, 2, 0)) for p in shown))
