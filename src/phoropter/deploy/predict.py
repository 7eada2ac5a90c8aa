"""Predictions of a bundle for new images or recordings, prepared exactly as in its study.

The bundle holds what that needs: the recipe (test-time augmentation, precision), how images become square, and for recordings
the View and the sampling rate. A bundle saved by hand without them is refused.

Left out: objects in memory (bundle.py), and the files that predictions are written to (tables.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import DataError, InputProblem, SpecError, WeightsError, join_words
from phoropter.core.extensions import Extension, find_code, is_code_trusted, read_recorded_extensions
from phoropter.core.spec import SourceMap, validate_as
from phoropter.data.dataset import Dataset
from phoropter.data.images.options import apply_options
from phoropter.data.images.pixels import Pixels
from phoropter.data.recordings.bundle_view import BundleView
from phoropter.data.recordings.changes import RecordingChanges
from phoropter.data.recordings.database import Database
from phoropter.data.recordings.files import find_prediction_database
from phoropter.data.spec import DataSpec
from phoropter.deploy.decision import DecisionRule, MeanProbabilities
from phoropter.deploy.inputs import (
    DecodedChunk,
    decode_in_chunks,
    describe_unreadable,
    find_paths,
    open_pictures,
    open_recording_files,
)
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.models.weights.weight_files import read_sidecar_json
from phoropter.results.metrics.probabilities import average_probabilities, to_probabilities
from phoropter.signals.recording import OnBadInput
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.refit_record import RefitRecord
from phoropter.training.loop.devices import resolve_device
from phoropter.training.loop.precision import resolve_autocast_dtype
from phoropter.training.predict import TtaViews, predict_from_pixels
from phoropter.training.trained_on import TrainedOn, read_trained_on

ProgressFunction = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A classifier, its candidate and training data, and how its recordings become images (None: its inputs are images).

    refit: how it was made after its study, with the study's estimate and a temperature; None for the model of one run
    members: of an average of classifiers (`model.members`), the candidate that each was trained as
    """

    folder: Path
    model: Classifier
    candidate: Candidate
    data: DataSpec
    recording_view: BundleView | None
    refit: RefitRecord | None = None
    members: tuple[Candidate, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.spec.classes

    @property
    def multi_label(self) -> bool:
        """Whether an input may have several of the classes."""
        return self.model.spec.multi_label

    @property
    def member_candidates(self) -> tuple[Candidate, ...]:
        return self.members or (self.candidate,)

    @property
    def temperature(self) -> float:
        """The logits are divided by it before the softmax; 1 for the model of one run."""
        return 1.0 if self.refit is None else self.refit.temperature

    @property
    def rule(self) -> DecisionRule:
        return DecisionRule.from_refit(self.refit, self.classes, self.multi_label)


@dataclass(frozen=True, eq=False)
class BundlePredictions:
    """Predictions for N images, or windows of recordings.

    dataset:  the rows' ids and, for recordings, their subjects and seconds
    logits:   (N, C) float32, as a study stores them
    problems: inputs that could not be used, and why
    notes:    facts a reader of the predictions must know
    temperature: that the probabilities are calibrated by; 1 for the bundle of one run, which has none
    multi_label: whether an input may have several of the classes
    rule:     how windows become one answer, and from which probability on the positive class is decided for
    """

    dataset: Dataset
    classes: tuple[str, ...]
    logits: NDArray[np.float32]
    problems: tuple[InputProblem, ...] = ()
    notes: tuple[str, ...] = field(default=())
    temperature: float = 1.0
    rule: DecisionRule | None = None
    multi_label: bool = False

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, C) softmax, or of several labels the sigmoid, of the logits divided by the temperature."""
        return to_probabilities(self.logits / self.temperature, self.multi_label)

    def average_by_recording(self) -> MeanProbabilities | None:
        """One answer for each recording from its windows, by the rule (default: the mean of probabilities); None for images."""
        return None if self.dataset.recordings is None else self._average_by(self.dataset.recordings)

    def average_by_subject(self) -> MeanProbabilities | None:
        """The same for each subject, from all its windows; None where no subject has several recordings."""
        subjects, recordings = self.dataset.groups, self.dataset.recordings
        if subjects is None or recordings is None:
            return None
        pairs = set(zip(subjects.tolist(), recordings.tolist(), strict=True))
        return self._average_by(subjects) if len(pairs) > len(np.unique(subjects)) else None

    def _average_by(self, owners: NDArray[np.str_]) -> MeanProbabilities:
        names, first, place, counts = np.unique(owners, return_index=True, return_inverse=True, return_counts=True)
        answers = (self.rule or DecisionRule(self.classes)).aggregate(self.probabilities, place.astype(np.int64))
        order = np.argsort(first)
        return MeanProbabilities(names[order].tolist(), counts[order].astype(np.int64), answers[order])

    def decide_rows(self) -> list[str] | None:
        """The class decided for in each row; None where the bundle has no threshold for single pictures or windows."""
        return None if self.rule is None else self.rule.decide(self.probabilities, "row")

    def decide_recordings(self) -> list[str] | None:
        """In the order of `average_by_recording`; None where the threshold is not for them.

        A threshold for subjects is for recordings too where each subject has one, and one for windows where each recording has
        one.
        """
        answers = self.average_by_recording()
        if self.rule is None or answers is None:
            return None
        level = self.rule.level
        fits = {"recording": True, "group": self.average_by_subject() is None, "row": bool((answers.counts == 1).all())}
        return self.rule.decide(answers.probabilities, level) if fits[level] else None

    def decide_subjects(self) -> list[str] | None:
        """In the order of `average_by_subject`; None where the threshold is not for them."""
        answers = self.average_by_subject()
        return None if self.rule is None or answers is None else self.rule.decide(answers.probabilities, "group")


def open_bundle(folder: Path | str, extensions: Sequence[Extension] = ()) -> Bundle:
    """Reads a bundle from its folder, or from a run or results folder that holds exactly one.

    extensions: the Backbones and the Database it needs, where they are your own; those of its training alone (loss, augmentation
    steps) may be left out, and so may the Database of a bundle that will only read files of common formats
    Raises WeightsError for a folder without a bundle, and for missing or changed code.
    """
    place = _find_bundle(Path(folder))
    content = read_sidecar_json(place / "bundle.json")
    training = (content.get("training") or {}) if isinstance(content, dict) else {}
    if not isinstance(training, dict) or not training.get("candidate") or not training.get("data"):
        raise WeightsError(
            f"bundle {place} does not record how it was trained: take one that a study saved (save_models: all or first)"
        )
    source = SourceMap(str(place / "bundle.json"))
    with read_recorded_extensions([*extensions, *_find_database(place, training, extensions)]):
        candidate, *members = (
            validate_as(Candidate, plain, source, ("training", "candidate"))
            for plain in (training["candidate"], *training.get("members", ()))
        )
        data = validate_as(DataSpec, training["data"], source, ("training", "data"))
    recorded = training.get("recording_view")
    view = validate_as(BundleView, recorded, source, ("training", "recording_view")) if recorded else None
    if data.source_record.holds_recordings and view is None:
        raise WeightsError(f"bundle {place} does not record how its recordings become images: train it again")
    model = classifiers.load_classifier(place, extensions)
    if len(model.members) != max(len(members), 1):
        raise WeightsError(f"{place / 'bundle.json'} does not describe a bundle; save the classifier again")
    for member, of in zip(model.members, members or [candidate], strict=True):
        if of.recipe.channels_last:
            member.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    refit = training.get("refit")
    record = validate_as(RefitRecord, refit, source, ("training", "refit")) if refit else None
    return Bundle(place, model, candidate, data, view, record, tuple(members))


def _find_database(place: Path, training: dict[str, Any], given: Sequence[Extension]) -> list[Database]:
    """The Database of the user's own that the bundle was trained on, where it was passed or its recorded code is trusted."""
    entry = training.get("database")
    if not entry or not (is_code_trusted() or any(isinstance(e, Database) and e.name == entry["name"] for e in given)):
        return []
    try:
        return [find_code(f"bundle {place}", Database, entry, given)]
    except KeyError:
        raise WeightsError(f"{place / 'bundle.json'} does not describe a bundle; save the classifier again") from None


