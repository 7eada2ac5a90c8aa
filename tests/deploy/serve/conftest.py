"""Three small bundles, made once: of pictures by a refit, of ECG and CTG the models of one run; and servers of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed (the extra deploy)")
sys.path.append(str(Path(__file__).parent))  # so that these tests find running_server.py

import torch
from PIL import Image
from running_server import Made, Running, run_server, write_table, write_wfdb

from phoropter.deploy.serve.served_bundle import open_served_bundles
from phoropter.refit.bundle_writer import BundleContents
from phoropter.refit.refit import RefitOptions, refit_candidate
from phoropter.signals.simulate import ctg_simulate, ecg_simulate
from phoropter.study.executors import execute_study
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions
from small_recordings import BIRTHS, CTG_STUDY, ECG_STUDY, PEOPLE

CPU = torch.device("cpu")
PICTURES = """\
name: shapes
data: {folder: pictures, size: 48, resize: pad}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: scratch, epochs: 1}
candidates: [{name: cnn, backbone: test_resnet, weights: random}]
"""
SIGNALS = """\
recipe: {preset: scratch, epochs: 1}
candidates: [{name: cnn, backbone: test_resnet, weights: random}]
"""


def make_results(folder: Path, text: str) -> Path:
    (folder / "study.yaml").write_text(text)
    store = execute_study(
        read_study(folder / "study.yaml")[0], folder / "out", lambda event: None, options=ComputeOptions("cpu", threads=1)
    )
    assert not store.read_failures()
    return folder / "out"


def make_pictures(folder: Path) -> Made:
    draw = np.random.default_rng(0)
    for kind, grey in (("dark", 50), ("light", 150)):
        (folder / "pictures" / kind).mkdir(parents=True)
        for i in range(6):
            noise = draw.integers(0, 90, (40 + 3 * i, 60, 3), dtype=np.uint8)
            Image.fromarray(noise + np.uint8(grey)).save(folder / "pictures" / kind / f"{kind}{i}.png")
    refit_candidate(
        make_results(folder, PICTURES),
        folder / "shapes-net",
        RefitOptions(contents=BundleContents(examples=2)),
        CPU,
        lambda event: None,
    )
    files = [[file] for file in sorted((folder / "pictures").rglob("*.png"))]
    return Made(folder / "shapes-net", files, open_served_bundles([folder / "shapes-net"], CPU)[0])


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_pictures(tmp_path_factory.mktemp("shapes"))


def make_ecg(folder: Path) -> Made:
    results = make_results(folder, ECG_STUDY + SIGNALS)
    files = [list(write_wfdb(recording, folder)) for recording in ecg_simulate(PEOPLE)[:2]]
    return Made(results, files, open_served_bundles([results], CPU)[0])


@pytest.fixture(scope="session")
def ecg(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_ecg(tmp_path_factory.mktemp("ecg"))


@pytest.fixture(scope="session")
def ctg(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("ctg")
    results = make_results(folder, CTG_STUDY + SIGNALS + "metrics: [roc_auc]\n")
    files = [[write_table(recording, folder)] for recording in ctg_simulate(BIRTHS)[:2]]
    return Made(results, files, open_served_bundles([results], CPU)[0])


@pytest.fixture(scope="session")
def asked(pictures: Made) -> Iterator[Running]:
    """A server of the picture bundle."""
    with run_server([pictures.served]) as running:
        yield running
