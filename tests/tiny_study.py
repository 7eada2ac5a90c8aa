"""The least study that computes something: a probe of one frozen network with random weights, on 60 digits in two folds."""

from __future__ import annotations

from pathlib import Path

from phoropter.results.store import Store
from phoropter.study.executors import execute_study
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import ComputeOptions

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 60}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
recipe: {preset: probe, epochs: 1}
candidates:
  - {name: vit, backbone: test_vit, weights: random, frozen: true}
"""
HERE = ComputeOptions("cpu", threads=1)


def write_tiny_study(folder: Path, change: tuple[str, str] = ("", "")) -> StudySpec:
    """Writes `folder`/study.yaml and reads it. change: words of the study, and what takes their place"""
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(STUDY.replace(*change))
    return read_study(folder / "study.yaml")[0]


def run_tiny_study(folder: Path) -> Store:
    """Computes the study as it is into `folder`/out."""
    return execute_study(write_tiny_study(folder), folder / "out", lambda event: None, options=HERE)
