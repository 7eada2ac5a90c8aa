"""Studies of a network of the user's own: every kind of candidate, in one process and in two, interrupted and run again."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import phoropter as ph
from phoropter.core.errors import SpecError
from phoropter.core.extensions import trust_code
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.deploy.bundle import load_bundle
from phoropter.models.classifier import load_classifier
from phoropter.models.spec import Backbone
from phoropter.results.store import Store
from phoropter.study.executors import execute_study
from phoropter.study.plan import plan_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.smoke_scale import make_smoke_version
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import ComputeOptions
from small_study import all_predictions

MODULE = """
from torch import nn

from phoropter import Backbone

def build():
    return nn.Sequential(
        nn.Conv2d(3, 24, 5, stride=2, padding=2), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 48, 3, stride=2, padding=1),
        nn.BatchNorm2d(48), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    )

NET = Backbone("mynet", build=build, width=192)
"""
STUDY = """\
name: own
data: {digits: true, size: 32, max_samples: 200}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: scratch, epochs: 6, lr: 0.01}
save_models: first
candidates:
  - nets_of_mine:NET
  - {backbone: nets_of_mine:NET, frozen: true, recipe: {preset: probe, epochs: 3}}
  - {name: fused, fuse: [nets_of_mine:NET, {backbone: test_resnet, weights: random}], recipe: {epochs: 1}}
  - {name: fused frozen, fuse: [nets_of_mine:NET, {backbone: test_resnet, weights: random}], frozen: true,
     recipe: {preset: probe, epochs: 2}}
  - {name: warm, fuse: [nets_of_mine:NET, {backbone: nets_of_mine:NET, seed: 1}], warm_start: true, recipe: {epochs: 1}}
  - {name: mean, fuse: [nets_of_mine:NET, {backbone: nets_of_mine:NET, seed: 1}], mode: ensemble}
  - {name: taught, student: test_resnet, weights: random, teacher: nets_of_mine:NET, loss: soft,
     recipe: {epochs: 1, augment: [hflip]}}
  - {name: pupil, student: nets_of_mine:NET, teacher: mynet, recipe: {epochs: 1}}
"""
HERE = ComputeOptions("cpu", threads=1)


def quiet(event: ProgressEvent) -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the study and its module, whose code is trusted."""
    here = tmp_path_factory.mktemp("own")
    (here / "nets_of_mine.py").write_text(MODULE)
    (here / "study.yaml").write_text(STUDY)
    with trust_code(here):
        yield here


@pytest.fixture(scope="module")
def net(folder: Path) -> Backbone:
    found: Backbone = importlib.import_module("nets_of_mine").NET
    return found


@pytest.fixture(scope="module")
def study(folder: Path) -> StudySpec:
    return read_study(folder / "study.yaml")[0]


@pytest.fixture(scope="module")
def done(study: StudySpec, folder: Path) -> Store:
    return execute_study(study, folder / "out", quiet, options=HERE)


def test_every_kind_of_candidate_takes_a_network_of_the_users_own(done: Store) -> None:
    assert done.read_failures() == {}
    names = {"mynet", "mynet frozen", "mynet seed 1", "fused", "fused frozen", "warm", "mean", "taught", "pupil"}
    names |= {"mynet seed 1 for mean"}  # with the head of an ensemble, which is not that of the warm fusion
    assert {r.candidate_name for r in done.runs()} == names and len(list(done.runs())) == 2 * len(names)
    accuracy = {r.candidate_name: r.record["metrics"]["accuracy"] for r in done.runs()}
    assert min(accuracy["mynet"], accuracy["mean"]) > 0.5


def test_a_warm_fusion_starts_from_its_members(done: Store, net: Backbone) -> None:
    runs = {r.key: r for r in done.runs()}
    warm = next(r.record for r in runs.values() if r.candidate_name == "warm" and r.record["split"]["fold"] == 0)
    bundles = [runs[key].bundle_folder for key in warm["needs"]]
    started = [load_classifier(b, [net]).branches[0].identity for b in bundles if b is not None]
    assert len(started) == 2 and warm["digests"]["weights_before"] == started


def test_a_plan_reads_the_object_and_builds_nothing(study: StudySpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn, "Conv2d", None)
    planned = plan_study(study)
    assert {r.candidate.name for r in planned.runs} >= {"mynet", "pupil"}


