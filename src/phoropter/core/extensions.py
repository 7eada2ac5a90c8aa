"""Extensions: objects of the user's own where a name would do, and how they are told apart.

A field of a spec that takes a name also takes an `Extension`: a network, a loss, a metric, an augmentation step. In Python the
object itself is passed; in a study file it is named by `module:NAME`, which imports and so runs code, and is refused unless the
file is trusted (`--trust-code`, or `trust_code()` in Python).

An extension is what its name and version say: they alone enter run keys. `source_digest` tells whether the code behind them has
changed since, so that results of two different things never stand under one key (study/worker compares it).
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, SerializationInfo
from pydantic_core import core_schema

from phoropter.core.errors import RunError, WeightsError
from phoropter.core.source_digest import digest_value

REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
EXPECTED_EXTENSION = "expected a phoropter "
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,63}")
_trusted_folder: ContextVar[Path | None] = ContextVar("trusted_folder", default=None)
_recorded_extensions: ContextVar[tuple[Extension, ...] | None] = ContextVar("recorded_extensions", default=None)

ExtensionT = TypeVar("ExtensionT", bound="Extension")


@dataclass(frozen=True, eq=False)
class Extension:
    """Base of every object a user may pass. Equal where class, name and version are equal.

    name:    a word of letters, digits and . _ + - that is not one of phoropter's own
    version: raise it whenever the object would compute something else

    `reference` is the `module:NAME` by which a study file named it, None for an object passed in Python.
    """

    name: str
    version: str = field(default="1", kw_only=True)
    reference: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"the name of this {self.noun} is {self.name!r}, expected a word of letters, digits and . _ + -")
        if not isinstance(self.version, str) or not _NAME.fullmatch(self.version):
            raise ValueError(
                f"the version of the {self.noun} '{self.name}' is {self.version!r}, expected a short text such as '1'"
            )

    @property
    def noun(self) -> str:
        """What messages call it: the class name in small letters."""
        return type(self).__name__.lower()

    def identity(self) -> dict[str, str]:
        """What enters run keys: {"name", "version"}."""
        return {"name": self.name, "version": self.version}

    def source_digest(self) -> str:
        """Hex digest of its fields: code with its defaults, closures and attributes (core/source_digest), and plain options."""
        return digest_value({f.name: getattr(self, f.name) for f in fields(self)})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extension) and type(self) is type(other) and self.identity() == other.identity()

    def __hash__(self) -> int:
        return hash((type(self), self.name, self.version))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate_value,
            serialization=core_schema.plain_serializer_function_ser_schema(_serialize_extension, info_arg=True),
        )

    @classmethod
    def parse_value(cls: type[ExtensionT], value: Any) -> ExtensionT:
        """An object of this class, `module:NAME`, or what a record holds of one → the object. Raises ValueError for others."""
        parsed: ExtensionT = cls._validate_value(value)
        return parsed

    @classmethod
    def _validate_value(cls, value: Any) -> Any:
        if isinstance(value, HeldExtension):
            value = value.extension
        if isinstance(value, cls):
            return value
        if isinstance(value, str) and REFERENCE.fullmatch(value):
            return resolve_reference(value, cls)
        known = _recorded_extensions.get()
        if known is not None and isinstance(value, dict) and set(value) == {"name", "version"}:
            same = (e for e in known if isinstance(e, cls) and e.identity() == value)
            return next(same, None) or _make_placeholder(cls, value)
        hint = suggest_wrapping(value, cls) or f"got {type(value).__name__} {str(value)[:60]!r}"
        raise ValueError(f"{EXPECTED_EXTENSION}{cls.__name__} or module:NAME, {hint}")


def suggest_wrapping(value: Any, kind: type[Extension]) -> str:
    """For a bare function, class or network where an extension is expected: how to wrap it. Empty for anything else."""
    if not callable(value) or isinstance(value, (Extension, HeldExtension)):
        return ""
    name = getattr(value, "__name__", type(value).__name__)
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING][1:]
    arguments = "".join(f", {field}=…" for field in required)
    noun = "class" if isinstance(value, type) else "function" if hasattr(value, "__name__") else "object"
    return f'got the {noun} {name}: wrap it in ph.{kind.__name__}("NAME"{arguments})'


class HeldExtension:
    """An extension inside `model_dump()`, from which a changed spec is made again; pydantic would unfold a bare dataclass."""

    def __init__(self, extension: Extension) -> None:
        self.extension = extension


def _serialize_extension(value: Extension, info: SerializationInfo) -> dict[str, str] | HeldExtension:
    """The identity in JSON, the object itself in Python."""
    return value.identity() if info.mode == "json" else HeldExtension(value)


@contextmanager
def trust_code(folder: Path | None = None) -> Iterator[None]:
    """Within it, `module:NAME` in a study file is imported; `folder` is searched first, as for a script that lies there.

    Trust only files you wrote or have read: importing a module runs it.
    """
    here = (folder or Path.cwd()).resolve()
    token = _trusted_folder.set(here)
    sys.path.insert(0, str(here))
    try:
        yield
    finally:
        _trusted_folder.reset(token)
        if str(here) in sys.path:
            sys.path.remove(str(here))


def is_code_trusted() -> bool:
    return _trusted_folder.get() is not None


def get_trusted_folder() -> Path | None:
    """The folder given to `trust_code`, for other processes to trust it too; None where code is not trusted."""
    return _trusted_folder.get()


@contextmanager
def read_recorded_extensions(extensions: Iterable[Extension] = ()) -> Iterator[None]:
    """Within it, {"name", "version"} in a bundle or a record stands for the extension given with that identity.

    Where none is given, it becomes a placeholder with the same identity, whose functions raise RunError when they are called: a
    bundle trained by an optimizer of the user's own predicts without it.
    """
    token = _recorded_extensions.set(tuple(extensions))
    try:
        yield
    finally:
        _recorded_extensions.reset(token)


class MissingCode:
    """Stands for the code of an extension of which only the identity was recorded."""

    def __init__(self, description: str) -> None:
        self.description = description

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise RunError(f"{self.description} is not at hand, only its name was recorded; pass the object of this name and version")


def _make_placeholder(cls: type[ExtensionT], identity: dict[str, str]) -> ExtensionT:
    placeholder = object.__new__(cls)
    code = MissingCode(f"the {cls.__name__} '{identity['name']}' (version {identity['version']})")
    for f in fields(cls):
        default = f.default_factory() if f.default_factory is not MISSING else code if f.default is MISSING else f.default
        object.__setattr__(placeholder, f.name, identity.get(f.name, default))
    return placeholder


def describe_code(extension: Extension) -> dict[str, Any]:
    """What a bundle records of an extension whose code it needs: {"reference", "name", "version", "source_digest"}."""
    return {"reference": extension.reference, **extension.identity(), "source_digest": extension.source_digest()}


def find_code(owner: str, kind: type[ExtensionT], entry: dict[str, Any], given: Iterable[Any]) -> ExtensionT:
    """The extension that `describe_code` described: one of `given`, else by its `module:NAME` if code is trusted.

    owner: what needs it, such as `bundle runs/x`. Raises WeightsError where it is missing, or its version or source differs.
    """
    name, version, reference = entry["name"], entry["version"], entry["reference"]
    found = next((e for e in given if isinstance(e, kind) and e.name == name), None)
    if found is None and reference is not None and is_code_trusted():
        try:
            found = kind.parse_value(reference)
        except ValueError as error:
            raise WeightsError(f"{owner} needs the {kind.__name__.lower()} '{name}': {error}") from None
    noun = f"the {kind.__name__.lower()} '{name}'"
    if found is None:
        trust = f", or trust its code ({reference}) by --trust-code if you have read it" if reference else ""
        raise WeightsError(
            f"{owner} needs the code of {noun} (version {version}), which is not stored with it; pass the object as "
            f"extensions=[...]{trust}"
        )
    if found.version != version:
        raise WeightsError(
            f"{owner} was saved with version {version} of {noun}, but version {found.version} was given; pass the version it was "
            "saved with"
        )
    if found.source_digest() != entry["source_digest"]:
        raise WeightsError(
            f"{owner} was saved with other code of {noun} (version {version}); restore that code, or train again under a new "
            "version"
        )
    return found


def collect_extensions(value: Any) -> Iterator[Extension]:
    """Every extension inside a spec, at any depth, in the order of its fields; one used twice comes twice."""
    if isinstance(value, Extension):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from collect_extensions(getattr(value, name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from collect_extensions(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from collect_extensions(item)


def resolve_reference(text: str, kind: type[ExtensionT]) -> ExtensionT:
    """`module:NAME` → the extension of that name. Raises ValueError as `import_reference`, and for another kind of object."""
    found = import_reference(text)
    if not isinstance(found, kind):
        raise ValueError(f"'{text}' is a {type(found).__name__}, expected a phoropter {kind.__name__}")
    object.__setattr__(found, "reference", text)
    return found


def import_reference(text: str) -> Any:
    """`module:NAME` → the object of that name. Raises ValueError where code is not trusted, or there is no such object."""
    if not is_code_trusted():
        raise ValueError(
            f"'{text}' names Python code, which is run only where it is trusted; if you wrote it, or have read the file that "
            "names it and its module, say --trust-code"
        )
    module_name, _, name = text.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"'{text}': the module '{module_name}' cannot be imported ({error})") from error
    if not hasattr(module, name):
        raise ValueError(f"'{text}': the module '{module_name}' has no '{name}'")
    return getattr(module, name)
