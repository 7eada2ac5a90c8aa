"""A finished study opened again with code of the user's own: network, loss, metric and database, each found again or refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

import phoropter as ph
from phoropter.cli import main
from phoropter.core.errors import DataError, SpecError, StoreError, WeightsError
from phoropter.core.extensions import Extension, trust_code
from phoropter.data import source
from phoropter.deploy.bundle import load_bundle
from phoropter.deploy.serve.served_bundle import describe_study_evidence
from phoropter.models.timm_compat import import_timm
from phoropter.refit.evidence import collect_evidence
from phoropter.refit.finished_study import open_finished_study
from phoropter.refit.refit import RefitOptions, refit_candidate
from phoropter.study.executors import execute_study
from phoropter.study.smoke_scale import make_smoke_version
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions
from small_pictures import draw_dark_and_light, run_small_study

MODULE = """
import numpy as np
import torch
import phoropter as ph

def make_net():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.ReLU())

def hinge(logits, labels):
    return torch.nn.functional.multi_margin_loss(logits, labels, reduction="none")

def count_right(labels, probabilities):
    return float((probabilities.argmax(1) == labels).mean())

def read_walk(file):
    subject, label = file.stem.split("-")
    return ph.Recording(file.stem, subject, np.load(file)[None].astype(np.float32), ("acc",), ("g",), 50.0, label=label)

NET = ph.Backbone("mine", build=make_net, width=4)
HINGE = ph.Loss("hinge", compute=hinge)
RIGHT = ph.Metric("right", compute=count_right)
WALKS = ph.Database("walks", read_file=read_walk, pattern="*.npy")
"""
STUDY = """\
name: walks
data: {recordings: walks, database: 'own_code_of_walks:WALKS', size: 32, representation: trace}
protocol: {split: stratified-group-k-fold, folds: 2}
recipe: {preset: scratch, epochs: 1, loss: 'own_code_of_walks:HINGE'}
candidates:
  - {name: own, backbone: 'own_code_of_walks:NET'}
  - {name: pair, fuse: ['own_code_of_walks:NET', {backbone: test_resnet, weights: random}]}
