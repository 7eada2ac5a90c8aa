"""benchmarks/gpu.py, whose code runs on a processor at a tiny size too."""

from __future__ import annotations

import argparse
import json
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


def test_every_part_measures_on_a_processor(gpu: Any, tmp_path: Path) -> None:
    """The code that a GPU runs, at a tiny size and in this process."""
    claims: list[str] = []
    for number, (name, (measure, _)) in enumerate(gpu.list_parts(gpu.TINY).items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows = measure(gpu.Bench(gpu.TINY, torch.device("cpu"), folder, None, 1e9))
        assert rows and all(row["ours"] and row["versions"] for row in rows), name
        assert all((row["share"] is not None and row["share"] > 0) == name.startswith("test_") for row in rows), name
        claims += [row["claim"] for row in rows]
    assert claims == [
        "one bf16 product of matrices",
        "fine-tuning test_resnet at 32 px, batch 8",
        "fine-tuning test_resnet + test_vit at 32 px, batch 8",
        "feature pass, test_resnet at 32 px",
        "2 × 2 probe study of 24 pictures at 32 px, test_resnet",
        "an epoch of test_resnet taught by test_vit from the cache, in epochs without a teacher",
        "the CUDA tests",
    ]


def test_what_is_measured_is_kept_whatever_happens_to_the_rest(gpu: Any, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    """`features` fails, and no time is left for what comes after `distil`."""
    into, clock = tmp_path / "gpu.json", iter(range(0, 10**6, 100))
    seen: dict[str, int] = {}

    def play(command: list[str], seconds: float) -> str:
        name = command[command.index("--part") + 1]
        seen[name] = len(json.loads(into.read_text())) if into.exists() else 0
        if name == "features":
            return "CUDA error: it is broken"
        row = gpu.make_row(name, "1 s", peak=2e12 if name == "peak" else None)
        Path(command[command.index("--into") + 1]).write_text(json.dumps([row]))
        return ""

    monkeypatch.setattr(gpu, "run_part", play)
    monkeypatch.setattr(gpu, "time", argparse.Namespace(monotonic=lambda: next(clock)))
    asked = argparse.Namespace(seconds=660.0, only=[], device="cpu", tiny=True, timm=None)
    rows = gpu.measure_all(asked, gpu.TINY, into)
    assert seen == {"peak": 0, "test_resnet": 1, "test_resnet+test_vit": 2, "features": 3, "probe": 3, "distil": 4}
    assert json.loads(into.read_text()) == rows and {row["bf16_peak_tflops"] for row in rows} == {2.0}
    assert capsys.readouterr().out.splitlines()[-1] == (
        "not measured: features (CUDA error: it is broken), tests (no time was left)"
    )


def test_a_part_ends_at_its_limit_and_says_why_it_failed(gpu: Any) -> None:
    assert gpu.run_part([sys.executable, "-c", "import time; time.sleep(30)"], 0.2) == "it took more than 0 s"
    assert gpu.run_part([sys.executable, "-c", "raise SystemExit('no such network')"], 30) == "no such network"


def test_a_part_writes_its_rows(gpu: Any, tmp_path: Path) -> None:
    gpu.main(["--device", "cpu", "--tiny", "--part", "peak", "--into", str(tmp_path / "rows.json"), "--peak", "0"])
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["peak"] > 0 and row["machine"] == "processor"
