"""The type a network computes in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.loop import precision as loop_precision


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\nflags\t\t: fpu amx_bf16\n", True),
        ("flags\t\t: fpu amx_bf16\nflags\t\t: fpu avx2\n", False),  # a core that has none
        ("flags\t\t: fpu avx2 avx512f\nbugs\t\t: avx512_bf16\n", False),
        ("", False),
    ],
)
def test_auto_follows_the_units_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert loop_precision.has_bf16_units(tmp_path / "cpuinfo") is (expected and torch.backends.mkldnn.is_available())
    assert loop_precision.has_bf16_units(tmp_path / "nothing") is False
    monkeypatch.setattr(loop_precision, "has_bf16_units", lambda: expected)
    auto, plain = (parse_recipe({"precision": p}, PRESETS["scratch"]) for p in ("auto", "float32"))
    assert loop_precision.resolve_autocast_dtype(auto, torch.device("cpu")) is (torch.bfloat16 if expected else torch.float32)
    assert (
        loop_precision.resolve_autocast_dtype(plain, torch.device("cpu"))
        is loop_precision.resolve_autocast_dtype(auto, torch.device("meta"))
        is torch.float32
    )


def test_autocast_is_off_for_float32() -> None:
    x = torch.ones(2, 2)
    with loop_precision.autocast_context(torch.device("cpu"), torch.float32):
        assert (x @ x).dtype is torch.float32
    with loop_precision.autocast_context(torch.device("cpu"), torch.bfloat16):
        assert (x @ x).dtype is torch.bfloat16