def test_keys_follow_name_version_and_weights(study: StudySpec, net: Backbone, tmp_path: Path) -> None:
    def keys(**fields: Any) -> set[str]:
        mine = Backbone(**{"name": "mynet", "build": net.build, "width": 192, **fields})
        return {r.key for r in plan_study(study.with_changes(candidates=[ph.finetune(mine)], sweep={})).runs}

    weights = {}
    for name in ("one", "two"):
        weights[name] = tmp_path / f"{name}.pth"
        torch.save(net.build().state_dict(), weights[name])
    same, other = keys(), keys(version="2")
    assert same == keys(build=lambda: None) and same <= {r.key for r in plan_study(study).runs}
    assert len({frozenset(k) for k in (same, other, keys(weights=weights["one"]), keys(weights=weights["two"]))}) == 4


def test_two_processes_give_the_same_bytes(done: Store, study: StudySpec, tmp_path: Path) -> None:
    store = execute_study(study, tmp_path / "out", quiet, jobs=2, options=HERE, cache=tmp_path / "cache")
    assert store.read_failures() == {} and all_predictions(store) == all_predictions(done)


def test_an_interrupted_study_ends_with_the_same_bytes(done: Store, study: StudySpec, tmp_path: Path) -> None:
    def interrupt(event: ProgressEvent) -> None:
        if event.kind == "epoch" and event.title.startswith("fused ·"):
            raise KeyboardInterrupt

    options = ComputeOptions("cpu", threads=1, checkpoint_s=0)
    with pytest.raises(KeyboardInterrupt):
        execute_study(study, tmp_path / "out", interrupt, options=options, cache=tmp_path / "cache")
    before = set(all_predictions(Store(tmp_path / "out")))
    store = execute_study(study, tmp_path / "out", quiet, options=options, cache=tmp_path / "cache")
    assert 0 < len(before) < len(all_predictions(store)) and all_predictions(store) == all_predictions(done)


def test_the_frozen_network_is_evaluated_once_for_each_seed(done: Store, study: StudySpec, folder: Path) -> None:
    fresh = study.with_changes(
        protocol={"split": "stratified-k-fold", "folds": 2, "seeds": [0, 1]}, candidates=study.candidates[1:2]
    )
    store = execute_study(fresh, folder / "seeds", quiet, options=HERE, cache=folder / "cache_of_seeds")
    assert store.read_failures() == {} and len(list(store.runs())) == 4
    assert len([p for p in (folder / "cache_of_seeds" / "features").iterdir() if p.is_dir()]) == 2


def test_a_deployed_bundle_predicts_as_its_study_did(done: Store, net: Backbone) -> None:
    run = next(r for r in done.runs() if r.candidate_name == "mynet" and r.bundle_folder is not None)
    bundle = load_bundle(run.folder, [net])
    dataset = open_dataset(DataSpec(digits=True, size=32, max_samples=200))
    kept, pixels = prepare_pixels(dataset, 32, resize="center-crop", interpolation="bicubic", cache=done.folder / "cache")
    expected = run.load_predictions()
    assert expected is not None
    rows = [list(kept.ids).index(i) for i in expected.ids[:8]]
    with torch.no_grad():
        logits = bundle.model(torch.from_numpy(pixels.batch(np.array(rows)))).numpy()
    np.testing.assert_allclose(logits, expected.logits[:8], rtol=1e-4, atol=1e-4)


def test_the_smoke_version_keeps_the_network(study: StudySpec) -> None:
    small = make_smoke_version(study)
    assert any(b.custom is not None for c in small.parsed_candidates for b in c.backbones)
    assert plan_study(small).runs


def test_python_takes_the_objects(net: Backbone, study: StudySpec) -> None:
    timm = {"backbone": "test_resnet", "weights": "random", "size": 32}
    candidates = [ph.probe(net, name="p"), ph.fuse(net, timm), ph.distil(net, net, name="d"), net]
    parsed = study.with_changes(candidates=candidates).parsed_candidates
    assert [c.name for c in parsed] == ["p", "mynet + test_resnet", "d", "mynet"]
    assert all(c.backbones[0].custom is net for c in parsed)
    assert parsed[2].distillation and parsed[2].distillation.teacher == "mynet"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, r"candidates\.4"),
        ({"backbone": "nets_of_mine:build"}, "is a function, expected"),
        ({"backbone": "nets_of_mine:NET", "recipe": "as-is"}, "'mynet' is a network of your own and has no pretrained head"),
    ],
)
def test_what_cannot_be_trained_is_refused_when_the_study_is_read(
    entry: Any, message: str, study: StudySpec, net: Backbone
) -> None:
    named = [{"backbone": net, "name": f"n{i}"} for i in range(4)]
    with pytest.raises(SpecError, match=message):
        study.with_changes(candidates=[*named, entry]).parsed_candidates  # noqa: B018  parsed when read
