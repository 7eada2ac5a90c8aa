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
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SpecError
from phoropter.core.files import digest
from phoropter.core.language.notebook_html import format_notebook_html
from phoropter.core.language.unit_words import RUN, SPLIT
from phoropter.data.splits.inner_splits import make_inner_splits
from phoropter.data.splits.protocol import Split
from phoropter.models import catalog
from phoropter.results.questions.planned import Contrast, PlannedCandidate, family_effects, settle_contrasts
from phoropter.results.store import Store
from phoropter.study.load import ImageSet, LoadedVariant, load_study
from phoropter.study.spec import StudySpec
from phoropter.study.variants.shares import SplitShare, list_shares
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.family import candidate_family
from phoropter.training.tables.check_table import check_table

NUMERICS = 7  # raise when equal inputs would give other predictions than before
FROZEN_NUMERICS = 1  # the same, where only those of frozen networks would be others


RunRole = Literal["compared", "learning-curve", "trial"]


@dataclass(frozen=True, eq=False)
class TrialRuns:
    """One combination of tuned values, the candidate with them, and the keys of its runs on the inner folds of one split."""

    settings: dict[str, Any]
    candidate: Candidate
    keys: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One candidate on one split with one seed: the unit that is computed, stored, and skipped when done.

    settings: values of the sweeps that affect it · is_first: whether it is its candidate's first run, whose last-layer features
    are stored · keep_bundle: whether its trained model is kept · needs: keys of the runs it depends on (members, teacher)
    role: `compared` with other candidates, or a side run: at a share of the training part for a `learning-curve`, or a `trial` of
    `tune` on an inner fold · share: of the training part that it is trained on
    trials: of a candidate that is tuned, whose values they choose before it is computed · tuning: the choice, once it is made
    """

    key: str
    candidate: Candidate
    split: Split
    image_set: ImageSet
    settings: dict[str, Any]
    is_first: bool
    keep_bundle: bool
    needs: tuple[str, ...] = ()
    role: RunRole = "compared"
    share: float = 1.0
    trials: tuple[TrialRuns, ...] = ()
    tuning: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        return f"{self.candidate.name} · {self.split.name}"

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Keys of the runs that must be finished before it is computed."""
        return (*self.needs, *(key for trial in self.trials for key in trial.keys))

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
            **self.describe_role(),
        }

    def describe_role(self) -> dict[str, Any]:
        """Its role and share, for its entry in the plan and its record; empty for a run that is compared."""
        return {} if self.role == "compared" else {"role": self.role, "share": self.share}