def predict_paths(
    bundle: Bundle,
    paths: Sequence[Path],
    *,
    device: str = "auto",
    on_bad_input: OnBadInput = "skip",
    views: TtaViews | None = None,
    progress: ProgressFunction | None = None,
) -> BundlePredictions:
    """Predicts every image of files and folders, or every window of recordings, their folders and manifests.

    device:       "auto", "cpu", "cuda" or "mps"
    on_bad_input: "skip": what cannot be read is listed and the rest is predicted · "stop": the first such input is an error
    views:        test-time augmentation (None: that of the recipe, with which the study evaluated it)
    progress:     called with (rows done, rows in all)

    Raises DataError for bad input under "stop", and where nothing can be read; SpecError for views the bundle cannot make.
    """
    there, missing = find_paths(paths, on_bad_input)
    dataset = open_inputs(bundle, there, on_bad_input)
    predicted = predict_dataset(bundle, dataset, device=device, on_bad_input=on_bad_input, views=views, progress=progress)
    return replace(predicted, problems=(*missing, *predicted.problems))


def predict_dataset(
    bundle: Bundle,
    dataset: Dataset,
    *,
    device: str = "auto",
    on_bad_input: OnBadInput = "skip",
    views: TtaViews | None = None,
    progress: ProgressFunction | None = None,
) -> BundlePredictions:
    """As `predict_paths`, of a Dataset whose pictures or windows are made as in the bundle's study."""
    predict_squares = make_square_predictor(bundle, resolve_device(device), views)
    rows, logits, problems, done = [], [], list(dataset.problems), 0
    for chunk in decode_chunks(bundle, dataset, on_bad_input):
        problems += chunk.problems
        if len(chunk.rows):
            rows.append(chunk.rows)
            logits.append(predict_squares(chunk.pixels))
        done += len(chunk.rows) + len(chunk.problems)
        if progress:
            progress(done, len(dataset))
    if not rows:
        raise DataError(describe_unreadable(dataset.name, len(dataset), problems))
    kept = dataset.select_rows(np.concatenate(rows))
    told = tuple(problems), tuple(note_prediction_limits(bundle, kept))
    return BundlePredictions(
        kept, bundle.classes, np.concatenate(logits), *told, bundle.temperature, bundle.rule, bundle.multi_label
    )


