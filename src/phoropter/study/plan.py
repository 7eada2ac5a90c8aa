"""Study → runs, each with a key; says beforehand what will be computed and what is there already.

A key is a digest of everything that decides a result (dataset, split, candidate, recipe, seed, weights, numerics) and of
nothing else: not the device, the number of workers, the output folder, or the order in the file. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import PhoropterError, SpecError, did_you_mean
from phoropter.core.files import cache_dir, digest
from phoropter.core.spec import validate_as
from phoropter.data.dataset import Dataset
from phoropter.data.images.cache import load_cached_pixels
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.splits.protocol import Split, make_splits
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.models.weights import weight_files
from phoropter.results.store import Store
from phoropter.study.spec import StudyInput, SweepVariant, add_settings_to_name, expand_sweep
from phoropter.training.candidates.candidate import Candidate, DistillationSpec, validate_candidate
from phoropter.training.trained_on import raise_on_bundle_leak

NUMERICS = 3  # raise when equal inputs would give other predictions than before


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A dataset as one variant of a study uses it: which rows, drawn how large.

    side: of the stored square pictures · decoded: whether they are there already
    """

    data: DataSpec
    dataset: Dataset
    image_size: int
    decoded: bool

    @property
    def identity(self) -> list[Any]:
        return [self.dataset.fingerprint, self.image_size, self.data.resize, self.data.interpolation]


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One candidate on one split with one seed: the smallest thing that is computed, stored, and skipped when done.

    settings: of the sweeps, those that touch it · first: whether it is its candidate's first run, whose last-layer features are
    stored · needs: keys of the runs that come before it: its members', its teacher's
    """

    key: str
    candidate: Candidate
    split: Split
    image_set: ImageSet
    settings: dict[str, Any]
    is_first: bool
    keep_bundle: bool
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.candidate.name} · {self.split.name}"

    @property
    def seen_rows(self) -> NDArray[np.int64]:
        """The rows its classifier will have met: those it is trained on, and those that choose its epoch."""
        chosen = self.split.val if self.candidate.recipe.checkpoint == "best_val" else None
        return self.split.train if chosen is None else np.concatenate([self.split.train, chosen])

    def to_plan_row(self) -> dict[str, Any]:
        """As a row of study.json's plan."""
        split = self.split
        return {
            "key": self.key,
            "candidate": self.candidate.name,
            "seed": split.seed,
            "repeat": split.repeat,
            "fold": split.fold,
            "folds": split.folds,
            "split": split.name,
            "n_train": len(split.train),
            "n_test": len(split.test),
            "settings": self.settings,
        }


@dataclass(frozen=True, eq=False)
class Plan:
    """Every run of a question, in the order they are computed: members before their fusion, teachers before their students."""

    question: StudyInput
    runs: list[PlannedRun]

    @cached_property
    def by_key(self) -> dict[str, PlannedRun]:
        return {r.key: r for r in self.runs}

    @cached_property
    def dependents(self) -> dict[str, list[PlannedRun]]:
        """Key → the runs that need its bundle: a teacher's students, the fusions that begin with it."""
        found: dict[str, list[PlannedRun]] = {}
        for run in self.runs:
            for key in () if run.candidate.is_ensemble else run.needs:
                found.setdefault(key, []).append(run)
        return found

    @property
    def image_sets(self) -> list[ImageSet]:
        return list({id(r.image_set): r.image_set for r in self.runs}.values())

    @property
    def candidates(self) -> list[Candidate]:
        return list({r.candidate.name: r.candidate for r in self.runs}.values())

    def needs_full_logits(self, teacher: str) -> bool:
        """Whether some student of this run needs more than the classes it names."""
        taught = [r.candidate.teaching for r in self.dependents.get(teacher, [])]
        return any(t is not None and t.loss not in ("hard", "token") for t in taught)

    def missing_runs(self, store: Store) -> list[PlannedRun]:
        return [r for r in self.runs if r.key not in store]


