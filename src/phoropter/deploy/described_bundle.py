"""A bundle as its bundle.json describes it: the candidate, how its inputs become squares, what it decides by. No torch is loaded.

What computes its answers is added by whoever opens it: the torch network (predict.py), or its export (export/bundled_export.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoropter.core.errors import WeightsError, join_words
from phoropter.core.extensions import Extension, find_code, is_code_trusted, read_recorded_extensions
from phoropter.core.spec import SourceMap, validate_as
from phoropter.data.recordings.bundle_view import BundleView
from phoropter.data.recordings.database import Database
from phoropter.data.spec import DataSpec
from phoropter.deploy.decision import DecisionRule
from phoropter.models.bundle_description import read_bundle_description
from phoropter.models.spec import ClassifierSpec
from phoropter.models.weights.weight_files import read_sidecar_json
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.refit_record import RefitRecord


@dataclass(frozen=True, eq=False)
class DescribedBundle:
    """A classifier's spec, its candidate and training data, and how its recordings become images (None: its inputs are images).

    refit: how it was made after its study, with the study's estimate and a temperature; None for the model of one run
    members: of an average of classifiers, the candidate that each was trained as
    """

    folder: Path
    spec: ClassifierSpec
    candidate: Candidate
    data: DataSpec
    recording_view: BundleView | None
    refit: RefitRecord | None = None
    members: tuple[Candidate, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.spec.classes

    @property
    def multi_label(self) -> bool:
        """Whether an input may have several of the classes."""
        return self.spec.multi_label

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


def read_described_bundle(folder: Path | str, extensions: Sequence[Extension] = ()) -> DescribedBundle:
    """Reads the bundle.json of a bundle, of its folder or of a run or results folder that holds exactly one.

    extensions: as of `open_bundle`; networks of your own that are not among them stay names
    Raises WeightsError for a folder without a bundle, and for one that does not say how it was trained.
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
    described = read_bundle_description(place, extensions)
    if len(described.members) != len(members):
        raise WeightsError(f"{place / 'bundle.json'} does not describe a bundle; save the classifier again")
    refit = training.get("refit")
    record = validate_as(RefitRecord, refit, source, ("training", "refit")) if refit else None
    return DescribedBundle(place, described.spec, candidate, data, view, record, tuple(members))


def _find_database(place: Path, training: dict[str, Any], given: Sequence[Extension]) -> list[Database]:
    """The Database of the user's own that the bundle was trained on, where it was passed or its recorded code is trusted."""
    entry = training.get("database")
    if not entry or not (is_code_trusted() or any(isinstance(e, Database) and e.name == entry["name"] for e in given)):
        return []
    try:
        return [find_code(f"bundle {place}", Database, entry, given)]
    except KeyError:
        raise WeightsError(f"{place / 'bundle.json'} does not describe a bundle; save the classifier again") from None


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
