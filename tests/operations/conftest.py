"""One small study, computed once: two runs that train, a probe with cached features, a kept model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from phoropter.results.store import Store
from phoropter.study.executors import execute_study
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions

STUDY = """\
name: upkeep
data: {digits: true, size: 32, max_samples: 80}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
recipe: {preset: scratch, epochs: 1}
save_models: all
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
  - {name: probe, backbone: test_vit, weights: random, frozen: true, recipe: {preset: probe, epochs: 1}}
"""
HERE = ComputeOptions("cpu", threads=1)


@pytest.fixture(scope="session")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with study.yaml, results in `out` and their cache in `.cache`; not to be changed."""
    folder = tmp_path_factory.mktemp("computed")
    (folder / "study.yaml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PHOROPTER_CACHE", raising=False)
        store = execute_study(read_study(folder / "study.yaml")[0], folder / "out", lambda event: None, options=HERE)
    assert len(list(store.runs())) == 4
    return folder


@pytest.fixture
def study(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to change."""
    monkeypatch.delenv("PHOROPTER_CACHE", raising=False)
    shutil.copytree(computed, tmp_path / "study")
    return tmp_path / "study"


@pytest.fixture
def store(study: Path) -> Store:
    return Store(study / "out")
