"""Opens the data of a study and checks all that can be checked before an image is decoded. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phoropter.core.errors import PhoropterError, SpecError, WeightsError, did_you_mean
from phoropter.core.files import cache_dir, digest
from phoropter.data.dataset import Dataset
from phoropter.data.images.cache import load_cached_pixels
from phoropter.data.shift.shifted_rows import resolve_corruptions
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.splits.protocol import Split, make_splits
from phoropter.data.stores.store_copy import ask_stores_once
from phoropter.data.subgroups import read_stated_subgroups
from phoropter.models import catalog
from phoropter.models.inference.onnx_exporter import require_onnx_packages
from phoropter.models.spec import DEFAULT_INPUT_SIZE, BackboneSpec
from phoropter.models.weights import weight_files
from phoropter.results.metrics.registry import check_metrics
from phoropter.study.spec import StudySpec
from phoropter.study.variants.control_studies import check_controls
from phoropter.study.variants.default_seeds import settle_seeds
from phoropter.study.variants.idle_recipe import note_idle_words
from phoropter.study.variants.multi_label_uses import check_label_uses, settle_label_metrics
from phoropter.study.variants.positive_uses import check_positive_uses
from phoropter.study.variants.setting_effects import setting_affects
from phoropter.study.variants.sweep import SweepVariant, add_settings_to_name, expand_sweep
from phoropter.study.variants.tuning import Trial, list_trials
from phoropter.study.variants.unusable_weights import UnusableWeights
from phoropter.training.candidates.candidate import Candidate, find_conflict
from phoropter.training.candidates.recipe import FEATURE_FIELDS
from phoropter.training.tables.id_table import digest_table_file
from phoropter.training.tables.metadata_features import digest_metadata
from phoropter.training.trained_on import raise_on_bundle_leak


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A dataset and the size its images are stored at, as one variant of a study uses them.

    image_size: side of the stored square images in pixels · decoded: whether they are in the cache already
    """

    data: DataSpec
    dataset: Dataset
    image_size: int
    decoded: bool

    @property
    def identity(self) -> list[Any]:
        return [self.dataset.fingerprint, self.image_size, self.data.resize, self.data.interpolation]

    @property
    def has_settled_rows(self) -> bool:
        """Whether no row can be lost when its images are decoded, by which run keys would change."""
        return self.decoded or self.data.on_bad_input == "stop"


@dataclass(frozen=True, eq=False)
class LoadedVariant:
    """One variant of a study with its data opened and every check done that needs no decoded image.

    candidates: name in the study (a sweep lengthens names) → the candidate with its weights found, and the settings that touch it
    trials: name in the study → what is tried on inner folds of each training part, for a candidate that is tuned
    """

    study: StudySpec
    candidates: dict[str, tuple[Candidate, dict[str, Any]]]
    image_set: ImageSet
    splits: list[Split]
    trials: dict[str, tuple[Trial, ...]] = field(default_factory=dict)

    def with_image_set(self, image_set: ImageSet) -> LoadedVariant:
        """The same on a dataset that may have lost rows, which is then split again. Raises SplitError, LeakageError."""
        if image_set.dataset.fingerprint == self.image_set.dataset.fingerprint:
            return replace(self, image_set=image_set)
        splits = _make_checked_splits(self.study, image_set.dataset, self.candidates, self.trials)
        return replace(self, image_set=image_set, splits=splits)


def load_study(study: StudySpec, cache: Path | None = None) -> list[LoadedVariant]:
    """A study → its variants, one for each combination of its sweeps, with their data opened but not decoded.

    Every name, weight file, split and option is checked here, before anything is computed.
    Raises SpecError, DataError, SplitError, WeightsError, LeakageError.
    """
    cache = cache or cache_dir()
    opened: dict[tuple[str, int], ImageSet] = {}
    with ask_stores_once():
        variants = [_load_variant(study, variant, opened, cache) for variant in expand_sweep(study)]
    _raise_on_idle_sweep(study, variants)
    return variants


def _raise_on_idle_sweep(study: StudySpec, variants: list[LoadedVariant]) -> None:
    """Raises SpecError for a sweep over an option that no candidate reads, whatever else is swept."""
    used = {path for variant in variants for _, settings in variant.candidates.values() for path in settings}
    for path in study.sweep:
        if path in used:
            continue
        part, _, name = path.partition(".")
        specs = [getattr(candidate, part, None) for v in variants for candidate, _ in v.candidates.values()]
        owners = [owner for s in specs if s is not None and (owner := getattr(s, "unused_options", {}).get(name))]
        reason = f"{name} belongs to {owners[0]}" if owners else f"no candidate has a {part} of its own to train"
        reason = "no candidate stores features" if name in FEATURE_FIELDS else reason
        reason = "no candidate reads pictures" if part == "data" else reason
        raise SpecError(
            f"{study.source.describe_location(('sweep', path))}: the sweep over {path} changes nothing: {reason}; leave it "
            "out, or add a candidate that reads it"
        )


