"""A finished classifier as one Python object: load it from its bundle, give it anything, get probabilities.

>>> model = ph.load("bundle")                                                      # doctest: +SKIP
>>> model.predict(["new/1.png", "new/2.png"]).probabilities                        # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phoropter.core.errors import DataError
from phoropter.core.extensions import Extension
from phoropter.data.dataset import Dataset
from phoropter.data.images.options import apply_options
from phoropter.data.recordings.changes import RecordingChanges
from phoropter.deploy.examples import BundleExample, read_examples
from phoropter.deploy.explain.class_maps import MapMethod
from phoropter.deploy.explain.explain import ExplainOptions, explain_dataset
from phoropter.deploy.explain.explanation import Explanation
from phoropter.deploy.inputs import find_paths, open_loaded_recordings
from phoropter.deploy.memory_inputs import list_inputs, make_picture_dataset
from phoropter.deploy.predict import Bundle, open_bundle, predict_dataset, predict_paths
from phoropter.deploy.predictions import BundlePredictions, decode_chunks, open_inputs
from phoropter.deploy.timm_layout import make_timm_module
from phoropter.models.classifier import Classifier
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording
from phoropter.training.candidates.recipe import TtaViews
from phoropter.training.candidates.refit_record import RefitRecord


class Predictor(Bundle):
    """A loaded bundle that predicts: all that its study knows of how inputs are prepared is in it.

    classes: C names, in the order of the probabilities · model, classifier: the network, in eval mode
    """

    @property
    def classifier(self) -> Classifier:
        """The torch module: (B, 3, S, S) uint8 → (B, C) logits."""
        return self.model

    @property
    def positive_class(self) -> str | None:
        """The class that is looked for: the one that the study names, of two classes else the second."""
        return self.rule.positive

    @property
    def description(self) -> RefitRecord | None:
        """How the classifier was made after its study, with the study's estimate; None for the model of one run."""
        return self.refit

    @property
    def threshold(self) -> float | None:
        """Of the positive class's probability, from which it is decided for; None: the likeliest class is the answer."""
        return self.rule.threshold

    @property
    def examples(self) -> list[BundleExample]:
        """Copies of some of the study's data that travel with it, where `refit --examples` put some there."""
        return read_examples(self.folder)

    @property
    def aggregation(self) -> str:
        """The rule over the windows of a recording or a subject."""
        return self.rule.aggregation

    def predict(
        self, x: Any, *, device: str = "auto", views: TtaViews | None = None, on_bad_input: OnBadInput = "stop"
    ) -> BundlePredictions:
        """Predicts paths, PIL images, arrays, tensors or recordings, one or a list of one kind, or a DataFrame of paths.

        x:     arrays are (H, W[, C]) or a batch (N, H, W, C), tensors (C, H, W) or (N, C, H, W), uint8 or float in 0..1; a path
               may be a folder or a manifest; a DataFrame has its paths in the column `path`
        views: test-time augmentation: none, flip or ten-crop (None: as the study evaluated it)

        The predictions name their inputs in `dataset.ids`: paths, or numbers from 0. Raises DataError for an input that cannot be
        used, unless on_bad_input is "skip", which lists it in `problems`.
        """
        items = list_inputs(x)
        if all(isinstance(item, (str, Path)) for item in items):
            paths = [Path(item) for item in items]
            return predict_paths(self, paths, device=device, on_bad_input=on_bad_input, views=views)
        dataset = self._open_objects(items, on_bad_input)
        return predict_dataset(self, dataset, device=device, on_bad_input=on_bad_input, views=views)

    def explain(
        self,
        x: Any,
        *,
        target: int | str | Sequence[int | str] | None = None,
        method: MapMethod = "auto",
        layer: str | Mapping[str, str] | None = None,
        device: str = "auto",
        views: TtaViews | None = None,
        on_bad_input: OnBadInput = "stop",
    ) -> list[Explanation]:
        """Where the evidence for a class lies, in each of the inputs that `predict` takes, in their order.

        target: name or index of the class, or one of each input (None: the likeliest of each)
        method: auto, grad-cam, token-gradient, gradient-rollout or rollout (deploy/explain/class_maps.py)
        layer:  a layer's name as in `named_modules` of the network, such as "blocks.3"; of a fusion {branch: name}
        views:  as in `predict`; the maps of several are averaged where they lie

        Inputs that cannot be used raise DataError, or are left out with on_bad_input="skip". Raises SpecError for an unknown
        class, method or layer, and for a network in which no map is found.
        """
        items = list_inputs(x)
        if all(isinstance(item, (str, Path)) for item in items):
            there, _ = find_paths([Path(item) for item in items], on_bad_input)
            dataset = open_inputs(self, there, on_bad_input)
        else:
            dataset = self._open_objects(items, on_bad_input)
        options = ExplainOptions(target, method, layer, views, device)
        return [e for e in explain_dataset(self, dataset, options, on_bad_input) if isinstance(e, Explanation)]

    def to_timm(self) -> torch.nn.Module:
        """timm's own network with these weights: (B, 3, s, s) normalised → (B, C) logits. Raises SpecError where it has none."""
        return make_timm_module(self.model)

    def preprocess(self, x: Any) -> torch.Tensor:
        """Images or recordings in memory, as `predict` takes them → (N, 3, S, S) uint8, what the classifier is given."""
        dataset = self._open_objects(list_inputs(x), "stop")
        chunks = decode_chunks(self, dataset, "stop")
        return torch.from_numpy(np.concatenate([chunk.pixels.array for chunk in chunks]))

    def _open_objects(self, items: list[Any], on_bad_input: OnBadInput) -> Dataset:
        recordings = [item for item in items if isinstance(item, Recording)]
        if len(recordings) not in (0, len(items)):
            raise DataError("recordings and other inputs came together; predict each kind by a call of its own")
        if bool(recordings) != (self.recording_view is not None):
            expected = "images" if self.recording_view is None else "recordings"
            raise DataError(f"the bundle {self.folder} predicts {expected}, and {type(items[0]).__name__} came")
        if self.recording_view is None:
            return apply_options(make_picture_dataset(items, self.classes), self.data.picture_options)
        loaded = RecordingChanges.of(self.data).apply(LoadedRecordings(recordings, []), on_bad_input)
        return open_loaded_recordings(loaded, self.recording_view, self.classes, on_bad_input, "inputs")


def load_bundle(folder: Path | str, extensions: Sequence[Extension] = ()) -> Predictor:
    """Loads a bundle from its folder, or from a run or results folder that holds exactly one.

    extensions: the Backbones and the Database it needs, where they are your own; those of its training alone (loss, augmentation
    steps) may be left out, and so may the Database of a bundle that will only read files of common formats
    Raises WeightsError for a folder without a bundle, and for missing or changed code.
    """
    bundle = open_bundle(folder, extensions)
    return Predictor(**{field.name: getattr(bundle, field.name) for field in fields(bundle)})


load = load_bundle  # its public name: `ph.load`
