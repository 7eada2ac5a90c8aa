"""KEY=VALUE of the command line (`--set recipe.epochs=3`), written into a study's plain data before it is checked.

A key is a path of keys with dots between them; an entry of a list is named by its place, from 0: `candidates.0.frozen=true`. A
value is typed as in a study file. Where the file has a short form (`recipe: finetune`), the key is added to what it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from phoropter.core.errors import SpecError
from phoropter.core.spec import Location, SourceMap, parse_yaml

_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")

# A word in the place of a mapping → the key of the mapping that it stands for.
_WORD_KEYS = {
    "recipe": "preset",
    "final_recipe": "preset",
    "protocol": "split",
    "second_protocol": "split",
    "optimizer": "kind",
    "schedule": "kind",
    "loss": "kind",
    "representation": "kind",
    "head": "kind",
    "backbone": "name",
    "candidates": "backbone",  # of an entry of this list
    "fuse": "name",
    "of": "name",
}


@dataclass(frozen=True)
class Assignment:
    """One KEY=VALUE. path: the key's parts, places in lists as integers · value: plain data · text: as it was written"""

    path: Location
    value: Any
    text: str


def parse_assignment(text: str) -> Assignment:
    """`recipe.epochs=3` → an Assignment. Raises SpecError for a text of another form, and for a value that is not valid YAML."""
    key, sign, written = text.partition("=")
    if not sign or not _KEY.fullmatch(key.strip()):
        raise SpecError(f"--set {text}: expected KEY=VALUE, as in recipe.epochs=3")
    documents = parse_yaml(written, f"--set {text}")
    path = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
    return Assignment(path, documents[0][0] if documents else None, text)


def apply_assignments(data: Any, source: SourceMap, assigned: Sequence[Assignment]) -> tuple[Any, SourceMap]:
    """The plain data of a study with values set, and where each came from. Raises SpecError for a place that is not there."""
    for each in assigned:
        data = _set_value(data, each, 0)
    places = {each.path: f"--set {each.text}" for each in assigned}
    return data, replace(source, elsewhere={**source.elsewhere, **places})


def _set_value(data: Any, assigned: Assignment, depth: int) -> Any:
    """A copy of `data`, found at the first `depth` parts of the path, with the value set inside it."""
    if depth == len(assigned.path):
        return assigned.value
    part, here = assigned.path[depth], ".".join(map(str, assigned.path[:depth]))
    if isinstance(data, list):
        if not isinstance(part, int) or part >= len(data):
            raise SpecError(f"--set {assigned.text}: {here} is a list of {len(data)}; name an entry by its place, from 0")
        return [_set_value(item, assigned, depth + 1) if place == part else item for place, item in enumerate(data)]
    mapping = _as_mapping(data, assigned, depth)
    key = str(part)
    return {**mapping, key: _set_value(mapping.get(key), assigned, depth + 1)}


def _as_mapping(data: Any, assigned: Assignment, depth: int) -> dict[Any, Any]:
    """What a short form stands for: nothing and `true` for no keys yet, a word for the key it gives."""
    if data is None or data is True:
        return {}
    if isinstance(data, dict):
        return data
    named = [part for part in assigned.path[:depth] if isinstance(part, str)]
    word_key = _WORD_KEYS.get(named[-1]) if named else None
    if isinstance(data, str) and word_key:
        return {word_key: data}
    here = ".".join(map(str, assigned.path[:depth])) or "the study"
    raise SpecError(f"--set {assigned.text}: {here} is {data!r} and has no keys; set {here} itself")
