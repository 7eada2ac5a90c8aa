"""The folder of weights to carry: found by its variable, with or without a manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from phoropter.core.errors import WeightsError
from phoropter.models.weights.weights_folder import (
    ManifestEntry,
    add_to_manifest,
    digest_weights,
    find_in_folder,
    read_weights_manifest,
    verify_folder,
)

REPO = "timm/test_resnet.r160_in1k"


def make_entry(file: Path, repo: str | None = REPO, url: str | None = None) -> ManifestEntry:
    return ManifestEntry(
        file=file.name, bytes=file.stat().st_size, sha256=digest_weights(file), repo=repo, url=url, licence=None, pretraining=""
    )


def test_without_the_variable_there_is_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHOROPTER_WEIGHTS", raising=False)
    assert find_in_folder(REPO, None) is None


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOROPTER_WEIGHTS", str(tmp_path / "lost"))
    with pytest.raises(WeightsError, match="there is no such folder"):
        find_in_folder(REPO, None)


def test_files_are_found_by_the_manifest_and_by_timms_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOROPTER_WEIGHTS", str(tmp_path))
    named = tmp_path / "test_resnet.r160_in1k.safetensors"
    named.write_bytes(b"by its name")
    assert find_in_folder(REPO, None) == named
    other, torchvisions = tmp_path / "other.bin", tmp_path / "alexnet.pth"
    other.write_bytes(b"by the manifest")
    torchvisions.write_bytes(b"of a URL")
    add_to_manifest(tmp_path, "test_resnet.r160_in1k", make_entry(other))
    add_to_manifest(tmp_path, "alexnet.tv_in1k", make_entry(torchvisions, None, "https://host/alexnet.pth"))
    assert find_in_folder(REPO, None) == other and find_in_folder(None, "https://host/alexnet.pth") == torchvisions
    assert find_in_folder("timm/vgg19.tv_in1k", None) is None and len(read_weights_manifest(tmp_path).weights) == 2


def test_a_changed_file_has_another_digest_and_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"one")
    assert digest_weights(file) == hashlib.sha256(b"one").hexdigest()
    add_to_manifest(tmp_path, "a", make_entry(file))
    assert verify_folder(tmp_path) == []
    file.write_bytes(b"longer")
    assert (
        "has 6 bytes, expected 3" in verify_folder(tmp_path)[0] and digest_weights(file) == hashlib.sha256(b"longer").hexdigest()
    )
    file.unlink()
    assert verify_folder(tmp_path) == ["a: a.safetensors is missing"]


def test_a_damaged_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / "weights.json").write_text('{"format": 1, "weights": {"a": {}}}')
    with pytest.raises(WeightsError, match=r"weights\.json is damaged at weights\.a"):
        read_weights_manifest(tmp_path)