def plan_study(question: StudyInput, cache: Path | None = None) -> Plan:
    """A question → its runs. Every name, weight file, split and option is checked here, before anything is computed.

    Raises SpecError, DataError, SplitError, WeightsError.
    """
    cache = cache or cache_dir()
    opened: dict[tuple[str, int], ImageSet] = {}
    runs: dict[str, PlannedRun] = {}
    for variant in expand_sweep(question):
        for run in _VariantPlanner(question, variant, cache, opened).plan_all_runs():
            twin = runs.setdefault(run.key, run)
            if twin.candidate.name != run.candidate.name:
                raise SpecError(
                    f"{question.source.name}: '{twin.candidate.name}' and '{run.candidate.name}' are the same candidate under "
                    "two names; leave one of them out"
                )
    return Plan(question, list(runs.values()))


class _VariantPlanner:
    """The candidates of one variant on every split, found by the names the study gives them (a sweep lengthens names)."""

    def __init__(self, question: StudyInput, variant: SweepVariant, cache: Path, opened: dict[tuple[str, int], ImageSet]) -> None:
        self.question = question
        self.candidates = {
            base.name: _apply_relevant_settings(base, swept, variant.settings)
            for base, swept in zip(question.candidates, variant.candidates, strict=True)
        }
        spec = variant.data
        self.side = spec.size or max(preferred_image_size(c, question.base) for c in variant.candidates)
        name = (digest(spec.plain()), self.side)
        if name not in opened:
            opened[name] = _open_image_set(spec, self.side, question.base, cache)
        self.material = opened[name]
        self.splits = make_splits(self.material.dataset, question.study.protocol)
        self.made: dict[str, list[PlannedRun]] = {}

    def plan_all_runs(self) -> Iterator[PlannedRun]:
        """Every run, after those it needs."""
        for name in self.candidates:
            self.runs_of_candidate(name)
        for runs in self.made.values():
            yield from runs

    def runs_of_candidate(self, name: str) -> list[PlannedRun]:
        """A candidate's runs, a split each, in order."""
        if name not in self.made:
            candidate, settings = self.candidates[name]
            self._check_candidate(candidate)
            settled = resolve_backbones(candidate, self.side, self.question.base)
            needed = [self.runs_of_candidate(need) for need in settled.needs]
            self.made[name] = list(self._plan_runs(settled, settings, needed))
        return self.made[name]

    def _plan_runs(self, candidate: Candidate, settings: dict[str, Any], needed: list[list[PlannedRun]]) -> Iterator[PlannedRun]:
        material, keep = self.material, self.question.study.save_models
        weights = [catalog.identify_weights(b, self.question.base) for b in candidate.backbones]
        for number, split in enumerate(self.splits):
            raise_on_bundle_leak(candidate, material.dataset, split, self.question.base)
            needs = tuple(runs[number].key for runs in needed)
            decides = [
                NUMERICS,
                material.identity,
                split.content_key(material.dataset),
                split.seed,
                candidate.identity(),
                weights,
                needs,
            ]
            kept = keep == "all" or (keep == "first" and number == 0)
            yield PlannedRun(digest(decides), candidate, split, material, settings, number == 0, kept, needs)

    def _check_candidate(self, candidate: Candidate) -> None:
        where = self.question.source.name
        if words := validate_candidate(candidate):
            raise SpecError(f"{where}: candidate '{candidate.name}': {words}")
        for need in candidate.needs:
            if need not in self.candidates:
                raise SpecError(f"{where}: '{need}' is no candidate of this study{did_you_mean(need, self.candidates)}")
        if candidate.teaching and candidate.teaching.alpha > 0:
            self._check_teacher(candidate, self.candidates[candidate.teaching.teacher][0])

    def _check_teacher(self, student: Candidate, teacher: Candidate) -> None:
        """Raises SpecError for a teacher that cannot answer about these classes, or is no one network."""
        where, count = self.question.source.name, len(self.material.dataset.classes)
        if teacher.is_ensemble:
            raise SpecError(
                f"{where}: '{student.name}' is to be taught by '{teacher.name}', an average of finished runs and no network; "
                "choose one of its members, or a fusion that is trained"
            )
        if teacher.recipe.phases:
            return
        backbone, untrained = teacher.backbones[0], f"recipe '{teacher.recipe.preset}' trains nothing"
        if backbone.weights == "random" or teacher.head.kind != "pretrained":
            raise SpecError(
                f"{where}: the teacher '{teacher.name}' is drawn at random and {untrained}; give it a recipe that trains"
            )
        known = self._count_known_classes(backbone)
        if known not in (None, count):
            raise SpecError(
                f"{where}: the teacher '{teacher.name}' tells {known} classes apart, the dataset has {count}, and {untrained}; "
                "give it a recipe that trains a new head"
            )

    def _count_known_classes(self, backbone: BackboneSpec) -> int | None:
        """How many classes a network's own head knows; None where the weights are from a file and nobody says."""
        known = catalog.find_architecture(backbone.name)
        if backbone.weights == "pretrained":
            return known.num_classes
        said = weight_files.find_weight_file(backbone.weights, self.question.base, known.name).metadata.get("num_classes")
        return said if isinstance(said, int) else None


