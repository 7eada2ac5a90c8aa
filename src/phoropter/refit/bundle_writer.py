"""Writes the bundle of a classifier made after its study: weights, bundle.json, rows it has met, card, and what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.extensions import collect_extensions, describe_code
from phoropter.core.files import write_text
from phoropter.data.images.pixels import Pixels
from phoropter.data.recordings.bundle_view import get_bundle_view
from phoropter.deploy.mlflow_model import write_mlmodel
from phoropter.deploy.predict import Bundle
from phoropter.deploy.timm_layout import make_timm_module, write_timm_layout
from phoropter.models import classifier as classifiers
from phoropter.models.weights.bundle_files import EXAMPLES_FOLDER
from phoropter.refit.card import write_bundle_card
from phoropter.refit.examples import choose_example_rows, write_examples
from phoropter.refit.finished_study import FinishedStudy
from phoropter.refit.made_classifier import MadeClassifier
from phoropter.study.records.run_record import describe_training
from phoropter.study.records.study_record import collect_versions
from phoropter.training.candidates.refit_record import RefitRecord
from phoropter.training.distillation import digest_classifier
from phoropter.training.trained_on import initial_bundles, write_trained_on

TIMM_FOLDER = "timm"


@dataclass(frozen=True)
class BundleContents:
    """What a bundle holds beside the classifier.

    examples: how many held-out rows of the study (of recordings: recordings) are copied into it · timm: timm's own layout, too
    onnx: an ONNX file, by which `predict` answers without torch
    """

    examples: int = 0
    timm: bool = False
    onnx: bool = False


class BundleWriter:
    """Writes bundles of classifiers of a study. open_pixels: opens its images, where examples are wanted"""

    def __init__(self, study: FinishedStudy, contents: BundleContents, open_pixels: Callable[[MadeClassifier], Pixels]) -> None:
        self.study, self.contents, self.open_pixels = study, contents, open_pixels

    def check_contents(self, made: MadeClassifier) -> NDArray[np.int64]:
        """The rows that become examples. Raises SpecError for contents that this classifier cannot have."""
        if self.contents.timm:
            make_timm_module(made.model)
        if not self.contents.examples:
            return np.empty(0, dtype=np.int64)
        splits = [run.split for run in self.study.planned_runs(made.run.candidate.name)]
        parts = [rows for split in splits for rows in (split.test, split.external) if rows is not None]
        return choose_example_rows(made.run.image_set.dataset, np.unique(np.concatenate(parts)), self.contents.examples)

    def write_bundle(self, out: Path, made: MadeClassifier, record: RefitRecord) -> None:
        """Writes the bundle's folder, complete or not at all. Raises SpecError, DataError, StoreError, DiskError."""
        rows = self.check_contents(made)
        training = self._describe(made, record)
        add_files = partial(self._add_files, made=made, record=record, rows=rows)
        classifiers.save_classifier(made.model, out, training=training, add_files=add_files)

    def _describe(self, made: MadeClassifier, record: RefitRecord) -> dict[str, Any]:
        """What bundle.json says under `training`."""
        run, members = made.run, made.member_candidates
        code = dict.fromkeys(collect_extensions([run.image_set.data, run.candidate, *made.candidates]))
        return {
            **describe_training(run),
            **({"members": [candidate.plain() for candidate in members]} if members else {}),
            **({"code": [describe_code(extension) | {"kind": extension.noun} for extension in code]} if code else {}),
            "versions": collect_versions(),
            "digests": {"dataset": run.image_set.dataset.fingerprint, "classifier": digest_classifier(made.model)},
            "refit": record.plain(),
        }

    def _add_files(self, folder: Path, *, made: MadeClassifier, record: RefitRecord, rows: NDArray[np.int64]) -> None:
        dataset, base = made.run.image_set.dataset, self.study.planned.study.base
        if any(candidate.recipe.phases for candidate in made.candidates):
            before = dict.fromkeys(path for candidate in made.candidates for _, path in initial_bundles(candidate, base))
            write_trained_on(folder, dataset, made.seen_rows, before)
        data, view = made.run.image_set.data, get_bundle_view(dataset)
        described = folder, made.model.spec, made.run.candidate, data, view, record, made.member_candidates
        bundle = Bundle(*described, model=made.model)
        if len(rows):
            write_examples(folder / EXAMPLES_FOLDER, bundle, dataset, self.open_pixels(made), rows)
        if self.contents.timm:
            write_timm_layout(made.model, data.square_resize(made.model.spec.picture), folder / TIMM_FOLDER)
        write_mlmodel(folder, bundle)
        write_text(folder / "README.md", write_bundle_card(self.study.summary, made, record, has_timm=self.contents.timm))
