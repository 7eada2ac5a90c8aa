"""Imports torchvision and timm; no other module does.

A torchvision whose compiled operators do not match the installed torch (a CUDA build next to a CPU torch) fails on import, and
timm with it: "operator torchvision::nms does not exist", pytorch/vision#9085. Nothing here needs those operators, so on exactly
that error their two schemas are declared and the import is repeated. They are never declared beforehand, because they would clash
in a sound installation. What does not work then: `ops.nms`, `io.decode_image`, `v2.JPEG`; images are decoded by Pillow anyway.

Both would import torch's compiler, and so would a pass on torch's meta device. It takes about as long as torch itself, and only
compiling needs it. It is left to the first call of what needs it.

Left out: passing torchvision objects to worker processes, which would import torchvision before this module is loaded.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import torch

_MISSING_OPERATOR_ERROR = "operator torchvision::nms does not exist"
_NMS_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared_libraries: list[Any] = []  # referenced here, because a collected Library removes its schemas


@cache
def import_torchvision(part: str = "") -> ModuleType:
    """torchvision, or a submodule: `import_torchvision("transforms.v2.functional")`."""
    _ensure_torchvision()
    return _import_without_compiler(f"torchvision.{part}" if part else "torchvision")


@cache
def import_timm(part: str = "") -> ModuleType:
    """timm, or a submodule: `import_timm("layers")`."""
    _ensure_torchvision()
    return _import_without_compiler(f"timm.{part}" if part else "timm")


def describe_installation() -> dict[str, str]:
    """Versions of torch, torchvision and timm, and whether torchvision's compiled operators work; for `phoropter doctor`."""
    try:
        _ensure_torchvision()
        operators = "missing (not needed here; do not use torchvision.ops or its decoders)" if _declared_libraries else "working"
    except Exception as error:
        operators = f"torchvision cannot be imported: {type(error).__name__}: {error}".splitlines()[0]
    versions = {name: _installed_version(name) for name in ("torch", "torchvision", "timm")}
    return {**versions, "torchvision operators": operators}


def _ensure_torchvision() -> None:
    try:
        _import_without_compiler("torchvision")
    except RuntimeError as error:
        if _MISSING_OPERATOR_ERROR not in str(error) or _declared_libraries:
            raise
        _declare_operators()
        for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
            del sys.modules[name]
        _import_without_compiler("torchvision")


def _import_without_compiler(name: str) -> ModuleType:
    with _defer_compiler_import():
        return importlib.import_module(name)


class _LaterModule(ModuleType):
    """Stands for a module of the compiler for a while, and makes way where more is asked of it than the one function it has."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _LaterCompilerUtilities(_LaterModule):
    def is_compile_supported(self, device_type: str) -> bool:
        """What torchvision's RoI operators ask when they are called."""
        supported: bool = importlib.import_module(self.__name__).is_compile_supported(device_type)
        return supported


class _LaterCompiler(_LaterModule):
    """What functions of torch that are written in Python ask to be left alone by the compiler, and remember the answer."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.asked_for: list[Callable[..., Any]] = []

    def disable(self, fn: Callable[..., Any], recursive: bool = True, **_: Any) -> Callable[..., Any]:
        self.asked_for.append(fn)
        return fn

    def forget(self) -> None:
        """Lets them ask again, because the compiler may be there then."""
        for fn in self.asked_for:
            vars(fn).pop("__dynamo_disable", None)


@contextmanager
def _stand_in(module: _LaterModule) -> Iterator[None]:
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]


@contextmanager
def defer_compiler() -> Iterator[None]:
    """A pass on the meta device within it does not import torch's compiler (torch._dynamo); nothing is to be compiled there."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    compiler = _LaterCompiler("torch._dynamo")
    try:
        with _stand_in(compiler):
            yield
    finally:
        compiler.forget()


@contextmanager
def _defer_compiler_import() -> Iterator[None]:
    """What is imported within does not bring torch's compiler (torch._dynamo) along.

    torchvision imports it for one function, and timm for the decorator `torch.compiler.disable`, in whose place torch's own
    decorator for the same, which imports the compiler at the first call, is used meanwhile.
    """
    name, own, later = "torch._dynamo.utils", torch.compiler.disable, getattr(torch, "_disable_dynamo", None)
    if name in sys.modules or later is None:
        yield
        return

    def disable_later(fn: Callable[..., Any] | None = None, recursive: bool = True, *, reason: str | None = None) -> Any:
        return later(fn, recursive)

    torch.compiler.disable = disable_later
    try:
        with _stand_in(_LaterCompilerUtilities(name)):
            yield
    finally:
        torch.compiler.disable = own


def _declare_operators() -> None:
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}{_NMS_SCHEMA}")
    _declared_libraries.append(library)


def _installed_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
