"""Specifications: plain data that a user writes, validated once, with errors that name the line and the nearest valid word.

`Spec` is the base class. `load_yaml` reads a file with PyYAML's safe loader (plain data only, no tags), keeps the line of each
key, and refuses duplicate keys, very large files, and anchors that expand into a very large document. Scalars follow YAML 1.2's
core schema: yes, no, on, off, 12:30 and dates are text, 1e-4 is a number; and 010 is text, because it is a name more often than
ten. `validate_as` turns plain data into a Spec, or raises SpecError with one sentence.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from phoropter.core.columns import clean_cell
from phoropter.core.errors import SpecError, cut_message, did_you_mean
from phoropter.core.extensions import EXPECTED_EXTENSION, REFERENCE, Extension, suggest_wrapping
from phoropter.core.language.unnamed_values import describe_unnamed

MAX_FILE_BYTES = 1_000_000
MAX_NODES = 100_000
MAX_DEPTH = 50
MAX_NUMBER = 2**63

Location = tuple[str | int, ...]

# YAML 1.2, chapter 10.3.2, but numbers that begin with a zero: tag → (what it matches, its first letters).
_CORE_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?(?:0|[1-9][0-9]*)[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
}


class Spec(BaseModel):
    """Frozen, comparable, printable plain data; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)

    def plain(self) -> dict[str, Any]:
        """JSON-ready plain data, defaults included."""
        return self.model_dump(mode="json")

    def plain_changes(self) -> dict[str, Any]:
        """JSON-ready plain data without defaults, but with the `kind` of each part, without which it would be read as another."""
        changes: dict[str, Any] = _add_kinds(self, self.model_dump(mode="json", exclude_defaults=True))
        return changes

    def with_changes(self: SpecT, **changes: Any) -> SpecT:
        """A copy with some fields changed, validated again."""
        return type(self).model_validate({**self.model_dump(exclude_unset=True), **changes})


class PublicSpec(Spec):
    """A Spec that users make in Python by its name: what they write is refused in one sentence, as in a file."""

    unnamed_hint: typing.ClassVar[str] = ""  # what else somebody meant who gave a value without its name, where that is known

    def __init__(self, /, *unnamed: typing.Never, **fields: Any) -> None:
        if unnamed:
            names = [n for n, f in type(self).model_fields.items() if f.is_required()] or [*type(self).model_fields][:1]
            raise SpecError(describe_unnamed(type(self).__name__, unnamed, names, self.unnamed_hint))
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecError(_describe_error(type(self), error, SourceMap(type(self).__name__), ())) from None

    # As pydantic's own __init__ is marked: a part of another spec is then validated without this call, and keeps its place.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def _add_kinds(value: Any, plain: Any) -> Any:
    """Plain data of a value with the `kind` of each spec in it, also in lists and mappings, where augmentation steps stand."""
    if isinstance(value, BaseModel) and isinstance(plain, dict):
        full = {name: _add_kinds(getattr(value, name, None), part) for name, part in plain.items()}
        return full | ({"kind": getattr(value, "kind")} if "kind" in type(value).model_fields else {})  # noqa: B009
    if isinstance(value, Mapping) and isinstance(plain, dict):
        return {name: _add_kinds(value.get(name), part) for name, part in plain.items()}
    if isinstance(value, list | tuple) and isinstance(plain, list) and len(value) == len(plain):
        return [_add_kinds(*pair) for pair in zip(value, plain, strict=True)]
    return plain


SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True)
class SourceMap:
    """Where plain data came from: a name for messages, the line of each key, and the place of those given elsewhere (`--set`)."""

    name: str = "the study"
    lines: Mapping[Location, int] = field(default_factory=dict)
    elsewhere: Mapping[Location, str] = field(default_factory=dict)

    def describe_location(self, location: Location) -> str:
        """`study.yaml, line 7` for the nearest enclosing key whose line is known, else the name alone."""
        for end in range(len(location), -1, -1):
            if location[:end] in self.elsewhere:
                return self.elsewhere[location[:end]]
            if location[:end] in self.lines:
                return f"{self.name}, line {self.lines[location[:end]]}"
        return self.name


def write_name_as_text(value: Any) -> Any:
    """YAML reads a class called 3 as a number, and one called true as a truth value, which is refused."""
    if value is None or isinstance(value, bool):
        raise ValueError(f"{value!r} is no name: put quotes around a name that YAML reads as a value, as in 'true' or 'null'")
    return clean_cell(value) if isinstance(value, (int, float)) else value


ClassName = typing.Annotated[str, BeforeValidator(write_name_as_text)]  # as a user writes the name of a class, group or site


