"""Which type a network computes in."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from phoropter.training.candidates.recipe import Recipe


def resolve_autocast_dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    """The type autocast computes in; `auto` asks the device: bf16 where it has units for it, for elsewhere it is slower."""
    if recipe.precision == "auto":
        has = torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu" and has_bf16_units()
        return torch.bfloat16 if has else torch.float32
    return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.precision]


@cache
def has_bf16_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether every core here multiplies bf16 itself (avx512_bf16 or amx_bf16) and torch has oneDNN, which asks it to.

    False where the system does not say. Without such units autocast to bf16 halves the speed.
    """
    try:
        flags = [line.split() for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("flags")]
    except OSError:
        return False
    has = [bool({"avx512_bf16", "amx_bf16"}.intersection(words)) for words in flags]
    return bool(has) and all(has) and torch.backends.mkldnn.is_available()
