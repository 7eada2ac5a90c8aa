"""The switch of «A ViT teaches a CNN» at `--smoke` to a report, on CIFAR-10 in place of CIFAR-100.

Its other parts and SONIC take minutes each and differ in data, split or teacher; `make studies` runs them all.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from phoropter.report.page import write_report
from phoropter.study import smoke_scale
from phoropter.study.executors import execute_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.worker import ComputeOptions

pytestmark = [pytest.mark.real, pytest.mark.slow]

SCRIPT = runpy.run_path(str(Path(__file__).parent.parent.parent / "scripts" / "small_studies.py"))
ROWS = 96


def quiet(event: ProgressEvent) -> None:
    pass


@pytest.mark.timeout(900)
def test_the_smoke_version_of_the_switch_runs_to_a_report(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10").symlink_to(real_data / "cifar10-mini")
    for name, value in {"TAUGHT_ROWS": ROWS, "MAX_EPOCHS": 1, "STUDENT_EPOCHS": 1}.items():
        monkeypatch.setattr(smoke_scale, name, value)
    part = smoke_scale.make_smoke_version(SCRIPT["read_parts"]("vit-teaches-cnn", tmp_path)[1])
    store = execute_study(part, tmp_path / "out", quiet, options=ComputeOptions("cpu", 1))
    assert not store.read_failures() and len(list(store.runs())) == len(part.parsed_candidates)
    page = write_report(store.folder).read_text(encoding="utf-8")
    assert f"t most {ROWS} rows" in page and part.parsed_candidates[0].name in page
