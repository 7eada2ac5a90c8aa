"""A bundle's answers about new pictures or recordings, which are read, drawn and asked about as in its study.

What is needed for that lies in the bundle: the recipe (views, precision), how pictures become square, and of recordings the View
and the rate. A bundle that was saved without them, by hand, is refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.cores import cores
from phoropter.core.errors import DataError, Problem, WeightsError, listing
from phoropter.core.files import writing
from phoropter.core.spec import Source, check
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.later import Drawn, Part, decoded, open_pictures, open_recorded
from phoropter.data.spec import SOURCES, DataSpec
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.models.sources import read_json
from phoropter.results.metrics import softmax
from phoropter.signals.recording import OnBadInput
from phoropter.training.candidate import Candidate
from phoropter.training.lineage import noted_in
from phoropter.training.loop import precision_of
from phoropter.training.predict import predict


@dataclass(frozen=True, eq=False)
class Bundle:
    """A classifier and how it was trained: the candidate, its data, and how its recordings were drawn (None: pictures)."""

    folder: Path
    model: Classifier
    candidate: Candidate
    data: DataSpec
    drawn: Drawn | None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.spec.classes


@dataclass(frozen=True, eq=False)
class Answers:
    """What a bundle says of N pictures, or windows of recordings.

    dataset: their ids and, of recordings, subjects and seconds · logits: (N, C) float32, as a study stores them
    problems: what could not be used · notes: what a reader of these answers must know
    """

    dataset: Dataset
    classes: tuple[str, ...]
    logits: NDArray[np.float32]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, C)."""
        return softmax(self.logits)

    def by_recording(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]] | None:
        """Recordings in their order, how many windows each has, and the mean of their probabilities; None of pictures."""
        if self.dataset.recordings is None:
            return None
        names, first, place, counts = np.unique(
            self.dataset.recordings, return_index=True, return_inverse=True, return_counts=True
        )
        sums = np.zeros((len(names), len(self.classes)))
        np.add.at(sums, place, self.probabilities)
        order = np.argsort(first)
        return names[order].tolist(), counts[order].astype(np.int64), (sums / counts[:, None])[order]


def load(folder: Path) -> Bundle:
    """A bundle's folder, or a run or results folder that keeps one alone. Raises WeightsError naming what there is instead."""
    place = _place(folder)
    said = read_json(place / "bundle.json").get("training") or {}
    if not said.get("candidate") or not said.get("data"):
        raise WeightsError(f"bundle {place} does not say how it was trained; take one that a study has kept (keep: all or first)")
    source = Source(str(place / "bundle.json"))
    candidate = check(Candidate, said["candidate"], source, ("training", "candidate"))
    data = check(DataSpec, said["data"], source, ("training", "data"))
    drawn = check(Drawn, said["drawn"], source, ("training", "drawn")) if said.get("drawn") else None
    if SOURCES[data.source].recorded and drawn is None:
        raise WeightsError(
            f"bundle {place} does not say how its recordings were drawn; an older phoropter saved it: train it again"
        )
    model = classifiers.load(place)
    if candidate.recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Bundle(place, model, candidate, data, drawn)


def answers(bundle: Bundle, paths: Sequence[Path], *, device: str = "auto", on_bad_input: OnBadInput | None = None) -> Answers:
    """Picture files and folders, or recordings, their folders and manifests → what the bundle says of each picture or window.

    on_bad_input: None: as its study said. Raises DataError for a path where there is nothing, or for bad input that stops.
    """
    bad = on_bad_input or bundle.data.on_bad_input
    where = _device(device)
    recipe = bundle.candidate.recipe
    dtype = torch.float32 if bundle.candidate.stores_features else precision_of(recipe, where)  # features are kept in float32
    dataset = _open(bundle, paths, bad)
    model = bundle.model.to(where)
    rows, logits, problems = [], [], list(dataset.problems)
    for part in _parts(bundle, dataset, bad):
        problems += part.problems
        if len(part.rows):
            every = np.arange(len(part.rows), dtype=np.int64)
            rows.append(part.rows)
            logits.append(predict(model, part.pixels, every, where, recipe.views, dtype)[0])
    if not rows:
        raise DataError(f"{dataset.name}: none of its {len(dataset)} pictures can be read; the first: {problems[0]}")
    kept = dataset.rows(np.concatenate(rows))
    return Answers(kept, bundle.classes, np.concatenate(logits), tuple(problems), tuple(_notes(bundle, kept)))


