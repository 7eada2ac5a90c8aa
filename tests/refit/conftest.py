"""Finished studies of small pictures and simulated recordings, which the tests of this room make classifiers of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from phoropter.refit.bundle_writer import BundleContents
from phoropter.refit.refit import RefitOptions, refit_candidate
from phoropter.results.store import Store
from phoropter.training.candidates.refit_record import RefitRecord
from small_pictures import run_small_study
from small_recordings import CTG_STUDY, ECG_STUDY

Refit = Callable[..., RefitRecord]
PICTURES = """\
name: shapes
data: {folder: pictures, size: 48, resize: pad}
protocol: {split: stratified-k-fold, folds: 2, val_size: 0.25}
recipe: {preset: scratch, epochs: 2}
save_models: all
candidates:
  - {name: single, backbone: test_resnet, weights: random, recipe: {epochs: 3, checkpoint: best-val, tta: flip}}
  - {name: vit, backbone: test_vit, weights: random}
  - {name: probe, backbone: test_resnet, weights: random, frozen: true, recipe: {preset: probe, epochs: 2}}
  - {name: solved, backbone: test_vit, weights: random, frozen: true, recipe: logistic}
  - {name: logits, fuse: [{backbone: test_resnet, weights: random}, {backbone: test_vit, weights: random}]}
  - {name: concat, fuse: [{backbone: test_resnet, weights: random}, {backbone: test_vit, weights: random}], mode: concat}
  - {name: warm, fuse: [single, vit], warm_start: true}
  - {name: student, student: test_vit, weights: random, teacher: solved, loss: soft}
  - name: token
    student: deit_tiny_distilled_patch16_224
    weights: random
    options: {depth: 1}
    teacher: solved
    loss: token
  - {name: average, fuse: [single, vit], mode: ensemble}
"""
ECG = (
    ECG_STUDY
    + """\
recipe: {preset: scratch, epochs: 1}
save_models: all
candidates: [{name: cnn, backbone: test_resnet, weights: random}]
"""
)
CTG = (
    CTG_STUDY
    + """\
save_models: all
candidates:
  - name: bags
    backbone: test_resnet
    weights: random
    frozen: true
    recipe: {preset: probe, epochs: 2, imbalance: {undersample: 1, n_bags: 2}}
metrics: [roc_auc]
"""
)


def draw_pictures(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    for kind, grey in (("dark", 50), ("light", 150)):
        (folder / kind).mkdir(parents=True)
        for i in range(12):
            noise = draw.integers(0, 90, (30 + 3 * i, 50, 3), dtype=np.uint8)
            Image.fromarray(noise + np.uint8(grey)).save(folder / kind / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A study of pictures with a candidate of every kind, all models kept."""
    folder = tmp_path_factory.mktemp("shapes")
    draw_pictures(folder / "pictures")
    return run_small_study(folder, PICTURES)


@pytest.fixture(scope="session")
def signals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """Studies of simulated electrocardiograms (`people`) and cardiotocograms (`births`)."""
    return {name: run_small_study(tmp_path_factory.mktemp(name), text) for name, text in (("people", ECG), ("births", CTG))}


@pytest.fixture(scope="session")
def refit() -> Refit:
    """refit(store, out, name, how="all", examples=0, timm=False): makes a bundle on the CPU."""

    def make(
        store: Store, out: Path, name: str | None, *, how: Any = "all", examples: int = 0, timm: bool = False
    ) -> RefitRecord:
        options = RefitOptions(name, how, BundleContents(examples, timm))
        return refit_candidate(store.folder, out, options, torch.device("cpu"), lambda event: None)

    return make
