"""A sheet of what a study does to its pictures: some rows as they are, and under each swept filter and each augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, join_words
from phoropter.core.files import atomic_write
from phoropter.core.seeds import random_permutation
from phoropter.core.spec import Spec
from phoropter.data.dataset import Dataset
from phoropter.data.images.decode_pool import picture_reader
from phoropter.data.recordings.contact_sheet import FIGURE_EXTENSIONS
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.study.spec import StudySpec
from phoropter.study.variants.sweep import expand_sweep

SHEET_COLUMNS = 3  # rows of the data that are shown
MAX_VALUES = 4  # values of one sweep that are shown: the first, the last and two between
DEFAULT_SIDE = 224


@dataclass(frozen=True)
class Treatment:
    """What is done to a picture: the data as they are read, and the augmentation steps. title: in words"""

    title: str
    data: DataSpec
    steps: tuple[Any, ...] = ()


def write_treatment_sheet(parts: Sequence[StudySpec], file: Path) -> Path:
    """Writes the sheet of the first part and others with the same source: a line for each treatment, the same pictures in each.

    Steps that act with a chance are shown acting. Raises DataError for a file that does not end in .png, .svg or .pdf.
    """
    if file.suffix.lower() not in FIGURE_EXTENSIONS:
        raise DataError(f"{file}: the preview should end in {join_words(FIGURE_EXTENSIONS)}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    treatments, base = list_treatments(parts), parts[0].base
    data, dataset = treatments[0].data, open_dataset(treatments[0].data, base)
    ids = _choose_ids(dataset)
    figure = Figure(figsize=(2.2 * len(ids), 2.4 * len(treatments)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(treatments), len(ids), squeeze=False)
    for line, treatment in zip(axes, treatments, strict=True):
        if treatment.data != data:  # augmentations share theirs
            data, dataset = treatment.data, open_dataset(treatment.data, base)
        for axis, picture in zip(line, show_treatment(treatment, dataset, ids), strict=True):
            axis.imshow(picture.transpose(1, 2, 0), interpolation="nearest")
            axis.set_axis_off()
        line[0].set_title(treatment.title, loc="left", fontsize=8)
    with atomic_write(file) as aside:
        figure.savefig(aside, format=file.suffix[1:].lower(), dpi=110)
    return file


def list_treatments(parts: Sequence[StudySpec]) -> list[Treatment]:
    """As it is; then the values of swept keys of the data; then each augmentation of a candidate, once."""
    first = parts[0].data
    source = first.model_dump(include={first.source})
    found = {"as it is": Treatment("as it is", first)}
    for part in parts:
        if part.data.model_dump(include={part.data.source}) == source:
            for treatment in (*_swept_data(part), *_augmentations(part)):
                found.setdefault(treatment.title, treatment)
    return list(found.values())


def _swept_data(part: StudySpec) -> Iterator[Treatment]:
    for path, values in part.sweep.items():
        if path.startswith("data."):
            shown = np.unique(np.linspace(0, len(values) - 1, min(MAX_VALUES, len(values))).astype(int))
            some = part.with_changes(sweep={path: [values[place] for place in shown]}, compare=None)
            for variant in expand_sweep(some):
                (value,) = variant.settings.values()
                yield Treatment(f"{path.rpartition('.')[2]} {value}", variant.data)


def _augmentations(part: StudySpec) -> Iterator[Treatment]:
    for variant in expand_sweep(part):
        for candidate in variant.candidates:
            if steps := candidate.recipe.augment:
                yield Treatment(" + ".join(map(_describe_step, steps)), part.data, tuple(map(_make_acting, steps)))


def _make_acting(step: Any) -> Any:
    """A step that acts with a chance, acting always."""
    return step.with_changes(p=1.0) if isinstance(step, Spec) and "p" in type(step).model_fields else step


def _describe_step(step: Any) -> str:
    """Its name, and the options that are not its defaults: `slit-cutmix, width area`."""
    if not isinstance(step, Spec):  # one of the user's own
        return str(step.name)
    changed = [f"{key} {value}" for key, value in step if key != "kind" and value != type(step).model_fields[key].default]
    return ", ".join([str(getattr(step, "kind", "")), *changed])


def _choose_ids(dataset: Dataset) -> list[str]:
    """Of some rows, one of each class in turn; the same data always give the same."""
    shuffled = random_permutation(dataset.hashed_ids, 0, "preview")
    labels = dataset.label_sets
    turn = np.zeros(len(dataset), np.int64)
    for label in np.unique(labels):
        rows = shuffled[labels[shuffled] == label]
        turn[rows] = np.arange(len(rows))
    chosen = sorted(shuffled.tolist(), key=lambda row: (turn[row], labels[row]))[:SHEET_COLUMNS]
    return [str(dataset.ids[row]) for row in chosen]


def show_treatment(treatment: Treatment, dataset: Dataset, ids: Sequence[str]) -> NDArray[np.uint8]:
    """(m, 3, S, S): the rows of these ids as the treatment shows them to a network in training. dataset: of its data"""
    place = {str(name): row for row, name in enumerate(dataset.ids)}
    rows = np.array([place[name] for name in ids], np.int64)
    square, read = treatment.data.square_resize(treatment.data.size or DEFAULT_SIDE), picture_reader(dataset)
    pictures = np.stack([square.resize_image(read(int(row))) for row in rows])
    if not treatment.steps:
        return pictures
    from phoropter.training.augmentation.pipeline import Augmentation

    seen = Augmentation(treatment.steps, 0).apply(list(pictures), dataset.hashed_ids[rows], 0, 0).pictures
    return np.asarray(seen).clip(0, 255).astype(np.uint8)