def make_square_predictor(
    bundle: Bundle, device: torch.device, views: TtaViews | None = None, dtype: torch.dtype | None = None
) -> Callable[[Pixels], NDArray[np.float32]]:
    """The function that predicts squares: (N, 3, S, S) pixels → (N, C) logits, with the views and precision of the bundle.

    views: None: those with which the study evaluated it · dtype: None: that of its recipe. Raises what `choose_views` raises.
    """
    # A frozen candidate was trained on features computed in float32, so its predictions are too.
    dtypes = [
        dtype or (torch.float32 if candidate.stores_features else resolve_autocast_dtype(candidate.recipe, device))
        for candidate in bundle.member_candidates
    ]
    parts = list(zip(bundle.model.to(device).members, choose_views(bundle, views), dtypes, strict=True))

    def predict_squares(pixels: Pixels) -> NDArray[np.float32]:
        rows = np.arange(len(pixels), dtype=np.int64)
        logits = [predict_from_pixels(model, pixels, rows, device, chosen, dtype)[0] for model, chosen, dtype in parts]
        return logits[0] if len(logits) == 1 else average_probabilities(logits, bundle.model.member_weights, bundle.multi_label)

    return predict_squares


def choose_views(bundle: Bundle, views: TtaViews | None) -> tuple[TtaViews, ...]:
    """The views of each member: those asked for, or (None) those with which the study evaluated it.

    Raises SpecError for ten crops of one that was trained on complete images.
    """
    chosen = tuple(candidate.recipe.tta if views is None else views for candidate in bundle.member_candidates)
    if any(of == "ten-crop" and m.spec.center_crop is None for of, m in zip(chosen, bundle.model.members, strict=True)):
        raise SpecError(
            f"views: bundle {bundle.folder} was trained on complete images, without center_crop, and ten-crop needs one; "
            "choose flip or none"
        )
    return chosen


def open_inputs(bundle: Bundle, paths: Sequence[Path], on_bad_input: OnBadInput) -> Dataset:
    """Images, or recordings, at paths → the Dataset that the bundle predicts. Raises DataError, as `predict_paths` does."""
    if bundle.recording_view is None:
        return apply_options(open_pictures(paths, bundle.classes, on_bad_input), bundle.data.picture_options)
    database = find_prediction_database(bundle.data, bundle.data.source)
    changes = RecordingChanges.of(bundle.data)
    try:
        return open_recording_files(paths, bundle.recording_view, database, bundle.classes, on_bad_input, changes)
    except DataError as error:
        missing = bundle.data.database
        if missing is None or missing.has_reader:
            raise
        raise DataError(
            f"{error}; the study read its files by the Database '{missing.name}' of its own: say --trust-code if you have read "
            "its module, or pass the object as extensions=[...]"
        ) from None


def decode_chunks(bundle: Bundle, dataset: Dataset, on_bad_input: OnBadInput) -> Iterator[DecodedChunk]:
    """The squares that the bundle is given, by all cores. Raises DataError for bad input under "stop"."""
    return decode_in_chunks(dataset, bundle.data.square_resize(bundle.model.spec.picture), on_bad_input, count_usable_cores())


def note_prediction_limits(bundle: Bundle, dataset: Dataset, met: TrainedOn | None = None) -> Iterator[str]:
    """Facts that a reader of the predictions of these rows must know. met: the rows it was trained on, where they are known"""
    name, ids, _ = met or read_trained_on(bundle.folder)
    if seen := int(np.isin(dataset.hashed_ids, ids).sum()):
        yield (
            f"{seen} of {len(dataset)} have ids of rows of {name} the bundle was trained on; if these are the same data, their "
            "predictions say nothing about new data"
        )
    if bundle.recording_view is not None and bundle.recording_view.view.pools_grey_scale:
        yield "the grey scale of a subject spans the windows given now; in the study it spanned all windows of the subject"
    if bundle.refit is not None:
        yield f"probabilities are calibrated by a temperature of {bundle.refit.temperature:.3f}, fitted in the study"
    yield from dataset.notes


def _find_bundle(folder: Path) -> Path:
    for place in (folder, folder / "bundle"):
        if (place / "bundle.json").is_file():
            return place
    kept = sorted(folder.glob("runs/*/bundle/bundle.json"))
    if len(kept) == 1:
        return kept[0].parent
    if kept:
        there = join_words([str(k.parent) for k in kept], 6)
        raise WeightsError(
            f"{folder} is a results folder with {len(kept)} bundles of single runs; make the one to use by `phoropter refit "
            f"{folder} -o BUNDLE`, or give one of them: {there}"
        )
    raise WeightsError(f"{folder} is no bundle: expected a folder with bundle.json, which `phoropter refit` makes of a study")
