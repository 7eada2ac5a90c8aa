"""`phoropter weights list | verify | index` of a folder that somebody filled by hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from phoropter.cli import main
from phoropter.models.timm_compat import import_timm


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["weights", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Weights of a tiny network under its name with a card, and of another under no telling name."""
    state = dict(import_timm().create_model("test_vit", num_classes=7).state_dict())
    save_file(state, tmp_path / "test_vit.mine_in1k.safetensors")
    digest = hashlib.sha256((tmp_path / "test_vit.mine_in1k.safetensors").read_bytes()).hexdigest()
    (tmp_path / "test_vit.mine_in1k.json").write_text(json.dumps({"licence": "MIT", "sha256": digest}))
    save_file(state, tmp_path / "from_a_friend.safetensors")
    return tmp_path


def test_files_put_into_the_folder_by_hand_are_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOROPTER_WEIGHTS", str(folder))
    listed = call("list")
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in listed.stdout.splitlines()[1:3]}
    assert rows["test_vit.mine_in1k.safetensors"] == "folder ImageNet-1k MIT"
    assert rows["from_a_friend.safetensors"] == "folder not told by its name not stated"
    assert f"by its path, as in weights: {folder / 'from_a_friend.safetensors'}" in listed.output
    assert "from_a_friend" not in call("list", "test_resnet").output, "who names a network is told of that alone"


def test_a_folder_filled_by_hand_is_verified_and_indexed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = call("verify", folder)
    digest = hashlib.sha256((folder / "from_a_friend.safetensors").read_bytes()).hexdigest()
    assert found.exit_code == 0
    assert f"test_vit.mine_in1k.safetensors: loads as test_vit, 7 classes; SHA-256 {digest}, as its JSON states" in found.output
    assert "from_a_friend.safetensors: states no network; its tensors are those of test_vit: call it test_vit.TAG" in found.output
    assert f"not in weights.json: 2; `phoropter weights index {folder}`" in found.output
    indexed = call("index", folder)
    assert indexed.output.count("recorded: ") == 2 and f"SHA-256 {digest}, MIT" in indexed.output
    assert call("verify", folder).output == f"{folder}: 2 listed in weights.json, all as recorded\n"
    assert "is in weights.json already" in call("index", folder).output
    monkeypatch.setenv("PHOROPTER_WEIGHTS", str(folder))
    assert "MIT" in call("list").stdout
    (folder / "from_a_friend.safetensors").write_bytes(b"")
    changed = call("verify", folder)
    assert changed.exit_code == 2 and "from_a_friend.safetensors has 0 bytes" in changed.output


def test_damaged_and_missing_files_are_told(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "test_resnet.cut.safetensors").write_bytes(b"cut")
    result = call("verify", folder)
    assert result.exit_code == 2 and "test_resnet.cut.safetensors cannot be used as stated" in result.output
    assert "loads as test_vit" in result.output, "what is sound is told too"
    empty = tmp_path_factory.mktemp("empty")
    assert call("verify", empty).exit_code == 2 and "holds no weights" in call("verify", empty).output
    assert "is no folder" in call("verify", empty / "lost").output


def test_files_that_a_study_names_by_path_are_listed_and_not_fetched(folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "mine.yaml"
    candidate = "  - {{name: {0}, backbone: test_vit, weights: {0}.mine_in1k.safetensors}}\n"
    study.write_text("name: mine\ndata: {digits: true}\ncandidates:\n" + candidate.format("test_vit") + candidate.format("lost"))
    rows = [" ".join(line.split()) for line in call("list", study).stdout.splitlines()]
    assert rows[1:] == [
        "test_vit.mine_in1k.safetensors file ImageNet-1k MIT",
        "lost.mine_in1k.safetensors no ImageNet-1k not stated",
    ]
    got = call("get", study, "--to", tmp_path / "stick")
    assert got.exit_code == 0 and "use them by" not in got.output and not (tmp_path / "stick").exists()
    assert f"not fetched: {tmp_path / 'lost.mine_in1k.safetensors'}, which the study names by its path, is missing" in got.output
    study.write_text("name: mine\ndata: {digits: true}\ncandidates: [{baseline: mean-image}]\n")
    nothing = f"nothing to fetch: no network of {study} starts from public weights\n"
    assert call("get", study, "--to", tmp_path / "stick").output == nothing