def write_csv(said: Answers, file: Path) -> list[Path]:
    """A row a picture or window; of recordings also FILE-recordings.csv with their means. Returns the files written."""
    written = [_written(file, _header(said), _rows(said))]
    if means := said.by_recording():
        header = ["recording", "windows", "class", *(f"p_{name}" for name in said.classes)]
        rows = (
            [name, str(count), said.classes[int(p.argmax())], *map(_number, p)] for name, count, p in zip(*means, strict=True)
        )
        written.append(_written(file.with_name(f"{file.stem}-recordings{file.suffix}"), header, rows))
    return written


def _open(bundle: Bundle, paths: Sequence[Path], on_bad_input: OnBadInput) -> Dataset:
    if bundle.drawn is None:
        return open_pictures(paths, bundle.classes, on_bad_input)
    return open_recorded(paths, bundle.drawn, bundle.data.source, bundle.classes, on_bad_input)


def _parts(bundle: Bundle, dataset: Dataset, on_bad_input: OnBadInput) -> Iterator[Part]:
    square = bundle.data.square(bundle.model.spec.picture)
    return decoded(dataset, square, on_bad_input, cores())


def _notes(bundle: Bundle, dataset: Dataset) -> Iterator[str]:
    name, ids, _ = noted_in(bundle.folder)
    if both := int(np.isin(dataset.hashes, ids).sum()):
        yield (
            f"{both} of {len(dataset)} are called as rows of {name} that it was trained on; if they are these, its answers "
            "about them say nothing of new ones"
        )
    if bundle.drawn is not None and getattr(bundle.drawn.view, "per_subject", False):
        yield "the grey scale of a subject spans the windows given now, as it spanned all of the subject's in the study"
    yield from dataset.notes


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def _place(folder: Path) -> Path:
    for place in (folder, folder / "bundle"):
        if (place / "bundle.json").is_file():
            return place
    kept = sorted(folder.glob("runs/*/bundle/bundle.json"))
    if len(kept) == 1:
        return kept[0].parent
    if kept:
        there = listing([str(k.parent) for k in kept], 6)
        raise WeightsError(f"{folder} is a results folder with {len(kept)} bundles; name one of them: {there}")
    raise WeightsError(f"{folder} is no bundle: expected a folder with bundle.json, as a study keeps in runs/KEY/bundle")


def _header(said: Answers) -> list[str]:
    about = [] if said.dataset.recordings is None else ["recording", "subject", "site", "start_s", "stop_s"]
    return ["id", *about, *(["label"] if _labelled(said) else []), "class", *(f"p_{name}" for name in said.classes)]


def _rows(said: Answers) -> Iterator[list[str]]:
    dataset = said.dataset
    labelled = _labelled(said)
    for row, p in enumerate(said.probabilities):
        cells = [str(dataset.ids[row])]
        if dataset.recordings is not None and dataset.groups is not None and dataset.spans is not None:
            site = "" if dataset.sites is None else str(dataset.sites[row])
            cells += [str(dataset.recordings[row]), str(dataset.groups[row]), site, *(f"{s:.9g}" for s in dataset.spans[row])]
        if labelled:
            label = dataset.labels[row]
            cells.append("" if label == UNLABELLED else dataset.classes[label])
        yield [*cells, said.classes[int(p.argmax())], *map(_number, p)]


def _labelled(said: Answers) -> bool:
    return bool((said.dataset.labels != UNLABELLED).any())


def _number(probability: Any) -> str:
    return f"{probability:.9g}"


def _written(file: Path, header: list[str], rows: Iterator[list[str]]) -> Path:
    text = io.StringIO(newline="")
    out = csv.writer(text)
    out.writerow(header)
    out.writerows(rows)
    with writing(file) as aside:
        aside.write_text(text.getvalue(), encoding="utf-8", newline="")
    return file