@dataclass(frozen=True, eq=False)
class Plan:
    """Every run of a study, in the order they are computed: members before their fusion, teachers before their students, trials
    before the run whose values they choose, and the shares of a learning curve last.

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
            RUN.count(len(self.runs)),
            *([f"{len(side):,} of them beside the comparison"] if (side := self.side_runs) else []),
            SPLIT.count(len(self.splits)),
            f"{len(dataset):,} rows in {len(dataset.classes):,} classes",
        ]

    @cached_property
    def by_key(self) -> dict[str, PlannedRun]:
        return {r.key: r for r in self.runs}

    @cached_property
    def compared(self) -> list[PlannedRun]:
        """The runs whose predictions are compared: all but side runs."""
        return [r for r in self.runs if r.role == "compared"]

    @property
    def side_runs(self) -> list[PlannedRun]:
        """Trials of `tune`, and the shares of a learning curve."""
        return [r for r in self.runs if r.role != "compared"]

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
        """Each split of the protocol once, by its name."""
        return list({r.split.name: r.split for r in self.compared}.values())

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
    shared: dict[str, list[PlannedRun]] = {}
    for variant in variants:
        _check_tables(variant)
        for run in _VariantPlanner(variant, shared).plan_all_runs():
            twin = runs.setdefault(run.key, run)
            if twin.candidate.name != run.candidate.name:
                raise SpecError(
                    f"{study.source.name}: '{twin.candidate.name}' and '{run.candidate.name}' are the same candidate under "
                    "two names; leave one of them out"
                )
    if settled.learning_curve is not None and not any(run.role == "learning-curve" for run in runs.values()):
        raise SpecError(
            f"{settled.source.describe_location(('learning_curve',))}: no candidate is trained, so more data would change none; "
            "leave learning_curve out"
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
    """Plans every candidate of a variant on every split, each after the candidates it needs.

    shared: name of a candidate that reads no pictures → its runs, which are the same in variants with other pictures
    """

    def __init__(self, variant: LoadedVariant, shared: dict[str, list[PlannedRun]]) -> None:
        self.variant, self.shared = variant, shared
        self.runs_by_name: dict[str, list[PlannedRun]] = {}
        self.trials: dict[str, list[PlannedRun]] = {}  # key of a tuned run → those that choose its values
        self.parts = list_shares(variant.study, variant.image_set.dataset, variant.splits)
        self._identities: dict[int, list[Any]] = {}  # of a candidate, by its id

    def plan_all_runs(self) -> Iterator[PlannedRun]:
        """Every run, after those it needs."""
        for name in self.variant.candidates:
            self.plan_candidate(name)
        main = len(self.variant.splits)
        for part in (slice(main), slice(main, None)):
            for runs in self.runs_by_name.values():
                for run in runs[part]:
                    yield from self.trials.get(run.key, ())
                    yield run

    def plan_candidate(self, name: str) -> list[PlannedRun]:
        """The runs of a candidate, one for each part, in order; one that is not trained is the same at every share."""
        if name not in self.runs_by_name:
            candidate, _ = self.variant.candidates[name]
            needed = [self.plan_candidate(need) for need in candidate.needs]
            main = len(self.variant.splits)
            runs: list[PlannedRun] = []
            for number, part in enumerate(self.parts):
                if part.share < 1 and not _learns(candidate, [of_need[number] for of_need in needed]):
                    runs.append(runs[number % main])
                    continue
                runs.append(self._plan_run(name, part, tuple(of_need[number].key for of_need in needed), number == 0))
            reads_pictures = candidate.table is None or candidate.table.reads_pictures
            self.runs_by_name[name] = runs if reads_pictures else self.shared.setdefault(candidate.name, runs)
        return self.runs_by_name[name]

    def _plan_run(self, name: str, part: SplitShare, needs: tuple[str, ...], is_first: bool) -> PlannedRun:
        study, image_set = self.variant.study, self.variant.image_set
        candidate, settings = self.variant.candidates[name]
        trials = self._plan_trials(name, part.split, settings)
        if trials:
            found = tuple(TrialRuns(words, runs[0].candidate, tuple(r.key for r in runs)) for words, runs in trials)
            by = study.tune.metric if study.tune and study.tune.metric else study.metric_names[0]
            key = self._make_key(part.split, [{"tuned": [t.keys for t in found], "by": by}], needs)
            self.trials[key] = [run for _, runs in trials for run in runs]
        else:
            found, key = (), self._make_key(part.split, self._identify(candidate), needs)
        is_kept = study.save_models == "all" or (study.save_models == "first" and is_first)
        kept = candidate.table is None and part.share == 1 and is_kept
        role: RunRole = "compared" if part.share == 1 else "learning-curve"
        return PlannedRun(key, candidate, part.split, image_set, settings, is_first, kept, needs, role, part.share, found)

    def _plan_trials(self, name: str, split: Split, settings: dict[str, Any]) -> list[tuple[dict[str, Any], list[PlannedRun]]]:
        """Tuned values → the runs that try them, one for each inner fold of the training part."""
        tune, image_set = self.variant.study.tune, self.variant.image_set
        trials = self.variant.trials.get(name, ())
        if tune is None or not trials:
            return []
        inner = make_inner_splits(image_set.dataset, split, tune.folds)
        planned = []
        for trial in trials:
            values = {**settings, **trial.settings}
            keys = [self._make_key(each, self._identify(trial.candidate), ()) for each in inner]
            runs = [
                PlannedRun(key, trial.candidate, each, image_set, values, False, False, role="trial")
                for key, each in zip(keys, inner, strict=True)
            ]
            planned.append((trial.settings, runs))
        return planned

    def _identify(self, candidate: Candidate) -> list[Any]:
        """What decides its results, beside data, split and seed; worked out once for all its runs."""
        if id(candidate) not in self._identities:
            weights = [catalog.identify_weights(b, self.variant.study.base) for b in candidate.backbones]
            self._identities[id(candidate)] = [candidate.identity(), weights]
            self._identities[id(candidate)] += [FROZEN_NUMERICS] if candidate.stores_features else []
        return self._identities[id(candidate)]

    def _make_key(self, split: Split, decides: list[Any], needs: tuple[str, ...]) -> str:
        image_set = self.variant.image_set
        return digest([NUMERICS, image_set.identity, split.content_key(image_set.dataset), split.seed, *decides, needs])


def _learns(candidate: Candidate, needed: list[PlannedRun]) -> bool:
    """Whether another training part would give it other predictions."""
    if candidate.table is not None:
        return candidate.table.predictions is None
    return bool(candidate.recipe.phases) if not candidate.is_ensemble else any(run.share < 1 for run in needed)
