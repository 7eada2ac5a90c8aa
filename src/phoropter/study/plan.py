"""Study → runs, each with a key that tells whether it has been computed before. No torch here.

A key is a digest of everything that decides a result (dataset, split, candidate, recipe, seed, weights, numerics) and of
nothing else: not the device, the number of workers, the output folder, or the order in the file.

A study is loaded (study/load), its images are decoded (study/compute), and then it is planned: rows that cannot be decoded are
known by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SpecError
from phoropter.core.files import digest
from phoropter.core.language.notebook_html import format_notebook_html
from phoropter.data.splits.protocol import Split
from phoropter.models import catalog
from phoropter.results.questions.planned import Contrast, PlannedCandidate, family_effects, settle_contrasts
from phoropter.results.store import Store
from phoropter.study.load import ImageSet, LoadedVariant, load_study
from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.family import candidate_family
from phoropter.training.tables.check_table import check_table

NUMERICS = 6  # raise when equal inputs would give other predictions than before


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One candidate on one split with one seed: the unit that is computed, stored, and skipped when done.

    settings: values of the sweeps that affect it · is_first: whether it is its candidate's first run, whose last-layer features
    are stored · keep_bundle: whether its trained model is kept · needs: keys of the runs it depends on (members, teacher)
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
        """Rows its classifier depends on: the training rows, and the validation rows where they choose the epoch."""
        chosen = self.split.val if self.candidate.recipe.checkpoint == "best-val" else None
        return self.split.train if chosen is None else np.concatenate([self.split.train, chosen])

    def to_plan_row(self) -> dict[str, Any]:
        """Its entry in the plan of study.json."""
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
    """Every run of a study, in the order they are computed: members before their fusion, teachers before their students.

    contrasts: the questions planned under `compare:`, the primary one first
    exploratory: families against each other, which nobody planned
    """

    study: StudySpec
    runs: list[PlannedRun]
    contrasts: tuple[Contrast, ...] = ()
    exploratory: tuple[Contrast, ...] = ()

    def __repr__(self) -> str:
        return f"Plan({self.study.name!r}: {', '.join(self._list_facts())})"

    def __str__(self) -> str:
        lines = (f"  {name}: {count} run{'s' if count > 1 else ''}" for name, count in self._count_runs().items())
        return "\n".join([f"Plan of {self.study.name}: {', '.join(self._list_facts())}", *lines])

    def _repr_html_(self) -> str:
        counts = self._count_runs()
        rows = [(c.name, c.how, counts[c.name]) for c in self.candidates]
        return format_notebook_html(f"Plan of {self.study.name}", self._list_facts(), ("Candidate", "How", "Runs"), rows)

    def _count_runs(self) -> Counter[str]:
        return Counter(run.candidate.name for run in self.runs)

    def _list_facts(self) -> list[str]:
        dataset = self.image_sets[0].dataset
        return [
            f"{len(self.runs):,} runs",
            f"{len(self.splits):,} splits",
            f"{len(dataset):,} rows in {len(dataset.classes):,} classes",
        ]

    @cached_property
    def by_key(self) -> dict[str, PlannedRun]:
        return {r.key: r for r in self.runs}

    @cached_property
    def dependents(self) -> dict[str, list[PlannedRun]]:
        """Key → the runs that need its bundle: a teacher's students, the fusions that are initialised from it."""
        dependents: dict[str, list[PlannedRun]] = {}
        for run in self.runs:
            for key in () if run.candidate.is_ensemble else run.needs:
                dependents.setdefault(key, []).append(run)
        return dependents

    @property
    def image_sets(self) -> list[ImageSet]:
        return list({id(r.image_set): r.image_set for r in self.runs}.values())

    @property
    def candidates(self) -> list[Candidate]:
        return list({r.candidate.name: r.candidate for r in self.runs}.values())

    @property
    def splits(self) -> list[Split]:
        """Each split once, by its name."""
        return list({r.split.name: r.split for r in self.runs}.values())

    def needs_full_logits(self, teacher: str) -> bool:
        """Whether some student of this run needs its logits, not only its predicted classes."""
        taught = [r.candidate.distillation for r in self.dependents.get(teacher, [])]
        return any(t is not None and t.loss not in ("hard", "token") for t in taught)

    def missing_runs(self, store: Store) -> list[PlannedRun]:
        return [r for r in self.runs if r.key not in store]

    def count_runs(self, store: Store) -> dict[str, tuple[int, int]]:
        """Candidate → the number of its runs, and of those that the store has."""
        done = Counter(run.candidate.name for run in self.runs if run.key in store)
        return {name: (count, done[name]) for name, count in self._count_runs().items()}


