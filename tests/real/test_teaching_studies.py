"""The two studies of fusion and distillation at `--smoke` to a report, on data that stand in for WESAD and CIFAR-100."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from phoropter.report.page import write_report
from phoropter.study import smoke_scale
from phoropter.study.executors import execute_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.spec import list_shipped_studies, read_study
from phoropter.study.worker import ComputeOptions

pytestmark = [pytest.mark.real, pytest.mark.slow]

# Words of the shipped file → those of what stands in: CIFAR-10 as pictures, ECG at rest and doing arithmetic, simulated ECG.
INSTEAD = {
    "vit-teaches-cnn": {"{cifar100: cifar-100-python, size: 32}": "{folder: cifar10-mini, size: 32}"},
    "sonic-wesad": {
        "{wesad: WESAD, task: 2-class,": "{eegmat: eegmat-ecg, on_bad_input: skip,",
        "{wesad: WESAD, task: 3-class,": "{simulate: ecg, task: 3-class,",
        ", download_hint: WESAD (Schmidt et al. 2018)}": "}",
    },
}
RUNS = {"vit-teaches-cnn": [3, 5, 5], "sonic-wesad": [20, 20, 20, 20]}
# The switch. The other parts take minutes each and differ in data, split or teacher; `make studies` runs them all.
NUMBERS = [("vit-teaches-cnn", 1)]
ROWS = 96


def quiet(event: ProgressEvent) -> None:
    pass


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "number"), NUMBERS, ids=[f"{name} {i}" for name, i in NUMBERS])
def test_a_paper_s_smoke_version_runs_to_a_report(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    text = list_shipped_studies()[name].read_text(encoding="utf-8")
    for old, new in INSTEAD[name].items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "cifar10-mini").symlink_to(real_data / "cifar10-mini")
    with tarfile.open(real_data / "eegmat-ecg.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setattr(smoke_scale, "MAX_ROWS", ROWS)
    monkeypatch.setattr(smoke_scale, "MAX_EPOCHS", 1)
    monkeypatch.setattr(smoke_scale, "STUDENT_EPOCHS", 1)
    part = smoke_scale.make_smoke_version(read_study(tmp_path / "study.yaml")[number])
    store = execute_study(part, tmp_path / "out", quiet, options=ComputeOptions("cpu", 1))
    assert not store.read_failures() and len(list(store.runs())) == RUNS[name][number]
    page = write_report(store.folder).read_text(encoding="utf-8")
    assert f"t most {ROWS} rows" in page and part.parsed_candidates[0].name in page
