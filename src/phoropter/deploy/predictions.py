"""Predictions of a bundle by whatever computes its logits: inputs → squares → probabilities and decisions. No torch is loaded.

Left out: the network (predict.py), its export (export/bundled_export.py), and files of predictions (tables.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import DataError, InputProblem
from phoropter.data.dataset import Dataset
from phoropter.data.images.options import apply_options
from phoropter.data.images.pixels import Pixels
from phoropter.data.recordings.changes import RecordingChanges
from phoropter.data.recordings.files import find_prediction_database
from phoropter.deploy.decision import DecisionRule, MeanProbabilities
from phoropter.deploy.described_bundle import DescribedBundle
from phoropter.deploy.inputs import (
    DecodedChunk,
    decode_in_chunks,
    describe_unreadable,
    find_paths,
    open_pictures,
    open_recording_files,
)
from phoropter.results.metrics.probabilities import to_probabilities
from phoropter.signals.recording import OnBadInput
from phoropter.training.trained_on import TrainedOn, read_trained_on

ProgressFunction = Callable[[int, int], None]  # (rows done, rows in all)
SquarePredictor = Callable[[Pixels], NDArray[np.float32]]  # (N, 3, S, S) squares → (N, C) logits


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


def predict_files(
    bundle: DescribedBundle,
    predict_squares: SquarePredictor,
    paths: Sequence[Path],
    on_bad_input: OnBadInput = "skip",
    progress: ProgressFunction | None = None,
) -> BundlePredictions:
    """Predicts every image of files and folders, or every window of recordings, their folders and manifests.

    predict_squares: computes the answers
    on_bad_input: "skip": what cannot be read is listed and the rest is predicted · "stop": the first such input is an error
    progress:     called with (rows done, rows in all)

    Raises DataError for bad input under "stop", and where nothing can be read.
    """
    there, missing = find_paths(paths, on_bad_input)
    predicted = predict_rows_of(bundle, predict_squares, open_inputs(bundle, there, on_bad_input), on_bad_input, progress)
    return replace(predicted, problems=(*missing, *predicted.problems))


def predict_rows_of(
    bundle: DescribedBundle,
    predict_squares: SquarePredictor,
    dataset: Dataset,
    on_bad_input: OnBadInput = "skip",
    progress: ProgressFunction | None = None,
) -> BundlePredictions:
    """As `predict_files`, of a Dataset whose pictures or windows are made as in the bundle's study."""
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


def open_inputs(bundle: DescribedBundle, paths: Sequence[Path], on_bad_input: OnBadInput) -> Dataset:
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


def decode_chunks(bundle: DescribedBundle, dataset: Dataset, on_bad_input: OnBadInput) -> Iterator[DecodedChunk]:
    """The squares that the bundle is given, by all cores. Raises DataError for bad input under "stop"."""
    return decode_in_chunks(dataset, bundle.data.square_resize(bundle.spec.picture), on_bad_input, count_usable_cores())


def note_prediction_limits(bundle: DescribedBundle, dataset: Dataset, met: TrainedOn | None = None) -> Iterator[str]:
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
