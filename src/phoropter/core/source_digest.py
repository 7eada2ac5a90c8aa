"""The digest of a value that holds code: its source, and what it was made with.

A function is its source, its default arguments, what its closure holds, and what it names in its own module: functions, classes
and constants, and what these name there. A class is its source, its bases in the module and what its methods name. An object is
the source of its class and its attributes; arrays and tensors are their bytes; plain data is its `repr`.

Left out: what is imported from other modules, because following that would digest half of every library; source typed at a
prompt, of which only the name is known; the state of loggers and modules, which change without changing a result.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import sys
import types
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel

MAX_DEPTH = 40  # of objects inside objects; what lies deeper counts by its type alone
_PLAIN = (str, bytes, int, float, complex, bool, type(None))
_CONTAINERS = (tuple, list, dict, set, frozenset, np.ndarray)  # constants of a module
_NAMED = (types.ModuleType, logging.Logger, types.BuiltinFunctionType, types.MethodDescriptorType, types.MethodWrapperType)
_FOUND_AT_ADDRESS = " at 0x"


def digest_value(value: Any) -> str:
    """Hex digest of functions, objects and data; equal code with equal contents gives equal digests, in every process."""
    return _Digest().digest(value)


class _Digest:
    """One digest. `known`: id → the object, kept so that no other takes its id, and its digest; empty while it is computed."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, str]] = {}
        self.depth = 0

    def digest(self, value: Any) -> str:
        if isinstance(value, _PLAIN):
            return _hash_text(type(value).__name__, repr(value))
        if id(value) in self.known:
            return self.known[id(value)][1] or "inside itself"
        if self.depth >= MAX_DEPTH:
            return _type_name(value)
        self.known[id(value)] = (value, "")
        self.depth += 1
        result = _hash_text(*self._parts(value))
        self.depth -= 1
        self.known[id(value)] = (value, result)
        return result

    def _parts(self, value: Any) -> Iterable[str]:
        if inspect.isfunction(value):
            return self._function_parts(value)
        if inspect.ismethod(value):
            return "method", self.digest(value.__func__), self.digest(value.__self__)
        if inspect.isclass(value):
            return self._class_parts(value)
        if isinstance(value, functools.partial):
            return "partial", *map(self.digest, (value.func, value.args, value.keywords))
        if isinstance(value, (tuple, list)):
            return _type_name(value), *map(self.digest, value), *self._state_parts(value)
        if isinstance(value, (set, frozenset)):
            return _type_name(value), *sorted(map(self.digest, value))
        if isinstance(value, PurePath):  # by its text alone: what else it holds differs between Pythons
            return "path", value.as_posix()
        if isinstance(value, Mapping):
            items = sorted((self.digest(key), self.digest(item)) for key, item in value.items())
            return _type_name(value), *(text for pair in items for text in pair)
        return _array_parts(value) or self._object_parts(value)

    def _function_parts(self, function: types.FunctionType) -> Iterable[str]:
        yield from ("function", _read_source(function))
        yield self.digest((function.__defaults__, function.__kwdefaults__))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                yield f"{name}={self.digest(cell.cell_contents)}"
            except ValueError:  # a cell that nothing was put into yet
                yield f"{name} is empty"
        yield from self._named_parts(function)

    def _class_parts(self, kind: type) -> Iterable[str]:
        yield from ("class", _read_source(kind))
        yield from (self.digest(base) for base in kind.__bases__ if base.__module__ == kind.__module__)
        for member in vars(kind).values():
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if inspect.isfunction(function) and function.__module__ == kind.__module__:
                yield from self._named_parts(function)

    def _named_parts(self, function: types.FunctionType) -> Iterable[str]:
        """What the code of a function names in its own module."""
        for name in sorted(_names_in(function.__code__)):
            value = function.__globals__.get(name)
            own_code = inspect.isfunction(value) or inspect.isclass(value)
            if (own_code and value.__module__ == function.__module__) or isinstance(value, (*_PLAIN, *_CONTAINERS)):
                yield f"{name}={self.digest(value)}"

    def _object_parts(self, value: Any) -> Iterable[str]:
        if isinstance(value, (*_NAMED, types.WrapperDescriptorType, weakref.ref)):
            return "by name", getattr(value, "__qualname__", ""), str(getattr(value, "__name__", "")), _type_name(value)
        if isinstance(value, np.ndarray):  # of objects
            return "array", str(value.shape), self.digest(value.tolist())
        state = list(self._state_parts(value))
        if not state and _FOUND_AT_ADDRESS not in (text := repr(value)):
            state = [text]
        return "object", _read_source(type(value)), *state

    def _state_parts(self, value: Any) -> Iterable[str]:
        """The fields of a dataclass or spec, else the attributes; without values that are only kept to save time."""
        kind = type(value)
        if isinstance(value, BaseModel):
            state = {name: getattr(value, name) for name in kind.model_fields}
        elif is_dataclass(value):
            state = {f.name: getattr(value, f.name) for f in fields(value)}
        else:
            state = dict(getattr(value, "__dict__", {}))
            state = {k: v for k, v in state.items() if not isinstance(getattr(kind, k, None), functools.cached_property)}
            if kind.__module__.partition(".")[0] not in sys.stdlib_module_names:  # whose slots hold what was computed once
                slots = [s for base in kind.__mro__ for s in _slot_names(base) if hasattr(value, s)]
                state |= {name: getattr(value, name) for name in slots}
        return [f"{name}={self.digest(state[name])}" for name in sorted(state)]


def _names_in(code: types.CodeType) -> set[str]:
    """The names that code looks up, that of functions defined inside it included."""
    inner = (_names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def _slot_names(kind: type) -> list[str]:
    slots = kind.__dict__.get("__slots__", ())
    return [s for s in ((slots,) if isinstance(slots, str) else slots) if s not in ("__dict__", "__weakref__")]


def _array_parts(value: Any) -> tuple[str, ...]:
    """Type, shape and bytes of an array or a tensor; empty for anything else. Torch is not imported for it."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.device.type == "meta":
            return "tensor", str(value.dtype), str(tuple(value.shape))
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return "tensor", str(value.dtype), str(tuple(value.shape)), hashlib.sha256(content.tobytes()).hexdigest()
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        return "array", str(value.dtype), str(value.shape), hashlib.sha256(value.tobytes()).hexdigest()
    return ()


def _read_source(code: Any) -> str:
    """The source of a function or class; its name where there is none."""
    try:
        # Of the code object: a decorated function would give the source of what it wraps, which its closure holds anyway
        return inspect.getsource(getattr(code, "__code__", code))
    except (OSError, TypeError):  # typed at a prompt, or compiled
        return f"{getattr(code, '__module__', '')}.{getattr(code, '__qualname__', repr(type(code)))}"


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _hash_text(*parts: str) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(f"{len(part)}:{part}".encode(errors="surrogatepass"))
    return hashed.hexdigest()
