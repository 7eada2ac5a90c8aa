"""Prints the reference of a study file's keys: type, default and description of each. `--write` writes docs/reference/.

The descriptions are those of the specs' own docstrings, so a key without a line there is an error (tests/test_reference.py).
"""

from __future__ import annotations

import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from phoropter.commands.json_shapes import DOCUMENTS
from phoropter.commands.key_descriptions import describe_fields, describe_spec, nested_specs
from phoropter.core.extensions import Extension
from phoropter.core.spec import Spec
from phoropter.data.in_memory import InMemoryData
from phoropter.data.spec import DataSpec
from phoropter.data.splits.spec import ProtocolSpec
from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate_entry import CandidateEntry
from phoropter.training.candidates.recipe import Recipe

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "reference"
PAGES: dict[str, tuple[str, type[Spec]]] = {
    "study": ("A study file", StudySpec),
    "data": ("`data:`", DataSpec),
    "protocol": ("`protocol:`", ProtocolSpec),
    "candidates": ("`candidates:`", CandidateEntry),
    "recipe": ("`recipe:`", Recipe),
}


def type_text(annotation: Any) -> str:
    """A type as a user reads it: `1 | 2`, `list of text`, `mapping`."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(inner[0])
    if origin is typing.Literal:
        return " | ".join(f"`{_plain_text(value)}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys(type_text(a) for a in inner if a is not type(None)))
    if origin is tuple and len(inner) > 1 and Ellipsis not in inner:
        return f"{len(inner)} numbers"
    if origin in (tuple, list, set, frozenset) or str(origin) == "<class 'collections.abc.Sequence'>":
        return f"list of {type_text(inner[0])}" if inner else "list"
    if origin is dict or annotation is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        page = next((f"{name}.md" for name, (_, root) in PAGES.items() if root is annotation), f"#{annotation.__name__.lower()}")
        return f"[{annotation.__name__}]({page})"
    if isinstance(annotation, type) and issubclass(annotation, Extension):
        article = "an" if annotation.__name__[0] in "AEIOU" else "a"
        return f"`module:NAME` of {article} {annotation.__name__}"
    words = {str: "text", int: "integer", float: "number", bool: "`true` | `false`", Any: "anything", Path: "path"}
    words[InMemoryData] = "an object, or its `module:NAME`"
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def undocumented_fields() -> list[str]:
    """`Class.field` of every key that has no description."""
    specs = {spec for _, root in PAGES.values() for spec in nested_specs(root)}
    return sorted(
        f"{spec.__name__}.{name}"
        for spec in specs
        for name in spec.model_fields
        if name != "kind" and not describe_fields(spec).get(name)
    )


def shared_descriptions() -> list[str]:
    """`Class: key, key` of every description that several keys of one spec share, which then says too little about each."""
    shared = []
    for spec in {spec for _, root in PAGES.values() for spec in nested_specs(root)}:
        names_of: dict[str, list[str]] = {}
        for name, description in describe_fields(spec).items():
            names_of.setdefault(description, []).append(name)
        shared += [f"{spec.__name__}: {', '.join(names)}" for names in names_of.values() if len(names) > 1]
    return sorted(shared)


def page_text(title: str, root: type[Spec], roots: set[type[Spec]]) -> str:
    """The Markdown of one page; other pages' roots are linked, not repeated."""
    parts = [f"# {title}\n\n<!-- written by scripts/reference.py; change the docstring of the spec -->\n"]
    for spec in nested_specs(root):
        if spec in roots and spec is not root:
            continue
        summary = describe_spec(spec)
        described = describe_fields(spec)
        rows = [_field_row(name, spec.model_fields[name], described.get(name, "")) for name in _own_fields_first(spec)]
        head = f"## {spec.__name__}\n\n{summary}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"
        parts.append(head + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _own_fields_first(spec: type[Spec]) -> list[str]:
    """Names of the fields: those that the class declares itself, then those of its base classes."""
    declared = [set(getattr(base, "__annotations__", {})) for base in spec.__mro__]
    return sorted(spec.model_fields, key=lambda name: next((i for i, names in enumerate(declared) if name in names), 0))


def _field_row(name: str, field: Any, description: str) -> str:
    if field.is_required():
        default = "required"
    elif field.default is not PydanticUndefined and not isinstance(field.default, Spec):
        default = "–" if field.default is None or field.default == () else f"`{_plain_text(field.default)}`"
    else:
        default = "see there"
    cells = (f"`{name}`", type_text(field.annotation), default, description or ("which one" if name == "kind" else ""))
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def _plain_text(value: Any) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def all_pages() -> dict[str, str]:
    roots = {root for _, root in PAGES.values()}
    return {f"{name}.md": page_text(title, root, roots) for name, (title, root) in PAGES.items()}


def all_json_schemas() -> dict[str, str]:
    """File under docs/reference/json/ → the JSON Schema of what `--json` of a command writes."""
    return {
        f"{name}.schema.json": json.dumps(shape.model_json_schema(), indent=1, ensure_ascii=False) + "\n"
        for name, shape in DOCUMENTS.items()
    }


def main() -> None:
    for name, text in {**all_pages(), **{f"json/{name}": text for name, text in all_json_schemas().items()}}.items():
        if "--write" in sys.argv:
            (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
            (FOLDER / name).write_text(text, encoding="utf-8")
        else:
            print(text)


if __name__ == "__main__":
    main()
