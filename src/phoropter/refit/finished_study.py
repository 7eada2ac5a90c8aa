"""A finished study opened again: its plan, its data and its results, from the results folder alone.

The folder says what the study was and where its relative paths start. That the data, the weights and the arithmetic are still the
same is checked by the run keys, which are digests of them.

Left out: studies that need code of the user's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phoropter.core.errors import SpecError, StoreError, did_you_mean, join_words
from phoropter.core.files import cache_dir
from phoropter.core.spec import SourceMap, validate_as
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.store import Store
from phoropter.study.compute import decode_images
from phoropter.study.load import load_study
from phoropter.study.plan import Plan, PlannedRun, make_plan
from phoropter.study.progress import ProgressCallback
from phoropter.study.spec import StudySpec


@dataclass(frozen=True, eq=False)
class FinishedStudy:
    """store: its results folder · planned: its runs, as planned now · summary: its figures · cache: of pixels and features"""

    store: Store
    planned: Plan
    summary: StudySummary
    cache: Path

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
        """The runs of a candidate, in the order of the splits.

        Raises StoreError where they are not those in the folder: the data, the weights or phoropter itself have changed since.
        """
        runs = [run for run in self.planned.runs if run.candidate.name == name]
        recorded = [str(row["key"]) for row in self.store.study["plan"] if row["candidate"] == name]
        if [run.key for run in runs] != recorded:
            raise StoreError(
                f"the runs of '{name}' in {self.store.folder} were computed with other data, weights or another phoropter than "
                "there are now; run the study again into a new folder"
            )
        return runs


def open_finished_study(folder: Path, on_progress: ProgressCallback) -> FinishedStudy:
    """Opens a results folder and the data of its study. Raises StoreError, and what `load_study` raises."""
    store = Store(folder)
    content = store.study
    if content.get("extensions"):
        names = join_words([str(e["name"]) for e in content["extensions"]])
        raise StoreError(
            f"the study in {folder} uses code of its own ({names}), and refit makes no classifier of such studies; use the "
            "bundle of one of its runs (save_models: all)"
        )
    source = SourceMap(str(folder / "study.json"))
    base = (folder / str(content["base"])).resolve() if content.get("base") else None
    study = validate_as(StudySpec, content["study"], source).with_context(source=source, base=base)
    cache = cache_dir(folder)
    planned = make_plan(study, decode_images(load_study(study, cache), cache, on_progress))
    return FinishedStudy(store, planned, collect_summary(store), cache)
