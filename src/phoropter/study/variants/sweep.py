"""The sweeps of a study, expanded into variants without sweeps, so that planning and running need not know them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from phoropter.core.errors import SpecError, did_you_mean, join_words
from phoropter.core.extensions import Extension
from phoropter.core.spec import Location, SourceMap, validate_as
from phoropter.data.spec import DataSpec
from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.presets import parse_recipe

SETTINGS_MARK = " · "  # between the name of a candidate and the swept values


@dataclass(frozen=True)
class SweepVariant:
    """One combination of the sweeps' values, with its data and candidates; `settings` is empty without sweeps."""

    settings: dict[str, Any]
    data: DataSpec
    candidates: tuple[Candidate, ...]


def expand_sweep(study: StudySpec) -> Iterator[SweepVariant]:
    """Every combination of the sweep's values, in order. Raises SpecError for a sweep over an unknown key."""
    sweep = study.sweep
    for path, values in sweep.items():
        part, _, name = path.partition(".")
        if part not in _SWEEPABLE_PARTS or not name:
            where = study.source.describe_location(("sweep", path))
            raise SpecError(
                f"{where}: a sweep is over {join_words([p + '.…' for p in _SWEEPABLE_PARTS])}, "
                f"but '{path}' came{did_you_mean(part, _SWEEPABLE_PARTS)}"
            )
        if not values:
            raise SpecError(
                f"{study.source.describe_location(('sweep', path))}: the sweep over {path} has no values; list at least one"
            )
    for combination in itertools.product(*sweep.values()):
        settings = dict(zip(sweep, combination, strict=True))
        data = study.data
        candidates = study.parsed_candidates
        for path, value in settings.items():
            part, _, name = path.partition(".")
            if part == "data":
                changed = _set_dotted_key(data.model_dump(exclude_unset=True), name, value)
                data = validate_as(DataSpec, changed, study.source, ("sweep", path))
            else:
                candidates = [apply_setting(c, path, value, study.source, ("sweep", path)) for c in candidates]
        yield SweepVariant(settings, data, tuple(add_settings_to_name(c, settings) for c in candidates))


_SWEEPABLE_PARTS = ("recipe", "data", "head", "fusion", "distillation")


def apply_setting(candidate: Candidate, path: str, value: Any, source: SourceMap, at: Location) -> Candidate:
    """A candidate with one key changed, or as it is where it has no such part. Raises SpecError for a value that is not valid."""
    part, _, name = path.partition(".")
    if candidate.table is not None:  # nothing of it is trained by a recipe
        return candidate
    if part == "recipe":
        recipe = parse_recipe(_set_dotted_key({}, name, value), candidate.recipe, source, at, swept=True)
        return candidate.model_copy(update={"recipe": recipe})
    if getattr(candidate, part) is None:
        return candidate
    plain = candidate.model_dump()
    return validate_as(Candidate, {**plain, part: _set_dotted_key(plain[part], name, value)}, source, at)


def _set_dotted_key(mapping: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    first, _, rest = dotted.partition(".")
    return {**mapping, first: _set_dotted_key(dict(mapping.get(first) or {}), rest, value) if rest else value}


def add_settings_to_name(candidate: Candidate, settings: dict[str, Any]) -> Candidate:
    words = [f"{path.rpartition('.')[2]} {_format_setting(value)}" for path, value in settings.items()]
    return candidate.model_copy(update={"name": f"{candidate.name}{SETTINGS_MARK}{', '.join(words)}"}) if words else candidate


def _format_setting(value: Any) -> str:
    if isinstance(value, Extension):
        return value.name
    if isinstance(value, dict):
        return " ".join(f"{k} {_format_setting(v)}" for k, v in value.items())
    return "+".join(_format_setting(v) for v in value) if isinstance(value, list) else str(value)
