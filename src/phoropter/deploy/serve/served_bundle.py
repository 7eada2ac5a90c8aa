"""A bundle that is served: its predictor, its name in addresses, and what the page says of it in words."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phoropter.core.errors import SpecError
from phoropter.data.images.decode import SquareResize
from phoropter.data.images.pixels import InMemoryPixels
from phoropter.data.recordings.views import ChannelView
from phoropter.deploy.bundle import Predictor, load_bundle
from phoropter.deploy.engines import choose_export
from phoropter.deploy.examples import BundleExample, read_examples
from phoropter.deploy.export.bundled_export import BundledExport, make_export_predictor
from phoropter.deploy.predict import make_square_predictor
from phoropter.deploy.predictions import SquarePredictor
from phoropter.deploy.serve.uploads import clean_upload_name
from phoropter.results.metrics.registry import METRICS
from phoropter.training.candidates.refit_record import StudyFigure
from phoropter.training.trained_on import TrainedOn, read_trained_on

_NAMELESS = {"bundle", "runs", ""}  # of folders: their parent's name says more


@dataclass(frozen=True, eq=False)
class ServedBundle:
    """name: in `?bundle=` · square: how a picture becomes what the network is shown · predict_squares: squares → logits
    export: the bundle's ONNX file, where that computes the answers and not the predictor's network"""

    name: str
    predictor: Predictor
    square: SquareResize
    predict_squares: SquarePredictor
    export: BundledExport | None = None

    @property
    def takes_recordings(self) -> bool:
        return self.predictor.recording_view is not None

    @cached_property
    def trained_on(self) -> TrainedOn:
        """The rows it has met, read once."""
        return read_trained_on(self.predictor.folder)

    @cached_property
    def examples(self) -> dict[str, BundleExample]:
        """Name of the file → the study's example that travels with the bundle."""
        return {example.file.name: example for example in read_examples(self.predictor.folder)}


def open_served_bundles(folders: Sequence[Path], device: torch.device) -> list[ServedBundle]:
    """The bundles in the order given; two of one name get numbers. Raises WeightsError, and SpecError for none."""
    if not folders:
        raise SpecError("there is no bundle to serve; name at least one")
    served: list[ServedBundle] = []
    for folder in folders:
        predictor = load_bundle(folder)
        square = predictor.data.square_resize(predictor.model.spec.picture)
        name = _free_name(folder, {bundle.name for bundle in served})
        export = choose_export(predictor, device.type)
        predict = make_square_predictor(predictor, device) if export is None else make_export_predictor(predictor, export)
        bundle = ServedBundle(name, predictor, square, predict, export)
        _warm_up(bundle)
        served.append(bundle)
    return served


def _warm_up(bundle: ServedBundle) -> None:
    """What the first request would wait for seconds: kernels of the network, and the packages that read recordings."""
    bundle.predict_squares(InMemoryPixels(np.zeros((1, 3, bundle.square.size, bundle.square.size), dtype=np.uint8)))
    if bundle.takes_recordings:
        for package in ("pandas", "pyarrow.parquet", "scipy.signal", "wfdb"):
            with suppress(ImportError), warnings.catch_warnings():  # a format whose package is missing is refused by its reader
                warnings.simplefilter("ignore")
                import_module(package)


def _free_name(folder: Path, taken: set[str]) -> str:
    parts = [part for part in folder.absolute().parts if part not in _NAMELESS]
    name = "".join(
        letter if letter.isalnum() or letter in "-_." else "-" for letter in clean_upload_name(parts[-1] if parts else "bundle")
    )
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def describe_served_bundle(bundle: ServedBundle) -> dict[str, Any]:
    """What a client needs to know of a bundle, as plain data (see `BundleDescription` of answers.py)."""
    predictor = bundle.predictor
    record = predictor.description
    return {
        "name": bundle.name,
        "title": _title_of(bundle),
        "takes": describe_inputs(bundle),
        "recordings": bundle.takes_recordings,
        "classes": list(predictor.classes),
        "positive_class": predictor.positive_class,
        "threshold": predictor.threshold,
        "aggregation": predictor.aggregation,
        "temperature": predictor.temperature,
        "architecture": [branch.architecture for branch in predictor.model.branches],
        "size": bundle.square.size,
        "reliability": [*describe_study_evidence(predictor), *_describe_engine(bundle)],
        "estimate": None if record is None else record.evidence.figure.plain(),
        "examples": [{"name": name, "label": example.label} for name, example in bundle.examples.items()],
    }


def _describe_engine(bundle: ServedBundle) -> list[str]:
    return [] if bundle.export is None else [f"Answers are {bundle.export.describe_answers()}."]


def _title_of(bundle: ServedBundle) -> str:
    record = bundle.predictor.description
    return bundle.predictor.candidate.name if record is None else f"{record.evidence.candidate} of {record.evidence.study}"


def describe_inputs(bundle: ServedBundle) -> str:
    """Which files it takes, in one sentence."""
    view = bundle.predictor.recording_view
    if view is None:
        return "Pictures: JPEG, PNG, TIFF, WebP, BMP, GIF, DICOM."
    what = f"the channel {view.view.channel}" if isinstance(view.view, ChannelView) else "the channels FHR and UC"
    at = bundle.predictor.data.resample_hz
    rate = f"any rate, brought to {at:g} Hz" if at else f"{view.rate_hz:g} Hz"
    return f"Recordings with {what} at {rate}: WFDB (.hea with its .dat), EDF, BDF, CSV or Parquet."


def describe_study_evidence(predictor: Predictor) -> list[str]:
    """How far the answers can be trusted, by the bundle's study: sentences for a reader, the first with the estimate."""
    record = predictor.description
    if record is None:
        return [
            "This is the model of one run of a study and carries no estimate of its own: the study's report has it. Its "
            "probabilities are not calibrated."
        ]
    evidence, figure = record.evidence, record.evidence.figure
    metric = METRICS.get(figure.metric)
    title = (
        figure.metric
        if metric is None
        else metric.title
        if metric.is_proper_name
        else metric.title[:1].lower() + metric.title[1:]
    )
    models = f"{evidence.n_runs} models" if evidence.n_runs > 1 else "one model"
    rows = f"{evidence.n_rows:,} predictions of {models} for rows they had not been trained on"
    if figure.value is None:
        sentences = [f"Its study has no {title} of this classifier's recipe: it is not defined on {rows}."]
    else:
        reached = f"{title} {_format_figure(figure, figure.value)}{_format_interval(figure)}"
        sentences = [f"In its study this classifier's recipe reached {reached} on {rows}."]
    sentences.append("That holds for new data that resemble the study's, and says nothing of others.")
    if record.temperature != 1:
        sentences.append("Probabilities are calibrated on the study's held-out predictions.")
    return sentences


def _format_figure(figure: StudyFigure, value: float) -> str:
    metric = METRICS.get(figure.metric)
    return f"{value * 100:.1f} %" if metric is not None and metric.percent else f"{value:.3f}"


def _format_interval(figure: StudyFigure) -> str:
    if figure.low is None or figure.high is None:
        return " (too few independent units for an interval)"
    return f" (95 % interval {_format_figure(figure, figure.low)} to {_format_figure(figure, figure.high)})"
