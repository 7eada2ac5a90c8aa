"""Shipped studies on real pictures: both papers at `--smoke` to a report, and a probe of real weights far above chance."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from phoropter.report.page import write_report
from phoropter.results.store import Store
from phoropter.study import smoke_scale
from phoropter.study.executors import execute_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions

pytestmark = [pytest.mark.real, pytest.mark.slow]

ROWS = {"attention-or-convolution": 420, "alexnet-and-after": 60}  # four of each of Caltech's classes, for three parts
SCRIPT = runpy.run_path(str(Path(__file__).parent.parent.parent / "scripts" / "small_studies.py"))


@pytest.fixture(scope="module")
def pictures(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the shipped studies, with what stands in for the full sets."""
    folder = tmp_path_factory.mktemp("data")
    assert not SCRIPT["gather_data"](real_data, folder)
    return folder


def quiet(event: ProgressEvent) -> None:
    pass


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "runs"), [("attention-or-convolution", [3, 10]), ("alexnet-and-after", [8, 4])])
def test_a_paper_s_smoke_version_runs_to_a_report(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, runs: list[int]
) -> None:
    monkeypatch.setenv("PHOROPTER_DATA", str(pictures))
    monkeypatch.setattr(smoke_scale, "MAX_ROWS", ROWS[name])
    monkeypatch.setattr(smoke_scale, "MAX_EPOCHS", 1)
    for part, expected in zip(
        read_study(name), runs, strict=False
    ):  # the parts of the paper; those after them are questions of ours
        store = execute_study(smoke_scale.make_smoke_version(part), tmp_path / part.name, quiet, options=ComputeOptions("cpu", 1))
        assert len(list(store.runs())) == expected and not store.read_failures()
        page = write_report(store.folder).read_text(encoding="utf-8")
        assert f"t most {ROWS[name]} rows" in page and part.parsed_candidates[0].name in page


PROBE = """\
name: mini
data: {{folder: {folder}, size: 96}}
protocol: predefined
candidates:
  - backbone: mobilenetv2_100
    weights: {weights}
    size: 96
    frozen: true
    recipe: {{preset: probe, lr: 0.003}}
"""


def test_real_weights_probe_cifar_far_above_chance(real_data: Path, tmp_path: Path) -> None:
    weights = real_data / "weights" / "mobilenetv2_100.tf_in1k.safetensors"
    (tmp_path / "mini.yaml").write_text(PROBE.format(folder=real_data / "cifar10-mini", weights=weights))
    store = execute_study(read_study(tmp_path / "mini.yaml")[0], tmp_path / "out", quiet, options=ComputeOptions("cpu", 1))
    (done,) = Store(store.folder).runs()
    assert done.record["metrics"]["accuracy"] > 0.6  # chance is 0.1
