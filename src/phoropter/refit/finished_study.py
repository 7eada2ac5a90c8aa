"""A finished study opened again: its plan, its data and its results, from the results folder alone.

The folder says what the study was and where its relative paths start. That the data, the weights and the arithmetic are still the
same is checked by the run keys, which are digests of them; code of the user's own by its recorded source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from phoropter.core.errors import SpecError, StoreError, did_you_mean, join_words
from phoropter.core.extensions import Extension, find_code
from phoropter.core.files import cache_dir
from phoropter.core.spec import SourceMap, validate_as
from phoropter.data.stores.store_copy import find_address
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.positive_class import open_results
from phoropter.results.store import Store
from phoropter.study.compute import decode_images
from phoropter.study.load import load_study
from phoropter.study.plan import Plan, PlannedRun, make_plan
from phoropter.study.progress import ProgressCallback
from phoropter.study.records.other_study import restore_written_out, state_seeds
from phoropter.study.records.study_record import read_base
from phoropter.study.side_runs.tuned_run import recall_tuned_run
from phoropter.study.spec import StudySpec


@dataclass(frozen=True, eq=False)
class FinishedStudy:
    """store: its results folder · planned: its runs, as planned now · cache: of pixels and features"""

    store: Store
    planned: Plan
    cache: Path

    @cached_property
    def summary(self) -> StudySummary:
        """Its figures, for which every predictions file is read. Raises what `collect_summary` raises."""
        return collect_summary(self.store)

    def find_candidate(self, name: str | None) -> CandidateResults:
        """A candidate by its name on the leaderboard (None: the first). Raises SpecError for another name, StoreError for one
        with missing runs."""
        known = {c.name: c for c in self.summary.candidates}
        if name is not None and name not in known:
            there = join_words(list(known), 6)
            raise SpecError(
                f"--candidate: '{name}' has no finished run in {self.store.folder}, which has {there}{did_you_mean(name, known)}"
            )
        found = self.summary.candidates[0] if name is None else known[name]
        if not found.is_complete:
            raise StoreError(
                f"candidate '{found.name}' has {len(found.runs)} of {found.n_planned} runs in {self.store.folder}; run the "
                "study again, which computes the missing ones"
            )
        return found

    def planned_runs(self, name: str) -> list[PlannedRun]:
        """The runs of a candidate, in the order of the splits, each with the values that were chosen for it.

        Raises SpecError for a candidate without a network, and StoreError where the runs are not those in the folder: the data,
        the weights or phoropter itself have changed since.
        """
        runs = [run for run in self.planned.compared if run.candidate.name == name]
        if runs:
            self._check_networks(runs[0])
        recorded = [str(row["key"]) for row in self.store.study["plan"] if row["candidate"] == name]
        if [run.key for run in runs] != recorded:
            raise StoreError(
                f"the runs of '{name}' in {self.store.folder} were computed with other data, weights or another phoropter than "
                "there are now; run the study again into a new folder"
            )
        return [recall_tuned_run(run, self.store.run(run.key).record["tuning"]) if run.trials else run for run in runs]

    def find_needs(self, run: PlannedRun) -> dict[str, str]:
        """What a candidate calls those it needs → their names in the study, which a sweep lengthens."""
        names = [self.planned.by_key[key].candidate.name for key in run.needs]
        return dict(zip(run.candidate.needs, names, strict=False))  # tuned to learn nothing of its teacher, it has one need less

    def _check_networks(self, run: PlannedRun) -> None:
        """Raises SpecError where a candidate, or a member whose answers it averages, is no network of pictures."""
        own = run.candidate
        for each in (own, *(self.planned.by_key[key].candidate for key in run.needs if own.is_ensemble)):
            if each.table is None:
                continue
            what = "reads samples, not pictures" if each.table.is_signal_network else f"has no network ({each.table.kind_word})"
            whose = f"'{each.name}'" if each is own else f"'{own.name}' averages '{each.name}', which"
            raise SpecError(f"{whose} {what}, and a bundle is made of a network of pictures: name one with --candidate")


def open_finished_study(
    folder: Path, on_progress: ProgressCallback, extensions: Sequence[Extension] = (), data: Any = None
) -> FinishedStudy:
    """Opens a results folder and the data of its study.

    extensions: the study's own code, where it is not trusted by name
    data: the object that was its data, where it was one; or a path, where its data lie now
    Raises StoreError, WeightsError for code that is missing or has changed, and what `load_study` raises.
    """
    store = open_results(folder)
    content = store.study
    source = SourceMap(str(folder / "study.json"))
    plain = _restore_extensions(state_seeds(content["study"]), _find_study_code(content, folder, extensions))
    plain = restore_written_out(plain, source)
    if data is not None and not isinstance(data, Path):
        plain["data"] = {**plain["data"], "object": data}
    study = validate_as(StudySpec, plain, source).with_context(source=source, base=read_base(content, folder))
    if isinstance(data, Path):
        study = _move_data(study, data)
    cache = cache_dir(folder)
    planned = make_plan(study, decode_images(load_study(study, cache), cache, on_progress))
    return FinishedStudy(store, planned, cache)


def _move_data(study: StudySpec, path: Path) -> StudySpec:
    """The study with its data at another path. Raises SpecError where its data are no path."""
    key = study.data.source
    if not isinstance(getattr(study.data, key), Path):
        raise SpecError(f"the data of the study are '{key}', which lies at no path: leave --data {path} out")
    place = path if find_address(path) else path.absolute()
    return study.model_copy(update={"data": study.data.model_copy(update={key: place})})


def _find_study_code(content: Mapping[str, Any], folder: Path, given: Sequence[Extension]) -> list[Extension]:
    """The extensions that study.json records: those given, else by their `module:NAME` if code is trusted."""
    return [
        find_code(
            f"the study in {folder}", Extension, {"reference": None, **entry}, [e for e in given if e.noun == entry["kind"]]
        )
        for entry in content.get("extensions", ())
    ]


def _restore_extensions(value: Any, known: Sequence[Extension]) -> Any:
    """Plain data with each extension in the place of its recorded identity, or of the `module:NAME` of the study file."""
    if isinstance(value, dict):
        same = (e for e in known if e.identity() == value)
        return next(same, None) or {key: _restore_extensions(item, known) for key, item in value.items()}
    if isinstance(value, str):
        return next((e for e in known if e.reference == value), value)
    return [_restore_extensions(item, known) for item in value] if isinstance(value, list) else value