def _load_variant(study: StudySpec, variant: SweepVariant, opened: dict[tuple[str, int], ImageSet], cache: Path) -> LoadedVariant:
    spec = variant.data
    networks = [c for c in variant.candidates if c.table is None]
    size = spec.size or max((preferred_image_size(c, study.base) for c in networks), default=DEFAULT_INPUT_SIZE)
    name = (digest(spec.plain()), size)
    if name not in opened:
        opened[name] = _open_image_set(spec, size, study.base, cache)
        read_stated_subgroups(spec, study.base, opened[name].dataset)  # which refuses what it cannot read
    images = opened[name]
    study = note_idle_words(settle_label_metrics(settle_seeds(study, len(images.dataset)), images.dataset))
    candidates = {
        base.name: _apply_relevant_settings(base, swept, variant.settings)
        for base, swept in zip(study.parsed_candidates, variant.candidates, strict=True)
    }
    checker = _CandidateChecker(study, candidates, len(images.dataset.classes))
    for each, _ in candidates.values():
        checker.check_candidate(each)
    unusable = UnusableWeights()
    resolved = {
        name: (_resolve_candidate(each, images, study.base, unusable), settings) for name, (each, settings) in candidates.items()
    }
    unusable.raise_if_any()
    check_label_uses(study, images.dataset, [each for each, _ in candidates.values()])
    check_metrics(study.metrics, len(images.dataset.classes))
    check_positive_uses(study, spec, images.dataset)
    if study.shift is not None:
        resolve_corruptions(study.shift, images.dataset)  # which refuses what its rows cannot have
    trials = list_trials(study, {name: each for name, (each, _) in resolved.items()})
    splits = _make_checked_splits(study, images.dataset, resolved, trials)
    check_controls(study, images.dataset, splits)
    return LoadedVariant(study, resolved, images, splits, trials)


def _make_checked_splits(
    study: StudySpec,
    dataset: Dataset,
    candidates: dict[str, tuple[Candidate, dict[str, Any]]],
    trials: dict[str, tuple[Trial, ...]],
) -> list[Split]:
    splits = make_splits(dataset, study.protocol, study.base)
    without_val = next((split.name for split in splits if split.val is None), None)
    tried = [trial.candidate for of_candidate in trials.values() for trial in of_candidate]
    for candidate in [each for each, _ in candidates.values()] + tried:
        if candidate.recipe.checkpoint == "best-val" and candidate.recipe.phases and without_val is not None:
            raise SpecError(
                f"{study.source.name}: candidate '{candidate.name}': checkpoint: best-val needs a validation part, "
                f"and the split '{without_val}' has none; give val_size in protocol, or choose checkpoint: last"
            )
        for split in splits:
            raise_on_bundle_leak(candidate, dataset, split, study.base)
    return splits


class _CandidateChecker:
    """Refuses candidates that contradict themselves or name others that are not there, before anything is computed."""

    def __init__(self, study: StudySpec, candidates: dict[str, tuple[Candidate, dict[str, Any]]], n_classes: int) -> None:
        self.study, self.candidates, self.n_classes = study, candidates, n_classes

    def check_candidate(self, candidate: Candidate) -> None:
        where = self.study.source.name
        if words := find_conflict(candidate):
            raise SpecError(f"{where}: candidate '{candidate.name}': {words}")
        for need in candidate.needs:
            if need not in self.candidates:
                raise SpecError(f"{where}: '{need}' is no candidate of this study{did_you_mean(need, self.candidates)}")
        if candidate.distillation and candidate.distillation.alpha > 0:
            self._check_teacher(candidate, self.candidates[candidate.distillation.teacher][0])

    def _check_teacher(self, student: Candidate, teacher: Candidate) -> None:
        """Raises SpecError for a teacher that is not one network, or that has no logits for these classes."""
        where, count = self.study.source.name, self.n_classes
        if teacher.table is not None:
            raise SpecError(
                f"{where}: the teacher of '{student.name}' is '{teacher.name}', which has no network; choose a network"
            )
        if teacher.is_ensemble:
            raise SpecError(
                f"{where}: the teacher of '{student.name}' is '{teacher.name}', an average of finished runs and not one network; "
                "choose one of its members, or a fusion that is trained"
            )
        if teacher.recipe.phases:
            return
        backbone, untrained = teacher.backbones[0], f"recipe '{teacher.recipe.preset}' trains nothing"
        if backbone.depends_on_seed or teacher.head.kind != "pretrained":
            raise SpecError(
                f"{where}: the teacher '{teacher.name}' has random weights and {untrained}; give it a recipe that trains"
            )
        known = self._count_known_classes(backbone)
        if known not in (None, count):
            raise SpecError(
                f"{where}: the teacher '{teacher.name}' has {known} classes, the dataset has {count}, and {untrained}; "
                "give it a recipe that trains a new head"
            )

    def _count_known_classes(self, backbone: BackboneSpec) -> int | None:
        """Classes of a network's pretrained head; None where a weight file does not state them."""
        known = catalog.describe_backbone(backbone)
        if backbone.weights_path is None:
            return known.num_classes
        stated = weight_files.find_weight_file(backbone.weights_path, self.study.base, known.name).metadata.get("num_classes")
        return stated if isinstance(stated, int) else None