def make_plan(study: StudySpec, variants: list[LoadedVariant]) -> Plan:
    """Loaded variants → the runs. Raises SpecError for one candidate under two names, and for a question nobody can answer.

    The plan has the study of its variants, in which defaults were settled when they were loaded.
    """
    settled = variants[0].study
    runs: dict[str, PlannedRun] = {}
    for variant in variants:
        _check_tables(variant)
        for run in _VariantPlanner(variant).plan_all_runs():
            twin = runs.setdefault(run.key, run)
            if twin.candidate.name != run.candidate.name:
                raise SpecError(
                    f"{study.source.name}: '{twin.candidate.name}' and '{run.candidate.name}' are the same candidate under "
                    "two names; leave one of them out"
                )
    candidates = _list_candidates(variants)
    smoke = bool(settled.context.smoke_changes)  # which has fewer candidates and levels, so that some contrasts cannot be settled
    contrasts = settle_contrasts(settled.compare, candidates, settled.metric_names, settled.source, skip_missing=smoke)
    effects = family_effects(candidates, settled.metric_names[0])
    return Plan(settled, list(runs.values()), tuple(contrasts), tuple(effects))


def _check_tables(variant: LoadedVariant) -> None:
    """Reads the files of candidates without a network, once it is known which rows there are. Raises SpecError, DataError."""
    image_set = variant.image_set
    if image_set.has_settled_rows:
        for candidate, _ in variant.candidates.values():
            if candidate.table is not None:
                check_table(candidate.table, candidate.name, image_set.dataset, variant.splits, variant.study.base)


def _list_candidates(variants: list[LoadedVariant]) -> list[PlannedCandidate]:
    """As contrasts see them, each once."""
    candidates = {
        candidate.name: PlannedCandidate(
            candidate.name, base_name, tuple(b.name for b in candidate.backbones), candidate_family(candidate), settings
        )
        for variant in variants
        for base_name, (candidate, settings) in variant.candidates.items()
    }
    return list(candidates.values())


def plan_study(study: StudySpec, cache: Path | None = None) -> Plan:
    """A study → its runs, without decoding an image. Raises what `load_study` and `make_plan` raise."""
    return make_plan(study, load_study(study, cache))


class _VariantPlanner:
    """Plans every candidate of a variant on every split, each after the candidates it needs."""

    def __init__(self, variant: LoadedVariant) -> None:
        self.variant = variant
        self.runs_by_name: dict[str, list[PlannedRun]] = {}

    def plan_all_runs(self) -> Iterator[PlannedRun]:
        """Every run, after those it needs."""
        for name in self.variant.candidates:
            self.plan_candidate(name)
        for runs in self.runs_by_name.values():
            yield from runs

    def plan_candidate(self, name: str) -> list[PlannedRun]:
        """The runs of a candidate, one for each split, in order."""
        if name not in self.runs_by_name:
            candidate, settings = self.variant.candidates[name]
            needed = [self.plan_candidate(need) for need in candidate.needs]
            self.runs_by_name[name] = list(self._plan_runs(candidate, settings, needed))
        return self.runs_by_name[name]

    def _plan_runs(self, candidate: Candidate, settings: dict[str, Any], needed: list[list[PlannedRun]]) -> Iterator[PlannedRun]:
        study, image_set = self.variant.study, self.variant.image_set
        weights = [catalog.identify_weights(b, study.base) for b in candidate.backbones]
        for number, split in enumerate(self.variant.splits):
            needs = tuple(runs[number].key for runs in needed)
            decides = [
                NUMERICS,
                image_set.identity,
                split.content_key(image_set.dataset),
                split.seed,
                candidate.identity(),
                weights,
                needs,
            ]
            kept = candidate.table is None and (study.save_models == "all" or (study.save_models == "first" and number == 0))
            yield PlannedRun(digest(decides), candidate, split, image_set, settings, number == 0, kept, needs)
