"""Imports torchvision and timm; no other module does.

A torchvision whose compiled operators do not match the installed torch (a CUDA build next to a CPU torch) fails on import, and
timm with it: "operator torchvision::nms does not exist", pytorch/vision#9085. Nothing here needs those operators, so on exactly
that error their two schemas are declared and the import is repeated. They are never declared beforehand, because they would clash
in a sound installation. What does not work then: `ops.nms`, `io.decode_image`, `v2.JPEG`; images are decoded by Pillow anyway.

Left out: passing torchvision objects to worker processes, which would import torchvision before this module is loaded.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
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
    return importlib.import_module(f"torchvision.{part}" if part else "torchvision")


@cache
def import_timm(part: str = "") -> ModuleType:
    """timm, or a submodule: `import_timm("layers")`."""
    _ensure_torchvision()
    return importlib.import_module(f"timm.{part}" if part else "timm")


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
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if _MISSING_OPERATOR_ERROR not in str(error) or _declared_libraries:
            raise
        _declare_operators()
        for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
            del sys.modules[name]
        importlib.import_module("torchvision")


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
