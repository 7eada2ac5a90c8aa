"""What each key of a study file means: read from the docstrings of the specs, for the reference pages and the JSON Schema."""

from __future__ import annotations

import inspect
import re
import typing
from typing import Any

from phoropter.core.spec import Spec

_FIELD_LINE = re.compile(r"^(\w+(?:, \w+)*):(?:\s+|$)(.*)")


def describe_fields(spec: type[Spec]) -> dict[str, str]:
    """Field name → its description in the docstring of the class that declares it, or else of the field itself (`Field`).

    Fields without one are absent.
    """
    described = {name: field.description for name, field in spec.model_fields.items() if field.description}
    for declaring in reversed(spec.__mro__):
        names = set(getattr(declaring, "__annotations__", {})) & set(spec.model_fields)
        described |= _parse_docstring(inspect.cleandoc(declaring.__dict__.get("__doc__") or ""), names)
    return described


def describe_spec(spec: type[Spec]) -> str:
    """The first paragraph of a spec's docstring, in one line."""
    return inspect.cleandoc(spec.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _parse_docstring(text: str, names: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    current: list[str] = []
    for line in text.splitlines():
        for number, piece in enumerate(re.split(r" · (?=\w+(?:, \w+)*: )", line)):
            match = _FIELD_LINE.match(piece)
            if match and set(match[1].split(", ")) & names:
                current = [name for name in match[1].split(", ") if name in names]
                found |= dict.fromkeys(current, match[2].strip())
            elif not line.strip():
                current = []
            else:
                joint = " " if number == 0 else " · "
                found |= {name: (found[name] + joint + piece.strip()).strip() for name in current}
    return found


def nested_specs(spec: type[Spec]) -> list[type[Spec]]:
    """The spec and all specs that its fields hold, depth first, each once."""
    found: list[type[Spec]] = []

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Spec):
            if annotation not in found:
                found.append(annotation)
                for field in annotation.model_fields.values():
                    visit(field.annotation)
            return
        for argument in typing.get_args(annotation):
            visit(argument)

    visit(spec)
    return found
