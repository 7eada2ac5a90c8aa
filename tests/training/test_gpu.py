"""benchmarks/gpu.py, whose code runs on a processor at a tiny size too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    yield gpu
    for name in ("gpu", "_sides", "_pictures", "_timm_script", "_usual"):
        sys.modules.pop(name, None)


def test_without_a_gpu_it_says_so_and_writes_nothing(gpu: Any, monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main([])
    assert capsys.readouterr().out == "gpu: no CUDA device here, so nothing was measured\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_it_measures_on_any_device(gpu: Any, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    assert gpu.peak_rate(cpu, 64, 2) > 0
    rows = gpu.measured(cpu, (("test_resnet",), ("test_resnet", "test_vit")), 24, 32, 8, 1e9)
    assert [r["claim"].split(" at ")[0] for r in rows] == [
        "fine-tuning test_resnet",
        "fine-tuning test_resnet + test_vit",
        "feature pass, test_resnet",
    ]
    assert rows[0]["share"] > 0 and rows[2]["share"] is None
    assert gpu.probe_study("test_resnet", 40, 32, 2, 2, tmp_path, "cpu") > 0
