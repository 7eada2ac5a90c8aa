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

from phoropter.core.cores import count_usable_cores
from phoropter.core.errors import DataError, InputProblem, WeightsError, join_words
from phoropter.core.extensions import Extension, read_recorded_extensions
from phoropter.core.files import atomic_write
from phoropter.core.spec import SourceMap, validate_as
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.recordings.bundle_view import BundleView
from phoropter.data.recordings.files import find_prediction_database
from phoropter.data.spec import DataSpec
from phoropter.deploy.inputs import DecodedChunk, decode_in_chunks, open_pictures, open_recording_files
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.models.weights.weight_files import read_sidecar_json
from phoropter.results.metrics.registry import softmax
from phoropter.signals.recording import OnBadInput
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.loop.precision import resolve_autocast_dtype
from phoropter.training.predict import predict_from_pixels
from phoropter.training.trained_on import read_trained_on


@dataclass(frozen=True, eq=False)
class Bundle:
    """A classifier and how it was trained: the candidate, its data, and how its recordings were drawn (None: pictures)."""

    folder: Path
    model: Classifier
    candidate: Candidate
    data: DataSpec
    recording_view: BundleView | None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.spec.classes


@dataclass(frozen=True, eq=False)
class BundlePredictions:
    """What a bundle says of N pictures, or windows of recordings.

    dataset: their ids and, of recordings, subjects and seconds · logits: (N, C) float32, as a study stores them
    problems: what could not be used · notes: what a reader of these answers must know
    """

    dataset: Dataset
    classes: tuple[str, ...]
    logits: NDArray[np.float32]
    problems: tuple[InputProblem, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, C)."""
        return softmax(self.logits)

    def average_by_recording(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]] | None:
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


def load_bundle(folder: Path, extensions: Sequence[Extension] = ()) -> Bundle:
    """Loads a bundle from its folder, or from a run or results folder that holds exactly one.

    extensions: the custom Backbones it needs; those of its training alone (loss, augmentation steps) may be left out
    Raises WeightsError for a folder without a bundle, and for missing or changed code.
    """
    place = _find_bundle(folder)
    said = read_sidecar_json(place / "bundle.json").get("training") or {}
    if not said.get("candidate") or not said.get("data"):
        raise WeightsError(f"bundle {place} does not say how it was trained; take one that a study has kept (keep: all or first)")
    source = SourceMap(str(place / "bundle.json"))
    with read_recorded_extensions(extensions):
        candidate = validate_as(Candidate, said["candidate"], source, ("training", "candidate"))
        data = validate_as(DataSpec, said["data"], source, ("training", "data"))
    drawn = validate_as(BundleView, said["drawn"], source, ("training", "drawn")) if said.get("drawn") else None
    if data.source_record.holds_recordings and drawn is None:
        raise WeightsError(
            f"bundle {place} does not say how its recordings were drawn; an older phoropter saved it: train it again"
        )
    model = classifiers.load_classifier(place, extensions)
    if candidate.recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Bundle(place, model, candidate, data, drawn)


def predict_paths(
    bundle: Bundle, paths: Sequence[Path], *, device: str = "auto", on_bad_input: OnBadInput | None = None
) -> BundlePredictions:
    """Picture files and folders, or recordings, their folders and manifests → what the bundle says of each picture or window.

    on_bad_input: None: as its study said. Raises DataError for a path where there is nothing, or for bad input that stops.
    """
    bad = on_bad_input or bundle.data.on_bad_input
    where = _resolve_device(device)
    recipe = bundle.candidate.recipe
    dtype = (
        torch.float32 if bundle.candidate.stores_features else resolve_autocast_dtype(recipe, where)
    )  # features are kept in float32
    dataset = _open_inputs(bundle, paths, bad)
    model = bundle.model.to(where)
    rows, logits, problems = [], [], list(dataset.problems)
    for part in _decode_chunks(bundle, dataset, bad):
        problems += part.problems
        if len(part.rows):
            every = np.arange(len(part.rows), dtype=np.int64)
            rows.append(part.rows)
            logits.append(predict_from_pixels(model, part.pixels, every, where, recipe.tta, dtype)[0])
    if not rows:
        raise DataError(f"{dataset.name}: none of its {len(dataset)} pictures can be read; the first: {problems[0]}")
    kept = dataset.select_rows(np.concatenate(rows))
    return BundlePredictions(
        kept, bundle.classes, np.concatenate(logits), tuple(problems), tuple(_prediction_notes(bundle, kept))
    )


def write_predictions_csv(said: BundlePredictions, file: Path) -> list[Path]:
    """A row a picture or window; of recordings also FILE-recordings.csv with their means. Returns the files written."""
    written = [_write_rows(file, _csv_header(said), _csv_rows(said))]
    if means := said.average_by_recording():
        header = ["recording", "windows", "class", *(f"p_{name}" for name in said.classes)]
        rows = (
            [name, str(count), said.classes[int(p.argmax())], *map(_format_probability, p)]
            for name, count, p in zip(*means, strict=True)
        )
        written.append(_write_rows(file.with_name(f"{file.stem}-recordings{file.suffix}"), header, rows))
    return written


def _open_inputs(bundle: Bundle, paths: Sequence[Path], on_bad_input: OnBadInput) -> Dataset:
    if bundle.recording_view is None:
        return open_pictures(paths, bundle.classes, on_bad_input)
    database = find_prediction_database(bundle.data, bundle.data.source)
    return open_recording_files(paths, bundle.recording_view, database, bundle.classes, on_bad_input)


def _decode_chunks(bundle: Bundle, dataset: Dataset, on_bad_input: OnBadInput) -> Iterator[DecodedChunk]:
    square = bundle.data.square_resize(bundle.model.spec.picture)
    return decode_in_chunks(dataset, square, on_bad_input, count_usable_cores())


def _prediction_notes(bundle: Bundle, dataset: Dataset) -> Iterator[str]:
    name, ids, _ = read_trained_on(bundle.folder)
    if both := int(np.isin(dataset.hashed_ids, ids).sum()):
        yield (
            f"{both} of {len(dataset)} are called as rows of {name} that it was trained on; if they are these, its answers "
            "about them say nothing of new ones"
        )
    if bundle.recording_view is not None and bundle.recording_view.view.pools_grey_scale:
        yield "the grey scale of a subject spans the windows given now, as it spanned all of the subject's in the study"
    yield from dataset.notes


def _resolve_device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def _find_bundle(folder: Path) -> Path:
    for place in (folder, folder / "bundle"):
        if (place / "bundle.json").is_file():
            return place
    kept = sorted(folder.glob("runs/*/bundle/bundle.json"))
    if len(kept) == 1:
        return kept[0].parent
    if kept:
        there = join_words([str(k.parent) for k in kept], 6)
        raise WeightsError(f"{folder} is a results folder with {len(kept)} bundles; name one of them: {there}")
    raise WeightsError(f"{folder} is no bundle: expected a folder with bundle.json, as a study keeps in runs/KEY/bundle")


def _csv_header(said: BundlePredictions) -> list[str]:
    about = [] if said.dataset.recordings is None else ["recording", "subject", "site", "start_s", "stop_s"]
    return ["id", *about, *(["label"] if _has_labels(said) else []), "class", *(f"p_{name}" for name in said.classes)]


def _csv_rows(said: BundlePredictions) -> Iterator[list[str]]:
    dataset = said.dataset
    labelled = _has_labels(said)
    for row, p in enumerate(said.probabilities):
        cells = [str(dataset.ids[row])]
        if dataset.recordings is not None and dataset.groups is not None and dataset.spans is not None:
            site = "" if dataset.sites is None else str(dataset.sites[row])
            cells += [str(dataset.recordings[row]), str(dataset.groups[row]), site, *(f"{s:.9g}" for s in dataset.spans[row])]
        if labelled:
            label = dataset.labels[row]
            cells.append("" if label == UNLABELLED else dataset.classes[label])
        yield [*cells, said.classes[int(p.argmax())], *map(_format_probability, p)]


def _has_labels(said: BundlePredictions) -> bool:
    return bool((said.dataset.labels != UNLABELLED).any())


def _format_probability(probability: Any) -> str:
    return f"{probability:.9g}"


def _write_rows(file: Path, header: list[str], rows: Iterator[list[str]]) -> Path:
    text = io.StringIO(newline="")
    out = csv.writer(text)
    out.writerow(header)
    out.writerows(rows)
    with atomic_write(file) as aside:
        aside.write_text(text.getvalue(), encoding="utf-8", newline="")
    return file