metrics: [accuracy, 'own_code_of_walks:RIGHT']
"""


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("walks")
    (folder / "own_code_of_walks.py").write_text(MODULE)
    (folder / "walks").mkdir()
    for seed in range(8):
        np.save(folder / f"walks/p{seed // 2}-{('calm', 'fast')[seed % 2]}.npy", np.random.default_rng(seed).normal(size=1000))
    (folder / "walks.yaml").write_text(STUDY)
    with trust_code(folder):
        (part,) = read_study(folder / "walks.yaml")
        store = execute_study(part, folder / "out", lambda event: None, options=ComputeOptions("cpu", threads=1))
    assert not store.read_failures()
    yield folder
    sys.modules.pop("own_code_of_walks", None)


def own_objects() -> list[Extension]:
    module = sys.modules["own_code_of_walks"]
    return [module.NET, module.HINGE, module.RIGHT, module.WALKS]


@pytest.mark.parametrize("name", ["own", "pair"])
def test_a_study_with_code_of_its_own_is_refitted_with_it(walks: Path, tmp_path: Path, name: str) -> None:
    options = RefitOptions(name, "folds" if name == "own" else "all", extensions=own_objects())
    refit_candidate(walks / "out", tmp_path / "bundle", options, torch.device("cpu"), lambda event: None)
    training = json.loads((tmp_path / "bundle" / "bundle.json").read_text())["training"]
    needed = {(e["kind"], e["name"], e["reference"]) for e in training["code"]}
    assert needed == {
        (kind, name, f"own_code_of_walks:{variable}")
        for kind, name, variable in (("database", "walks", "WALKS"), ("backbone", "mine", "NET"), ("loss", "hinge", "HINGE"))
    }
    with pytest.raises(WeightsError, match="needs the code of the backbone 'mine'"):
        ph.load(tmp_path / "bundle")
    module = sys.modules["own_code_of_walks"]
    predicted = ph.load(tmp_path / "bundle", [module.NET, module.WALKS]).predict(walks / "walks", device="cpu")
    assert len(predicted.logits) > 8 and np.isfinite(predicted.logits).all()


def test_the_command_finds_the_code_by_its_recorded_name_where_it_is_trusted(walks: Path, tmp_path: Path) -> None:
    command = ["refit", str(walks / "out"), "--candidate", "own", "-o", str(tmp_path / "bundle"), "--device", "cpu"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 2 and "needs the code of" in refused.output and "--trust-code" in refused.output
    done = CliRunner().invoke(main, [*command, "--trust-code"], catch_exceptions=False)
    assert done.exit_code == 0 and "written:" in done.output, done.output


def test_missing_and_changed_code_is_refused(walks: Path) -> None:
    def no_hinge(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none") * 2

    net, _, right, database = own_objects()
    with pytest.raises(WeightsError, match=r"the study in .* needs the code of the extension 'hinge' \(version 1\)"):
        open_finished_study(walks / "out", lambda event: None, [net, right, database])
    with pytest.raises(WeightsError, match="was saved with other code of the extension 'hinge'"):
        open_finished_study(walks / "out", lambda event: None, [net, right, database, ph.Loss("hinge", compute=no_hinge)])


def test_the_runs_of_a_study_are_those_in_its_folder(walks: Path) -> None:
    study = open_finished_study(walks / "out", lambda event: None, own_objects())
    assert [run.key for run in study.planned_runs("own")] == [r.key for r in study.store.runs() if r.candidate_name == "own"]
    with pytest.raises(StoreError, match="computed with other data"):
        study.planned.compared.pop()
        study.planned_runs("pair")


def test_data_that_were_an_object_are_passed_again(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), dtype=np.uint8)
    labels = np.array(["a", "b"] * 8)
    study = ph.Study(
        name="arrays",
        data=(images, labels),
        protocol=ph.KFold(2),
        candidates=[ph.probe("test_resnet", weights="random", recipe={"preset": "probe", "epochs": 1})],
    )
    study.run(tmp_path / "out", device="cpu", quiet=True)

    def refit(out: str, data: object) -> None:
        options = RefitOptions(data=data)
        refit_candidate(tmp_path / "out", tmp_path / out, options, torch.device("cpu"), lambda event: None)

    with pytest.raises(DataError, match="pass the object again"):
        refit("none", None)
    with pytest.raises(StoreError, match="computed with other data"):
        refit("other", (255 - images, labels))
    refit("bundle", (images, labels))
    assert ph.load(tmp_path / "bundle").predict(images, device="cpu").logits.shape == (16, 2)


@pytest.mark.parametrize("protocol", ["{split: stratified-k-fold, folds: 2, seeds: [0]}", "{split: stratified-k-fold, folds: 2}"])
def test_a_frozen_study_is_opened_with_the_seeds_it_ran(tmp_path: Path, protocol: str) -> None:
    """One seed that was asked for stays one, although frozen candidates would otherwise get five."""
    save_file(import_timm().create_model("test_resnet").state_dict(), tmp_path / "net.safetensors")
    text = "name: s\ndata: {digits: true, size: 32, max_samples: 40}\nprotocol: " + protocol
    text += "\ncandidates: [{name: a, backbone: test_resnet, weights: net.safetensors, frozen: true, recipe: logistic}]\n"
    (tmp_path / "s.yaml").write_text(text)
    (study,) = read_study(tmp_path / "s.yaml")
    store = execute_study(study, tmp_path / "out", lambda event: None, options=ComputeOptions("cpu", threads=1))
    n_seeds = 1 if "seeds" in protocol else 5
    assert len(open_finished_study(store.folder, lambda event: None).planned_runs("a")) == 2 * n_seeds


def test_a_smoke_version_is_opened_and_its_runs_are_found(tmp_path: Path) -> None:
    """Its candidates and its recipe are recorded in full, with augmentation steps."""
    text = "name: s\ndata: {digits: true, size: 32, max_samples: 40}\nprotocol: {split: stratified-k-fold, folds: 3}\n"
    (tmp_path / "s.yaml").write_text(
        text + "candidates: [{name: a, baseline: colour-texture}, {name: b, baseline: mean-image}]\n"
    )
    small = make_smoke_version(read_study(tmp_path / "s.yaml")[0])
    assert small.parsed_recipe.augment
    store = execute_study(small, tmp_path / "out", lambda event: None, options=ComputeOptions("cpu", threads=1))
    opened = open_finished_study(store.folder, lambda event: None)
    assert {run.key for run in opened.planned.runs} == {run.key for run in store.runs()} != set()
    evidence = collect_evidence(opened, opened.find_candidate(None))
    assert evidence.study == "s (a smoke version)", "a bundle of it says so wherever it names its study"


def test_a_metric_that_held_out_rows_do_not_define_is_no_figure(tmp_path: Path) -> None:
    """No tested row has the label `b`: its ROC-AUC, and the mean over labels, is not defined."""
    draw_dark_and_light(tmp_path / "pictures", 6)
    labels = {"dark": ["a", "a|b", "b", "none", "a", "none"], "light": ["none", "a|b", "a", "b", "a", "none"]}
    rows = [f"{kind}/{n}.png,{label},{'test' if n > 3 else 'train'}" for kind, of in labels.items() for n, label in enumerate(of)]
    (tmp_path / "pictures" / "list.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    text = "name: s\ndata: {manifest: pictures/list.csv, multi_label: true, size: 32}\nprotocol: {split: predefined}\n"
    text += "candidates: [{name: a, backbone: test_resnet, weights: random, frozen: true, recipe: {preset: probe, epochs: 1}}]\n"
    store = run_small_study(tmp_path, text)
    done = CliRunner().invoke(main, ["refit", str(store.folder), "-o", str(tmp_path / "bundle")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "does not tell ROC-AUC for a, from 4 held-out predictions of one model, of which it is not defined." in done.output
    (first, *_) = describe_study_evidence(load_bundle(tmp_path / "bundle"))
    assert first.startswith("Its study has no ROC-AUC of this classifier's recipe: it is not defined on 4 predictions of one")


def test_data_that_were_moved_are_named_and_must_be_the_same(tmp_path: Path) -> None:
    text = "name: s\ndata: {folder: pictures, size: 32}\nprotocol: {split: stratified-k-fold, folds: 2, seeds: [0]}\n"
    text += "candidates: [{name: a, backbone: test_resnet, weights: random, frozen: true, recipe: {preset: probe, epochs: 1}}]\n"
    pictures = draw_dark_and_light(tmp_path / "pictures", 6)
    store = run_small_study(tmp_path, text)
    moved = pictures.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="pictures"):
        open_finished_study(store.folder, lambda event: None)
    assert len(open_finished_study(store.folder, lambda event: None, data=moved).planned_runs("a")) == 2
    with pytest.MonkeyPatch.context() as patch:  # or to a store
        patch.setattr(source, "copy_from_store", lambda address, cache, tables: {"s3://bucket/moved": moved}[address])
        assert open_finished_study(store.folder, lambda event: None, data=Path("s3://bucket/moved")).planned_runs("a")
    (moved / "dark" / "0.png").unlink()
    with pytest.raises(StoreError, match="computed with other data"):
        open_finished_study(store.folder, lambda event: None, data=moved).planned_runs("a")
    done = CliRunner().invoke(
        main, ["refit", str(store.folder), "-o", str(tmp_path / "bundle"), "--data", str(tmp_path / "lost")]
    )
    assert done.exit_code == 2 and "lost" in done.stderr and not (tmp_path / "bundle").exists()


def test_data_that_lie_at_no_path_cannot_have_moved(tmp_path: Path) -> None:
    text = "name: s\ndata: {digits: true, size: 32, max_samples: 40}\nprotocol: {split: hold-out, test_size: 0.5, seeds: [0]}\n"
    text += "candidates: [{name: a, backbone: test_resnet, weights: random, frozen: true, recipe: {preset: probe, epochs: 1}}]\n"
    store = run_small_study(tmp_path, text)
    with pytest.raises(SpecError, match="'digits', which lies at no path: leave --data"):
        open_finished_study(store.folder, lambda event: None, data=tmp_path)
