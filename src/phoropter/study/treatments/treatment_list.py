"""The treatments of a study: each augmentation of a candidate once, and the values of swept keys of its data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phoropter.core.spec import Spec
from phoropter.data.spec import DataSpec
from phoropter.study.spec import StudySpec
from phoropter.study.variants.sweep import SETTINGS_MARK, expand_sweep
from phoropter.training.candidates.candidate import Candidate

MAX_VALUES = 4  # values of one sweep that are shown: the first, the last and two between
AS_IT_IS = "As it is"


@dataclass(frozen=True)
class Treatment:
    """What is done to a picture: the data as they are read, the augmentation steps, and the centre crop after them.

    title, about: in words · crop: side of the centre crop in pixels; None: the whole picture
    """

    title: str
    about: str
    data: DataSpec
    steps: tuple[Any, ...] = ()
    crop: int | None = None


def list_treatments(parts: Sequence[StudySpec]) -> list[Treatment]:
    """As it is; then of the first part, and of others with its source: values of swept keys of the data, crops, augmentations."""
    first = parts[0].data
    source = first.model_dump(include={first.source})
    found = {AS_IT_IS: Treatment(AS_IT_IS, "What a network is shown where nothing is changed.", first)}
    for part in parts:
        if part.data.model_dump(include={part.data.source}) == source:
            for treatment in (*_list_swept_data(part), *_list_crops(part), *_list_augmentations(part)):
                found.setdefault(treatment.title, treatment)
    return list(found.values())


def _list_swept_data(part: StudySpec) -> Iterator[Treatment]:
    for path, values in part.sweep.items():
        if path.startswith("data."):
            shown = np.unique(np.linspace(0, len(values) - 1, min(MAX_VALUES, len(values))).astype(int))
            some = part.with_changes(sweep={path: [values[place] for place in shown]}, compare=None)
            for variant in expand_sweep(some):
                (value,) = variant.settings.values()
                about = f"With {path}: {value}, one of {len(values)} values that the study sweeps."
                yield Treatment(f"{path.rpartition('.')[2]} {value}", about, variant.data)


def _list_crops(part: StudySpec) -> Iterator[Treatment]:
    for crop in sorted({c.recipe.center_crop for c in part.parsed_candidates if c.recipe.center_crop}):
        about = "What a network is shown in testing: the centre of the stored picture."
        yield Treatment(f"centre crop of {crop} pixels", about, part.data, (), crop)


def _list_augmentations(part: StudySpec) -> Iterator[Treatment]:
    users: dict[str, list[Candidate]] = {}
    for candidate in (c for variant in expand_sweep(part) for c in variant.candidates):
        if candidate.recipe.augment:
            users.setdefault(" + ".join(map(_describe_step, candidate.recipe.augment)), []).append(candidate)
    for title, trained in users.items():
        recipe, names = trained[0].recipe, list(dict.fromkeys(c.name.partition(SETTINGS_MARK)[0] for c in trained))
        chance = any(_acts_by_chance(step) for step in recipe.augment)
        always = " A step that acts with a chance is shown acting." if chance else ""
        whose = names[0] if len(names) == 1 else f"{len(names)} candidates, such as {names[0]}"
        about = f"One draw of the augmentation of {whose}; in training each epoch draws anew.{always}"
        yield Treatment(title, about, part.data, tuple(map(_make_acting, recipe.augment)), recipe.center_crop)


def _acts_by_chance(step: Any) -> bool:
    return isinstance(step, Spec) and getattr(step, "p", 1.0) < 1


def _make_acting(step: Any) -> Any:
    """A step that acts with a chance, acting always."""
    return step.with_changes(p=1.0) if _acts_by_chance(step) else step


def _describe_step(step: Any) -> str:
    """Its name, and the options that are not its defaults: `slit-cutmix, width area`."""
    if not isinstance(step, Spec):  # one of the user's own
        return str(step.name)
    changed = [f"{key} {value}" for key, value in step if key != "kind" and value != type(step).model_fields[key].default]
    return ", ".join([str(getattr(step, "kind", "")), *changed])
