"""The floating-point type a network computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import torch

from phoropter.training.candidates.recipe import Recipe


def resolve_autocast_dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    """The type autocast computes in; float32: no autocast. `auto` is bf16 where the device has units for it; elsewhere bf16 is
    slower."""
    if recipe.precision == "auto":
        has_units = torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu" and has_bf16_units()
        return torch.bfloat16 if has_units else torch.float32
    return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.precision]


def autocast_context(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Within it a network computes in `dtype`; for float32 autocast stays off."""
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)


@cache
def has_bf16_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether every core multiplies bf16 in hardware (avx512_bf16 or amx_bf16) and torch has oneDNN, which uses it.

    False where the system does not tell. Without such units autocast to bf16 halves the speed.
    """
    try:
        flags = [line.split() for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("flags")]
    except OSError:
        return False
    supported = [bool({"avx512_bf16", "amx_bf16"}.intersection(words)) for words in flags]
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(supported) and all(supported) and has_onednn
