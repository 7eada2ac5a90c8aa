"""Whether a results folder belongs to another study than the one that is to be written into it. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from phoropter.core.errors import StoreError
from phoropter.core.spec import SourceMap, validate_as
from phoropter.results.store import Store
from phoropter.study.plan import Plan
from phoropter.study.records.extensions_used import replace_extensions
from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.entry import CandidateEntry
from phoropter.training.candidates.recipe import Recipe

_PARTS = ("data", "protocol", "recipe", "candidates", "sweep", "tune")  # on which run keys depend


def raise_on_other_study(earlier: Mapping[str, Any], planned: Plan, store: Store) -> None:
    """Raises StoreError where a results folder holds another study: one without a run in common, of another name or content.

    earlier: its study.json; empty where there is none
    A study of the same name may replace a smoke test, and one of which no run is finished. Where images are not decoded yet and
    bad ones may be left out, run keys are not known, and nothing is raised.
    """
    name = earlier.get("name")
    if planned.study.data.control is not None:  # its folder follows that of its study, which was let into its own
        return
    if name is None or {str(row["key"]) for row in earlier["plan"]} & planned.by_key.keys():
        return
    if not all(images.has_settled_rows for images in planned.image_sets):
        return
    parts = find_changed_parts(earlier, planned)
    same_name = name == planned.study.name
    if same_name and (not parts or earlier.get("scale") or not any(True for _ in store.runs())):
        return
    what = f"another study of the name '{name}'" if same_name else f"the study '{name}', and this one is '{planned.study.name}'"
    differ = f" (different: {', '.join(parts)})" if parts else ""
    raise StoreError(
        f"{store.folder} holds {what}, without a run in common{differ}: choose another folder with -o, or say --add to write "
        "this study's plan and report over the other's and keep all runs"
    )


def find_changed_parts(earlier: Mapping[str, Any], planned: Plan) -> list[str]:
    """The parts of a study, in its own words, in which it differs from an earlier one."""
    before, now = state_seeds(earlier.get("study", {})), json.loads(json.dumps(study_to_plain(planned.study)))
    parts = [part for part in _PARTS if before.get(part) != now.get(part)]
    fingerprint = earlier.get("dataset", {}).get("fingerprint")
    same = fingerprint == planned.image_sets[0].dataset.fingerprint
    contents = [] if same or "data" in parts else ["contents of the data"]
    return contents + parts


def study_to_plain(study: StudySpec) -> dict[str, Any]:
    """A study as study.json records it, extensions replaced by their identity."""
    # These fields may hold anything, objects of the user's own included, which pydantic cannot write as JSON.
    open_fields = {name: replace_extensions(getattr(study, name)) for name in ("recipe", "candidates", "sweep")}
    open_fields["tune"] = study.tune and study.tune.model_copy(update={"grid": replace_extensions(study.tune.grid)})
    return state_seeds(study.model_copy(update=open_fields).plain_changes())


def state_seeds(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded study with its seeds written out; where it has none, they were [0].

    Without them a study of frozen networks that asked for one seed would be read as one that leaves it open, and get five.
    """
    return {**plain, "protocol": {"seeds": [0], **(plain.get("protocol") or {})}}


def restore_written_out(plain: Mapping[str, Any], source: SourceMap) -> dict[str, Any]:
    """A recorded study as a StudySpec reads it: candidates and recipe that a smoke version wrote out in full, as these again.

    Others stand in study.json as a study file has them, and stay. Raises SpecError for what is neither.
    """
    entries, short = plain["candidates"], set(CandidateEntry.model_fields)
    if all(not isinstance(entry, Mapping) or set(entry) <= short for entry in entries):
        return dict(plain)
    candidates = [validate_as(Candidate, entry, source, ("candidates", i)) for i, entry in enumerate(entries)]
    return {**plain, "candidates": candidates, "recipe": validate_as(Recipe, plain["recipe"], source, ("recipe",))}
