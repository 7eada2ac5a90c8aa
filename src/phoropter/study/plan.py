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

from phoropter.core.errors import PhoropterError, SpecError, nearest
from phoropter.core.files import cache_dir, digest
from phoropter.core.spec import check
from phoropter.data.dataset import Dataset
from phoropter.data.pixels import found
from phoropter.data.protocols import Split, splits
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.models import catalog, sources
from phoropter.models.spec import BackboneSpec
from phoropter.results.store import Store
from phoropter.study.spec import Question, Variant, variants
from phoropter.study.spec import named as named
from phoropter.training.candidate import Candidate, Teaching, contradiction
from phoropter.training.lineage import refuse_met

NUMERICS = 3  # raise when equal inputs would give other predictions than before


@dataclass(frozen=True, eq=False)
class Material:
    """A dataset as one variant of a study uses it: which rows, drawn how large.

    side: of the stored square pictures · decoded: whether they are there already
    """

    data: DataSpec
    dataset: Dataset
    side: int
    decoded: bool

    @property
    def identity(self) -> list[Any]:
        return [self.dataset.fingerprint, self.side, self.data.fit, self.data.resample]


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One candidate on one split with one seed: the smallest thing that is computed, stored, and skipped when done.

    settings: of the sweeps, those that touch it · first: whether it is its candidate's first run, whose last-layer features are
    stored · needs: keys of the runs that come before it: its members', its teacher's
    """

    key: str
    candidate: Candidate
    split: Split
    material: Material
    settings: dict[str, Any]
    first: bool
    keep_bundle: bool
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.candidate.name} · {self.split.name}"

    @property
    def learned(self) -> NDArray[np.int64]:
        """The rows its classifier will have met: those it is trained on, and those that choose its epoch."""
        chosen = self.split.val if self.candidate.recipe.select == "validation" else None
        return self.split.train if chosen is None else np.concatenate([self.split.train, chosen])

    def row(self) -> dict[str, Any]:
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

    question: Question
    runs: list[PlannedRun]

    @cached_property
    def by_key(self) -> dict[str, PlannedRun]:
        return {r.key: r for r in self.runs}

    @cached_property
    def heirs(self) -> dict[str, list[PlannedRun]]:
        """Key → the runs that need its bundle: a teacher's students, the fusions that begin with it."""
        found: dict[str, list[PlannedRun]] = {}
        for run in self.runs:
            for key in () if run.candidate.averages else run.needs:
                found.setdefault(key, []).append(run)
        return found

    @property
    def materials(self) -> list[Material]:
        return list({id(r.material): r.material for r in self.runs}.values())

    @property
    def candidates(self) -> list[Candidate]:
        return list({r.candidate.name: r.candidate for r in self.runs}.values())

    def asks_logits(self, teacher: str) -> bool:
        """Whether some student of this run needs more than the classes it names."""
        taught = [r.candidate.teaching for r in self.heirs.get(teacher, [])]
        return any(t is not None and t.loss not in ("hard", "token") for t in taught)

    def missing(self, store: Store) -> list[PlannedRun]:
        return [r for r in self.runs if r.key not in store]


def plan(question: Question, cache: Path | None = None) -> Plan:
    """A question → its runs. Every name, weight file, split and option is checked here, before anything is computed.

    Raises SpecError, DataError, SplitError, WeightsError.
    """
    cache = cache or cache_dir()
    opened: dict[tuple[str, int], Material] = {}
    runs: dict[str, PlannedRun] = {}
    for variant in variants(question):
        for run in _Family(question, variant, cache, opened).all():
            twin = runs.setdefault(run.key, run)
            if twin.candidate.name != run.candidate.name:
                raise SpecError(
                    f"{question.source.name}: '{twin.candidate.name}' and '{run.candidate.name}' are the same candidate under "
                    "two names; leave one of them out"
                )
    return Plan(question, list(runs.values()))


