"""What is found out about a file of weights: whether it loads, as what, and which networks have its tensors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from phoropter.models.recognition.weight_recognition import examine_weights, recognise_networks
from phoropter.models.timm_compat import import_timm


def save_network(file: Path, name: str, classes: int, **options: object) -> Path:
    save_file(dict(import_timm().create_model(name, num_classes=classes, **options).state_dict()), file)
    return file


def test_a_file_that_states_its_network_is_loaded(tmp_path: Path) -> None:
    file = save_network(tmp_path / "test_vit.mine.safetensors", "test_vit", 7)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    found = examine_weights(file)
    assert (found.network, found.classes, found.sha256) == ("test_vit", 7, digest)
    assert found.problem is None and found.as_stated is None
    file.with_suffix(".json").write_text(json.dumps({"sha256": digest}))
    assert examine_weights(file).as_stated is True
    headless = save_network(tmp_path / "b.safetensors", "test_resnet", 0)
    headless.with_suffix(".json").write_text('{"timm_architecture": "test_resnet"}')
    assert (examine_weights(headless).network, examine_weights(headless).classes) == ("test_resnet", 0)


def test_what_does_not_load_is_told(tmp_path: Path) -> None:
    other = save_network(tmp_path / "test_vit.wrong.safetensors", "test_resnet", 7)
    assert "do not fit test_vit" in str(examine_weights(other).problem)
    cut = tmp_path / "test_resnet.cut.safetensors"
    cut.write_bytes(other.read_bytes()[:-5])
    assert "not a complete safetensors file" in str(examine_weights(cut).problem)
    changed = save_network(tmp_path / "test_resnet.a.safetensors", "test_resnet", 3)
    changed.with_suffix(".json").write_text(json.dumps({"sha256": "0" * 64}))
    found = examine_weights(changed)
    assert found.as_stated is False and found.problem == "its SHA-256 is not what test_resnet.a.json states"


@pytest.mark.parametrize("classes", [0, 5])
def test_a_file_without_a_name_is_recognised_by_its_tensors(classes: int, tmp_path: Path) -> None:
    found = examine_weights(save_network(tmp_path / "download (3).safetensors", "mobilenetv3_small_050", classes))
    assert found.network is None and "mobilenetv3_small_050" in found.fitting and found.problem is None
    torch.save(import_timm().create_model("test_vit", num_classes=classes).state_dict(), tmp_path / "c.pth")
    assert examine_weights(tmp_path / "c.pth").fitting == ("test_vit",)


def test_tensors_of_none_are_recognised_as_none() -> None:
    state = import_timm().create_model("test_vit", num_classes=5).state_dict()
    shapes = {f"backbone.{name}": tuple(tensor.shape) for name, tensor in state.items()}
    assert list(recognise_networks(shapes)) == []