def _apply_relevant_settings(base: Candidate, swept: Candidate, settings: dict[str, Any]) -> tuple[Candidate, dict[str, Any]]:
    """A candidate with the settings that affect it: without a teacher it is the same, of the same name, for every α."""
    own = {path: value for path, value in settings.items() if setting_affects(path, swept)}
    changes: dict[str, Any] = {"name": add_settings_to_name(base, own).name}
    for path in settings.keys() - own.keys():
        part, _, name = path.partition(".")
        if part in ("head", "fusion") and getattr(swept, part) is not None:  # as written, so that equal candidates are one
            changed = changes.get(part, getattr(swept, part))
            changes[part] = changed.model_copy(update={name: getattr(getattr(base, part), name)})
    return swept.model_copy(update=changes), own


def _open_image_set(spec: DataSpec, side: int, base: Path | None, cache: Path) -> ImageSet:
    dataset = open_dataset(spec, base)
    cached = load_cached_pixels(
        dataset, side, resize=spec.resize, interpolation=spec.interpolation, cache=cache, on_bad_input=spec.on_bad_input
    )
    return ImageSet(spec, cached[0] if cached else dataset, side, cached is not None)


def check_feature_engines(variants: list[LoadedVariant], device_type: str) -> None:
    """Raises SpecError where a study asks for features by ONNX Runtime and computes elsewhere than on a processor."""
    candidates = [candidate for variant in variants for candidate, _ in variant.candidates.values()]
    asking = [c.name for c in candidates if c.uses_onnxruntime]
    if asking and device_type != "cpu":
        raise SpecError(
            f"candidate '{asking[0]}', feature_engine: onnxruntime computes on the processor, and this study on {device_type}; "
            "leave it out, or say --device cpu"
        )


def preferred_image_size(candidate: Candidate, base: Path | None) -> int:
    """Side in pixels of the stored images that suits a candidate: room for its crop (8/7 of it), or its input size."""
    input_size = max(catalog.resolve_side(b, base) for b in candidate.backbones)
    return max(input_size, math.ceil(candidate.recipe.center_crop * 8 / 7)) if candidate.recipe.center_crop else input_size


def _resolve_candidate(candidate: Candidate, images: ImageSet, base: Path | None, unusable: UnusableWeights) -> Candidate:
    """The candidate with its weights, or its files and metadata, checked."""
    if candidate.table is None:
        return resolve_backbones(candidate, images.image_size, base, unusable)
    table = digest_table_file(candidate.table, candidate.name, base)
    return candidate.model_copy(update={"table": digest_metadata(table, candidate.name, images.data, images.dataset, base)})


def resolve_backbones(candidate: Candidate, side: int, base: Path | None, unusable: UnusableWeights) -> Candidate:
    """The candidate with its weights checked, and its randomly initialised networks set to the size of the stored images.

    unusable: takes what is wrong with weights, so that all can be told at once
    """
    if candidate.uses_onnxruntime:
        require_onnx_packages(f"candidate '{candidate.name}', feature_engine: onnxruntime,")
    input_size = candidate.recipe.center_crop or side
    backbones = []
    for backbone in candidate.backbones:
        any_size = backbone.weights == "random" if backbone.custom is None else backbone.custom.input_size is None
        if any_size and backbone.size is None:
            backbone = backbone.with_changes(size=input_size)
        try:
            catalog.check_weights(backbone, base)
        except WeightsError as error:
            unusable.add_error(error, candidate.name)
        except PhoropterError as error:
            raise type(error)(f"candidate '{candidate.name}': {error}") from None
        backbones.append(backbone)
    return candidate.model_copy(update={"backbones": tuple(backbones)})