class _Family:
    """The candidates of one variant on every split, found by the names the study gives them (a sweep lengthens names)."""

    def __init__(self, question: Question, variant: Variant, cache: Path, opened: dict[tuple[str, int], Material]) -> None:
        self.question = question
        self.candidates = {
            base.name: _own_name(base, swept, variant.settings)
            for base, swept in zip(question.candidates, variant.candidates, strict=True)
        }
        spec = variant.data
        self.side = spec.size or max(picture_side(c, question.base) for c in variant.candidates)
        name = (digest(spec.plain()), self.side)
        if name not in opened:
            opened[name] = _material(spec, self.side, question.base, cache)
        self.material = opened[name]
        self.splits = splits(self.material.dataset, question.study.protocol)
        self.made: dict[str, list[PlannedRun]] = {}

    def all(self) -> Iterator[PlannedRun]:
        """Every run, after those it needs."""
        for name in self.candidates:
            self.runs(name)
        for runs in self.made.values():
            yield from runs

    def runs(self, name: str) -> list[PlannedRun]:
        """A candidate's runs, a split each, in order."""
        if name not in self.made:
            candidate, settings = self.candidates[name]
            self._refuse(candidate)
            settled = settle(candidate, self.side, self.question.base)
            needed = [self.runs(need) for need in settled.needs]
            self.made[name] = list(self._planned(settled, settings, needed))
        return self.made[name]

    def _planned(self, candidate: Candidate, settings: dict[str, Any], needed: list[list[PlannedRun]]) -> Iterator[PlannedRun]:
        material, keep = self.material, self.question.study.keep
        weights = [catalog.identity(b, self.question.base) for b in candidate.backbones]
        for number, split in enumerate(self.splits):
            refuse_met(candidate, material.dataset, split, self.question.base)
            needs = tuple(runs[number].key for runs in needed)
            decides = [NUMERICS, material.identity, split.key(material.dataset), split.seed, candidate.identity(), weights, needs]
            kept = keep == "all" or (keep == "first" and number == 0)
            yield PlannedRun(digest(decides), candidate, split, material, settings, number == 0, kept, needs)

    def _refuse(self, candidate: Candidate) -> None:
        where = self.question.source.name
        if words := contradiction(candidate):
            raise SpecError(f"{where}: candidate '{candidate.name}': {words}")
        for need in candidate.needs:
            if need not in self.candidates:
                raise SpecError(f"{where}: '{need}' is no candidate of this study{nearest(need, self.candidates)}")
        if candidate.teaching and candidate.teaching.alpha > 0:
            self._refuse_teacher(candidate, self.candidates[candidate.teaching.teacher][0])

    def _refuse_teacher(self, student: Candidate, teacher: Candidate) -> None:
        """Raises SpecError for a teacher that cannot answer about these classes, or is no one network."""
        where, count = self.question.source.name, len(self.material.dataset.classes)
        if teacher.averages:
            raise SpecError(
                f"{where}: '{student.name}' is to be taught by '{teacher.name}', an average of finished runs and no network; "
                "choose one of its members, or a fusion that is trained"
            )
        if teacher.recipe.phases:
            return
        backbone, untrained = teacher.backbones[0], f"recipe '{teacher.recipe.preset}' trains nothing"
        if backbone.weights == "random" or teacher.head.kind != "own":
            raise SpecError(
                f"{where}: the teacher '{teacher.name}' is drawn at random and {untrained}; give it a recipe that trains"
            )
        known = self._told_apart(backbone)
        if known not in (None, count):
            raise SpecError(
                f"{where}: the teacher '{teacher.name}' tells {known} classes apart, the dataset has {count}, and {untrained}; "
                "give it a recipe that trains a new head"
            )

    def _told_apart(self, backbone: BackboneSpec) -> int | None:
        """How many classes a network's own head knows; None where the weights are from a file and nobody says."""
        known = catalog.entry(backbone.name)
        if backbone.weights == "pretrained":
            return known.classes
        said = sources.locate(backbone.weights, self.question.base, known.name).said.get("num_classes")
        return said if isinstance(said, int) else None


_ALWAYS = ("recipe", "data")  # what a sweep changes in every candidate; other parts only where there are such


def _own_name(base: Candidate, swept: Candidate, settings: dict[str, Any]) -> tuple[Candidate, dict[str, Any]]:
    """A candidate under the settings that touch it: one that has no teacher is the same for every α and called the same."""
    own = {path: value for path, value in settings.items() if _touches(path, swept)}
    return swept.model_copy(update={"name": named(base, own).name}), own


def _touches(path: str, candidate: Candidate) -> bool:
    part, _, name = path.partition(".")
    if part in _ALWAYS:
        return not (part == "recipe" and candidate.averages)
    if part != "teaching" or candidate.teaching is None:
        return getattr(candidate, part) is not None
    if name == "teacher":
        return True
    effective = candidate.teaching.effective
    return name == "alpha" or any(
        check(Teaching, {**effective.model_dump(), name: value}).effective != effective
        for value in ({"hard", "soft"} if name == "loss" else {"clean", "exact"} if name == "views" else {97})
    )


def _material(spec: DataSpec, side: int, base: Path | None, cache: Path) -> Material:
    dataset = open_dataset(spec, base)
    there = found(dataset, side, fit=spec.fit, resample=spec.resample, cache=cache, on_bad_input=spec.on_bad_input)
    return Material(spec, there[0] if there else dataset, side, there is not None)


def picture_side(candidate: Candidate, base: Path | None) -> int:
    """The side a candidate would like its pictures stored at: what it crops from, or what it is shown."""
    shown = max(catalog.side(b, base) for b in candidate.backbones)
    return max(shown, math.ceil(candidate.recipe.crop * 8 / 7)) if candidate.recipe.crop else shown


def settle(candidate: Candidate, side: int, base: Path | None) -> Candidate:
    """Checks a candidate's weights, and lets a network with random weights see pictures at the side they have."""
    shown = candidate.recipe.crop or side
    backbones = []
    for backbone in candidate.backbones:
        if backbone.weights == "random" and backbone.size is None:
            backbone = backbone.with_(size=shown)
        try:
            catalog.check_weights(backbone, base)
        except PhoropterError as error:
            raise type(error)(f"candidate '{candidate.name}': {error}") from None
        backbones.append(backbone)
    return candidate.model_copy(update={"backbones": tuple(backbones)})
