"""The trials of `tune`: the candidates that each combination of its values makes of a candidate, tried on inner folds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phoropter.core.errors import SpecError, did_you_mean, join_words
from phoropter.core.spec import validate_as
from phoropter.study.settings.side_specs import TuneSpec
from phoropter.study.spec import StudySpec
from phoropter.study.variants.setting_effects import setting_affects
from phoropter.study.variants.sweep import apply_setting
from phoropter.training.candidates.candidate import Candidate, find_conflict
from phoropter.training.candidates.table_spec import TableSpec

_TUNABLE_PARTS = ("recipe", "head", "fusion", "baseline")


@dataclass(frozen=True)
class Trial:
    """One combination of the tuned values, and the candidate with them."""

    settings: dict[str, Any]
    candidate: Candidate


def list_trials(study: StudySpec, candidates: Mapping[str, Candidate]) -> dict[str, tuple[Trial, ...]]:
    """Name in the study → the trials of each candidate that is tuned, in the order of the grid.

    candidates: complete, with their weights found. Raises SpecError for keys and names that are not there or change nothing, and
    for a candidate that others learn from or begin with, or that does so itself.
    """
    spec = study.tune
    if spec is None:
        return {}
    where = study.source.describe_location(("tune",))
    _check_keys(spec, where)
    for name in (n for n in spec.candidates if n not in candidates):
        raise SpecError(f"{where}: candidates: '{name}' is no candidate of this study{did_you_mean(name, candidates)}")
    found = {}
    for name in spec.candidates or candidates:
        paths = [path for path in spec.grid if _is_read(path, candidates[name])]
        if paths:
            _check_alone(name, candidates, where)
            try:
                found[name] = _expand_grid(study, candidates[name], {path: spec.grid[path] for path in paths})
            except SpecError as error:
                hint = "" if spec.candidates else f" (for '{name}'; tune: candidates names who is tuned)"
                raise SpecError(f"{error}{hint}") from None
        elif spec.candidates:
            raise SpecError(f"{where}: candidates: '{name}' reads none of {join_words(list(spec.grid))}; leave it out")
    if idle := next((p for p in spec.grid if not any(p in trials[0].settings for trials in found.values())), None):
        raise SpecError(f"{where}: no candidate that is tuned reads {idle}; leave it out, or add a candidate that does")
    return found


def _check_keys(spec: TuneSpec, where: str) -> None:
    for path in spec.grid:
        part, _, name = path.partition(".")
        if part not in _TUNABLE_PARTS or not name:
            raise SpecError(
                f"{where}: tune is over {join_words([p + '.…' for p in _TUNABLE_PARTS])}, but '{path}' came"
                f"{did_you_mean(part, _TUNABLE_PARTS)}; values of other parts are compared by a sweep"
            )
        if part == "baseline" and name != "classifier":
            raise SpecError(f"{where}: of a baseline the classifier can be tuned (baseline.classifier), but '{path}' came")
        if path in ("recipe.center_crop", "recipe.preset"):
            raise SpecError(
                f"{where}: {path} decides how images are stored or what a recipe reads; compare its values by a sweep"
            )


def _is_read(path: str, candidate: Candidate) -> bool:
    part, _, name = path.partition(".")
    if part == "baseline":
        table = candidate.table
        return table is not None and table.predictions is None and not table.is_signal_network  # which has a network of its own
    if candidate.table is not None or candidate.is_ensemble or not candidate.recipe.phases:
        return False
    unread = part == "recipe" and name.partition(".")[0] in candidate.recipe.unread_fields
    return setting_affects(path, candidate) and not unread


def _check_alone(name: str, candidates: Mapping[str, Candidate], where: str) -> None:
    """A student, a warm start or a selection among tuned runs would need these tuned inside each of its own inner folds."""
    learners = [other.name for other in candidates.values() if name in other.needs and (other.selects or not other.is_ensemble)]
    if candidates[name].needs or learners:
        reason = f"'{learners[0]}' learns from it or chooses it" if learners else "it learns from others or begins with them"
        raise SpecError(
            f"{where}: '{name}' cannot be tuned, because {reason}; name the candidates to tune under tune: candidates, or sweep"
        )


def _expand_grid(study: StudySpec, candidate: Candidate, grid: dict[str, list[Any]]) -> tuple[Trial, ...]:
    trials = []
    for combination in itertools.product(*grid.values()):
        settings, changed = dict(zip(grid, combination, strict=True)), candidate
        for path, value in settings.items():
            changed = _apply(study, changed, path, value)
        if conflict := find_conflict(changed):
            words = ", ".join(f"{path} {value}" for path, value in settings.items())
            raise SpecError(f"{study.source.describe_location(('tune',))}: '{candidate.name}' with {words}: {conflict}")
        trials.append(Trial(settings, changed))
    return tuple(trials)


def _apply(study: StudySpec, candidate: Candidate, path: str, value: Any) -> Candidate:
    part, _, name = path.partition(".")
    at = ("tune", path) if ("tune", path) in study.source.lines else ("tune", "grid", path)
    if part != "baseline":
        return apply_setting(candidate, path, value, study.source, at)
    assert candidate.table is not None
    table = validate_as(TableSpec, {**candidate.table.model_dump(), name: value}, study.source, at)
    return candidate.model_copy(update={"table": table})
