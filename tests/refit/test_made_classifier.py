"""Classifiers for use of a selection: the members that count, by their weights, in the bundle and wherever it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import phoropter as ph
from phoropter.core.errors import StoreError, WeightsError
from phoropter.core.storage.sealed_json import write_sealed_json
from phoropter.deploy.explain.class_maps import MapMaker
from phoropter.deploy.export.graph import ExportedClassifier
from phoropter.deploy.predict import open_bundle
from phoropter.models.classifier import load_classifier
from phoropter.refit.made_classifier import read_member_weights
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.store import Run, Store
from phoropter.training.candidates.refit_record import RefitRecord
from small_pictures import draw_dark_and_light, run_small_study

Refit = Callable[..., RefitRecord]
STUDY = """\
name: chosen
data: {folder: pictures, size: 32}
protocol: {split: stratified-k-fold, folds: 2}
save_models: all
candidates:
  - {name: cnn, backbone: test_resnet, weights: random, frozen: true, recipe: logistic}
  - {name: twin, backbone: test_resnet, weights: random, seed: 1, frozen: true, recipe: logistic}
  - {name: vit, backbone: test_vit, weights: random, frozen: true, recipe: logistic}
  - {name: chosen, fuse: [cnn, twin, vit], mode: select}
"""


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("chosen")
    draw_dark_and_light(folder / "pictures", 16, greys=(60, 72), noise=120)
    return run_small_study(folder, STUDY)


def weigh_by_name(store: Store) -> dict[str, list[float]]:
    """Member → its weight in each run, as the records say."""
    runs = [run for run in store.runs() if run.candidate_name == "chosen"]
    members = [{each["name"]: each["weight"] for each in run.record["selection"]["members"]} for run in runs]
    return {name: [weights[name] for weights in members] for name in members[0]}


def average_bundles(parts: Mapping[Path, float], pictures: Path) -> np.ndarray:
    answers = [weight * softmax(ph.load(folder).predict(pictures, device="cpu").logits) for folder, weight in parts.items()]
    return np.asarray(np.sum(answers, axis=0) / sum(parts.values()))


def test_all_rows_members_have_the_mean_of_their_weights(chosen: Store, refit: Refit, tmp_path: Path) -> None:
    weights = {name: float(np.mean(each)) for name, each in weigh_by_name(chosen).items()}
    counted = {name: weight for name, weight in weights.items() if weight}
    assert len(counted) > 1
    record = refit(chosen, tmp_path / "bundle", "chosen")
    pictures, parts = chosen.folder.parent / "pictures", {}
    for name, weight in counted.items():
        refit(chosen, tmp_path / name, name)
        parts[tmp_path / name] = weight
    predicted = ph.load(tmp_path / "bundle").predict(pictures, device="cpu")
    np.testing.assert_allclose(softmax(predicted.logits), average_bundles(parts, pictures), atol=1e-5)
    assert record.n_models == len(counted)
    content = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    names = [name for name in ("cnn", "twin", "vit") if name in counted]
    assert content["weights"] == pytest.approx([weights[name] for name in names])


def test_the_folds_models_have_the_weights_of_their_own_runs(chosen: Store, refit: Refit, tmp_path: Path) -> None:
    refit(chosen, tmp_path / "bundle", "chosen", how="folds")
    parts = {}
    for run in chosen.runs():
        if run.candidate_name == "chosen":
            for key, weight in read_member_weights(run).items():
                folder = chosen.run(key).bundle_folder
                assert folder is not None
                parts[folder] = weight
    pictures = chosen.folder.parent / "pictures"
    predicted = ph.load(tmp_path / "bundle").predict(pictures, device="cpu")
    np.testing.assert_allclose(softmax(predicted.logits), average_bundles(parts, pictures), atol=1e-5)


def test_module_graph_and_maps_average_by_the_same_weights(chosen: Store, refit: Refit, tmp_path: Path) -> None:
    refit(chosen, tmp_path / "bundle", "chosen", how="folds")
    bundle = open_bundle(tmp_path / "bundle")
    squares = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        members = torch.stack([member(squares).softmax(1) for member in bundle.model.members])
        weights = torch.tensor(bundle.model.member_weights)
        expected = (members * weights[:, None, None]).sum(0) / weights.sum()
        torch.testing.assert_close(bundle.model(squares).softmax(1), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(ExportedClassifier(bundle)(squares)[0].softmax(1), expected, atol=1e-5, rtol=0)
    maps = MapMaker(bundle.model, "grad-cam").make_maps(squares, torch.tensor([0, 0, 0]))
    torch.testing.assert_close(maps.logits.softmax(1), expected, atol=1e-5, rtol=0)
    shares = members[:, :, 0].T * weights
    torch.testing.assert_close(maps.shares, shares / shares.sum(1, keepdim=True), atol=1e-5, rtol=0)


@pytest.mark.parametrize("weights", [[0.5], [0.5, -0.5, 0.5, 0.5], ["a", 1, 1, 1], [], None])
def test_a_bundle_with_other_weights_than_members_is_refused(
    chosen: Store, refit: Refit, tmp_path: Path, weights: list[object] | None
) -> None:
    refit(chosen, tmp_path / "bundle", "chosen", how="folds")
    file = tmp_path / "bundle" / "bundle.json"
    content = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("checksum", "weights")}
    write_sealed_json(file, content if weights is None else {**content, "weights": weights})
    with pytest.raises(WeightsError, match="does not describe a bundle"):
        load_classifier(tmp_path / "bundle")


def test_a_record_with_a_damaged_selection_says_so(chosen: Store) -> None:
    run = next(run for run in chosen.runs() if run.candidate_name == "chosen")
    damaged = Run(run.folder)
    damaged.__dict__["record"] = {**run.record, "selection": {"members": [{"name": "cnn"}]}}
    with pytest.raises(StoreError, match=r"record\.json is damaged: selection; delete that folder"):
        read_member_weights(damaged)
    other = next(run for run in chosen.runs() if run.candidate_name == "cnn")
    assert read_member_weights(other) == {}