_COMMON_PARTS = ("recipe", "data")  # what a sweep changes in every candidate; other parts only where there are such


def _apply_relevant_settings(base: Candidate, swept: Candidate, settings: dict[str, Any]) -> tuple[Candidate, dict[str, Any]]:
    """A candidate under the settings that touch it: one that has no teacher is the same for every α and called the same."""
    own = {path: value for path, value in settings.items() if _setting_affects(path, swept)}
    return swept.model_copy(update={"name": add_settings_to_name(base, own).name}), own


def _setting_affects(path: str, candidate: Candidate) -> bool:
    part, _, name = path.partition(".")
    if part in _COMMON_PARTS:
        return not (part == "recipe" and candidate.is_ensemble)
    if part != "teaching" or candidate.teaching is None:
        return getattr(candidate, part) is not None
    if name == "teacher":
        return True
    effective = candidate.teaching.canonical_form
    return name == "alpha" or any(
        validate_as(DistillationSpec, {**effective.model_dump(), name: value}).canonical_form != effective
        for value in ({"hard", "soft"} if name == "loss" else {"unaugmented", "same"} if name == "teacher_views" else {97})
    )


def _open_image_set(spec: DataSpec, side: int, base: Path | None, cache: Path) -> ImageSet:
    dataset = open_dataset(spec, base)
    there = load_cached_pixels(
        dataset, side, resize=spec.resize, interpolation=spec.interpolation, cache=cache, on_bad_input=spec.on_bad_input
    )
    return ImageSet(spec, there[0] if there else dataset, side, there is not None)


def preferred_image_size(candidate: Candidate, base: Path | None) -> int:
    """The side a candidate would like its pictures stored at: what it crops from, or what it is shown."""
    shown = max(catalog.resolve_side(b, base) for b in candidate.backbones)
    return max(shown, math.ceil(candidate.recipe.crop * 8 / 7)) if candidate.recipe.crop else shown


def resolve_backbones(candidate: Candidate, side: int, base: Path | None) -> Candidate:
    """Checks a candidate's weights, and lets a network with random weights see pictures at the side they have."""
    shown = candidate.recipe.crop or side
    backbones = []
    for backbone in candidate.backbones:
        if backbone.weights == "random" and backbone.size is None:
            backbone = backbone.with_changes(size=shown)
        try:
            catalog.check_weights(backbone, base)
        except PhoropterError as error:
            raise type(error)(f"candidate '{candidate.name}': {error}") from None
        backbones.append(backbone)
    return candidate.model_copy(update={"backbones": tuple(backbones)})
