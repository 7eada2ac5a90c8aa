"""Imports torchvision and timm; no other module does.

A torchvision whose compiled operators do not match the installed torch (a CUDA build next to a CPU torch) fails on import, and
timm with it: "operator torchvision::nms does not exist", pytorch/vision#9085. Nothing here needs those operators, so on exactly
that error their two schemas are declared and the import is repeated. They are never declared beforehand, because they would clash
in a sound installation. What does not work then: `ops.nms`, `io.decode_image`, `v2.JPEG`; images are decoded by Pillow anyway.

Both would import torch's compiler, which takes longer than torch itself and which a prediction does not need. It is left to the
first call of what needs it.

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
    with _defer_compiler():
        return importlib.import_module(name)


class _LaterCompilerUtilities(ModuleType):
    """Stands for torch._dynamo.utils while others are imported, and makes way where they ask for more than one function."""

    def is_compile_supported(self, device_type: str) -> bool:
        """What torchvision's RoI operators ask when they are called."""
        supported: bool = importlib.import_module(self.__name__).is_compile_supported(device_type)
        return supported

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _defer_compiler() -> Iterator[None]:
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

    stands_in = _LaterCompilerUtilities(name)
    sys.modules[name], torch.compiler.disable = stands_in, disable_later
    try:
        yield
    finally:
        torch.compiler.disable = own
        if sys.modules.get(name) is stands_in:
            del sys.modules[name]


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