def validate_as(kind: type[SpecT], data: Any, source: SourceMap | None = None, at: Location = ()) -> SpecT:
    """Plain data → a `kind`. Raises SpecError for the first mistake, with its line and the nearest valid word."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise SpecError(_describe_error(kind, error, source or SourceMap(), at)) from None


def load_yaml(path: Path) -> list[tuple[Any, SourceMap]]:
    """Every document of a YAML file as (plain data, SourceMap). Raises SpecError for a missing, oversized or malformed file."""
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read as UTF-8 text ({error}): save it as UTF-8") from None
    if size > MAX_FILE_BYTES:
        raise SpecError(f"{path} has {size:,} bytes; a study file has at most {MAX_FILE_BYTES:,}")
    return parse_yaml(text, path.name)


def parse_yaml(text: str, source: str) -> list[tuple[Any, SourceMap]]:
    """Every document of a YAML text as (plain data, SourceMap). Raises SpecError, which begins with `source`."""
    import yaml

    try:
        return [_parse_document(node, source) for node in yaml.compose_all(text, Loader=_core_loader()) if node is not None]
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpecError(f"{source}{line}: not valid YAML: {error.problem or error}") from None
    except yaml.reader.ReaderError as error:
        where = f"{source}, line {text.count(chr(10), 0, error.position) + 1}"
        raise SpecError(f"{where}: not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{source}: not valid YAML: {cut_message(error)}") from None
    except RecursionError:
        raise SpecError(f"{source}: brackets or keys are nested more than {MAX_DEPTH} deep; write it flatter") from None


@cache
def _core_loader() -> Any:
    """PyYAML's safe loader, which reads scalars by YAML 1.1, with the scalars of YAML 1.2."""
    import yaml

    class CoreLoader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}

    for tag, (expression, first) in _CORE_SCALARS.items():
        CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{expression})$"), first)
    return CoreLoader


def _parse_document(root: Any, name: str) -> tuple[Any, SourceMap]:
    import yaml

    lines: dict[Location, int] = {}
    count = 0
    constructor = yaml.constructor.SafeConstructor()

    def convert_node(node: Any, at: Location) -> Any:
        nonlocal count
        count += 1
        line = node.start_mark.line + 1
        if count > MAX_NODES or len(at) > MAX_DEPTH:
            raise SpecError(
                f"{name}, line {line}: the file expands into more than {MAX_NODES:,} values; write it without anchors"
            )
        lines.setdefault(at, line)
        if node.tag not in yaml.SafeLoader.yaml_constructors:
            raise SpecError(f"{name}, line {line}: the tag {node.tag} is refused; only plain data is read")
        if isinstance(node, yaml.MappingNode):
            out: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                key = constructor.construct_object(key_node)
                if not isinstance(key, (str, int)):
                    raise SpecError(
                        f"{name}, line {key_node.start_mark.line + 1}: a key must be a word, not {key!r}: put quotes around it"
                    )
                if key in out:
                    raise SpecError(f"{name}, line {key_node.start_mark.line + 1}: the key '{key}' is given twice; keep one")
                lines[(*at, key)] = key_node.start_mark.line + 1
                out[key] = convert_node(value_node, (*at, key))
            return out
        if isinstance(node, yaml.SequenceNode):
            return [convert_node(item, (*at, i)) for i, item in enumerate(node.value)]
        try:
            value = constructor.construct_object(node)
        except yaml.constructor.ConstructorError as error:
            raise SpecError(f"{name}, line {line}: {error.problem}; only plain data is read") from None
        except (ValueError, OverflowError):  # a number of thousands of digits, a date that no calendar has
            raise SpecError(f"{name}, line {line}: {node.value[:40]!r} cannot be read as a value; put quotes around it") from None
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise SpecError(f"{name}, line {line}: a number of {len(node.value)} digits is too large")
        return value

    return convert_node(root, ()), SourceMap(name, lines)


def _describe_error(kind: type[Spec], error: ValidationError, source: SourceMap, at: Location) -> str:
    errors = sorted(error.errors(include_url=False), key=_error_priority)
    first = next((e for e in errors if _suggest_extension(kind, e)), errors[0])
    path = _strip_union_branches(first["loc"])
    where = source.describe_location((*at, *path))
    dotted = ".".join(str(p) for p in (*at, *path))
    if hint := _suggest_extension(kind, first):
        return f"{where}: {dotted + ': ' if dotted else ''}{hint}"
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, first["loc"][:-1])
        word = str(first["loc"][-1])
        inside = f" in {'.'.join(str(p) for p in (*at, *path[:-1]))}" if (*at, *path[:-1]) else ""
        hint = (
            _name_owner(kind, word) or did_you_mean(word, known) or f"; known keys are {', '.join(sorted(known))}" * bool(known)
        )
        return f"{where}: unknown key '{word}'{inside}{hint}"
    if first["type"] == "missing":
        return f"{where}: the key '{dotted}' is required and was not given"
    if first["type"] == "literal_error":
        expected = str(first.get("ctx", {}).get("expected", ""))
        words = [w.strip().strip("'") for w in expected.replace(" or ", ", ").split(",")]
        return f"{where}: {dotted} is {first['input']!r}, expected {expected}{did_you_mean(str(first['input']), words)}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if first["type"] in ("value_error", "assertion_error"):
        return f"{where}: {dotted + ': ' if dotted else ''}{message}"
    message = message[0].lower() + message[1:]
    for theirs, word in _WORDS_OF_YAML.items():
        message = message.replace(theirs, word)
    came = f"{dotted or 'the value'} is {_shorten_repr(first['input'])}"
    return f"{where}: {came}, which does not fit: {message.replace('input ', 'it ', 1)}"


