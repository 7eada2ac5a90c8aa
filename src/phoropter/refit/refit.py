"""`phoropter refit`: from the results folder of a study to a bundle for use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from phoropter.core.errors import SpecError, StoreError, WeightsError
from phoropter.core.extensions import Extension
from phoropter.core.files import require_writable_place, temporary_folder
from phoropter.deploy.export.export_into_bundle import export_into_bundle
from phoropter.deploy.predict import open_bundle
from phoropter.models.inference.onnx_exporter import require_onnx_packages
from phoropter.refit.bundle_writer import BundleContents, BundleWriter
from phoropter.refit.evidence import describe_refit
from phoropter.refit.finished_study import FinishedStudy, open_finished_study
from phoropter.refit.fold_models import FoldCollector
from phoropter.refit.held_out import find_bundle_rows
from phoropter.refit.train_all import FullTrainer
from phoropter.study.compute import open_pixels
from phoropter.study.progress import ProgressCallback
from phoropter.training.candidates.refit_record import RefitRecord


@dataclass(frozen=True)
class RefitOptions:
    """How a classifier is made after its study.

    candidate:  its name on the leaderboard; None: the first
    how:        all: trained anew on all rows of the study · folds: the study's own models, their probabilities averaged
    contents:   what the bundle holds beside it
    extensions: code of the user's own that the study uses, where it is not trusted by name
    data:       the object that was the study's data, where it was one (arrays, a DataFrame, a torch dataset …), or the path of
                its data where they were moved; the runs say whether these are the same data
    """

    candidate: str | None = None
    how: Literal["all", "folds"] = "all"
    contents: BundleContents = field(default_factory=BundleContents)
    extensions: Sequence[Extension] = ()
    data: Any = None


def refit_candidate(
    folder: Path, out: Path, options: RefitOptions, device: torch.device, on_progress: ProgressCallback
) -> RefitRecord:
    """Writes the bundle of a candidate of a finished study, and returns what it says of itself.

    Raises StoreError for an unfinished study, another version of its data, or an `out` that exists; SpecError for a candidate
    that is not there, and for contents it cannot have; WeightsError for missing or changed code; and what training raises.
    Nothing is written unless it is complete; only the ONNX file comes last, and without it the bundle is kept.
    """
    if out.exists():
        raise StoreError(f"{out} exists already; give the bundle a new name")
    require_writable_place(out)
    if options.contents.onnx:
        require_onnx_packages("exporting a bundle to ONNX")
    study = open_finished_study(folder, on_progress, options.extensions, options.data)
    candidate = study.find_candidate(options.candidate)
    writer = BundleWriter(study, options.contents, lambda made: open_pixels(made.run.image_set, study.cache, on_progress))
    with temporary_folder("refit") as work:
        if options.how == "folds":
            made = FoldCollector(study, device, on_progress).average_folds(candidate.name)
        else:
            made = FullTrainer(study, device, work, on_progress).make_classifier(candidate.name)
        record = describe_refit(study, candidate, made)
        writer.write_bundle(out, made, record)
    if options.contents.onnx:
        _add_onnx_file(study, out, options.extensions, on_progress)
    return record


def _add_onnx_file(study: FinishedStudy, out: Path, extensions: Sequence[Extension], on_progress: ProgressCallback) -> None:
    """Writes the ONNX file of a bundle into it, proved on held-out rows. Raises WeightsError where no file equals the bundle."""
    bundle = open_bundle(out, extensions)
    try:
        export_into_bundle(bundle, find_bundle_rows(study, bundle, on_progress).find_proof_inputs())
    except (WeightsError, SpecError) as error:
        raise type(error)(f"{error}; the bundle {out} is complete without it") from None
