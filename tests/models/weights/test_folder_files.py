"""Files of weights in a folder: what is stated of each, and how those that somebody put there are recorded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from phoropter.core.errors import WeightsError
from phoropter.models.weights.folder_files import (
    StatedFacts,
    add_unlisted_files,
    list_unlisted_files,
    list_weight_files,
    read_stated_facts,
)
from phoropter.models.weights.weights_folder import read_weights_manifest, verify_folder

DIGEST = hashlib.sha256(b"one").hexdigest()


def put(file: Path, contents: bytes = b"one", **beside: object) -> Path:
    file.write_bytes(contents)
    if beside:
        file.with_suffix(".json").write_text(json.dumps(beside))
    return file


def test_name_and_json_say_what_a_file_is(tmp_path: Path) -> None:
    named = put(tmp_path / "resnet50.mine_in21k_ft_in1k.safetensors")
    assert read_stated_facts(named) == StatedFacts("resnet50", "ImageNet-21k, then ImageNet-1k", None, None)
    card = {"timm_architecture": "vit_small_patch16_224.augreg_in1k", "license": "mit", "sha256": DIGEST}
    described = put(tmp_path / "from_a_friend.pth", **card)
    assert read_stated_facts(described) == StatedFacts("vit_small_patch16_224", "not told by its name", "mit", DIGEST)
    assert read_stated_facts(put(tmp_path / "other.pth", licence="CC BY 4.0", sha256="?")).licence == "CC BY 4.0"


def test_unlisted_files_are_recorded_as_they_are(tmp_path: Path) -> None:
    put(tmp_path / "a.one_in1k.safetensors", licence="MIT", sha256=DIGEST)
    put(tmp_path / "b.pth")
    put(tmp_path / "notes.txt")
    assert [file.name for file in list_unlisted_files(tmp_path)] == ["a.one_in1k.safetensors", "b.pth"]
    added = add_unlisted_files(tmp_path)
    assert [(e.file, e.bytes, e.sha256, e.licence, e.pretraining) for e in added] == [
        ("a.one_in1k.safetensors", 3, DIGEST, "MIT", "ImageNet-1k"),
        ("b.pth", 3, DIGEST, None, "not told by its name"),
    ]
    assert list_unlisted_files(tmp_path) == [] and add_unlisted_files(tmp_path) == [] and verify_folder(tmp_path) == []
    assert len(list_weight_files(tmp_path)) == 2
    put(tmp_path / "b.pth", b"two")
    assert verify_folder(tmp_path) == ["b: b.pth has another content than was recorded"]


def test_a_file_that_is_not_what_its_json_states_is_not_recorded(tmp_path: Path) -> None:
    put(tmp_path / "a.safetensors")
    put(tmp_path / "b.safetensors", b"changed", sha256=DIGEST)
    with pytest.raises(WeightsError, match=r"another SHA-256 than b\.json states"):
        add_unlisted_files(tmp_path)
    assert list(read_weights_manifest(tmp_path).weights) == ["a"]