_WORDS_OF_YAML = {
    "a valid tuple": "a list in brackets",
    "a valid list": "a list in brackets",
    "a valid dictionary": "a mapping of keys",
}


def _name_owner(kind: type[Spec], word: str) -> str:
    """Where a key belongs that was written beside the mapping it is for, as `seeds` beside `protocol`; else empty."""
    owners = [name for name, field in kind.model_fields.items() if word in _fields_at(field.annotation, ())]
    return f": it is a key of {' and of '.join(owners)}, as in `{owners[0]}: {{{word}: …}}`" if owners else ""


def _suggest_extension(kind: type[Spec], error: Any) -> str:
    """How to wrap a bare function or network where a place takes an Extension, itself or in a field of a mapping; else empty."""
    if error["type"] in ("value_error", "assertion_error", "extra_forbidden"):
        return ""
    here = _types_at(kind, error["loc"])
    inside = [f.annotation for k in here if isinstance(k, type) and issubclass(k, BaseModel) for f in k.model_fields.values()]
    wanted = (k for k in [*here, *_flatten_types(inside)] if isinstance(k, type) and issubclass(k, Extension))
    extension = next(wanted, None)
    return "" if extension is None else suggest_wrapping(error["input"], extension)


def error_message(error: ValueError) -> str:
    """The first thing wrong in a ValueError, without what pydantic says about itself."""
    if isinstance(error, ValidationError):
        first = min(error.errors(include_url=False), key=_error_priority)
        return first["msg"].removeprefix("Value error, ")
    return cut_message(error)


def _error_priority(error: Any) -> tuple[int, int]:
    """Sort key: an error deep inside one branch of a union says more than `not a string` from another branch.

    Where a name or an Extension is taken, `module:NAME` was meant as an Extension and anything else as a name.
    """
    telling = error["type"] in ("extra_forbidden", "value_error", "literal_error")
    reference = isinstance(error["input"], str) and REFERENCE.fullmatch(error["input"]) is not None
    if (error["type"] == "literal_error" and reference) or EXPECTED_EXTENSION in error["msg"]:
        telling = False
    return (0 if telling else 1, -len(error["loc"]))


_UNION_BRANCHES = {"str", "int", "float", "bool", "constrained-str", "constrained-int", "constrained-float"}


def _strip_union_branches(location: Sequence[str | int]) -> Location:
    """A pydantic location without the names of union branches, which the user never wrote."""
    return tuple(p for p in location if isinstance(p, int) or not (p[:1].isupper() or "[" in p or p in _UNION_BRANCHES))


def _fields_at(kind: Any, location: Iterable[str | int]) -> list[str]:
    """The keys a user may write at a location."""
    models = [k for k in _types_at(kind, location) if isinstance(k, type) and issubclass(k, BaseModel)]
    return [name for m in models for name in m.model_fields]


def _types_at(kind: Any, location: Iterable[str | int]) -> list[Any]:
    """The types that a location may have: follows fields through unions, lists and branch names."""
    kinds: list[Any] = [kind]
    for part in location:
        following: list[Any] = []
        for k in _flatten_types(kinds):
            if isinstance(part, str) and isinstance(k, type) and part in (k.__name__, _discriminator_value(k)):
                following.append(k)
            elif isinstance(k, type) and issubclass(k, BaseModel) and part in k.model_fields:
                following.append(k.model_fields[str(part)].annotation)
        kinds = following or kinds
    return _flatten_types(kinds)


def _discriminator_value(model: type) -> Any:
    """The value of `kind` by which a union knows this branch."""
    return model.model_fields["kind"].default if issubclass(model, BaseModel) and "kind" in model.model_fields else None


def _flatten_types(kinds: Iterable[Any]) -> list[Any]:
    out: list[Any] = []
    for k in kinds:
        origin = typing.get_origin(k)
        if origin in (typing.Union, types.UnionType, list, tuple, dict, Sequence):
            out += _flatten_types(a for a in typing.get_args(k) if a is not type(None) and a is not Ellipsis)
        elif origin is typing.Annotated:
            out += _flatten_types(typing.get_args(k)[:1])
        else:
            out.append(k)
    return out


def _shorten_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
