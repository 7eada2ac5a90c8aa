"""A bundle is held against its checksums; other folders with weights have none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phoropter.core.errors import WeightsError
from phoropter.core.storage.checksums import describe_files
from phoropter.core.storage.sealed_json import write_sealed_json
from phoropter.models.weights.bundle_files import raise_on_bundle_damage


def test_a_folder_without_a_description_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    raise_on_bundle_damage(tmp_path)


def test_a_changed_a_longer_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    write_sealed_json(tmp_path / "bundle.json", {"format": 2, "files": describe_files(tmp_path)})
    raise_on_bundle_damage(tmp_path)
    for content, words in ((b"weighty", "another|checksum is not"), (b"weights!", "does not have the 7 bytes")):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=words):
            raise_on_bundle_damage(tmp_path)
    file.unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read"):
        raise_on_bundle_damage(tmp_path)


@pytest.mark.parametrize("files", [None, [], {"a": 1}, {"a": ["x", "y"]}, {"a": [1, 2, 3]}])
def test_a_description_without_a_sound_list_is_refused(tmp_path: Path, files: object) -> None:
    write_sealed_json(tmp_path / "bundle.json", {"format": 2, "files": files})
    with pytest.raises(WeightsError, match="is damaged"):
        raise_on_bundle_damage(tmp_path)
    (tmp_path / "bundle.json").write_text(json.dumps({"format": 2, "files": {}}))
    with pytest.raises(WeightsError, match="has no checksum"):
        raise_on_bundle_damage(tmp_path)


def test_examples_without_checksums_are_refused(tmp_path: Path) -> None:
    """A server sends the files of examples/, which without a checksum may be links to any file of its machine."""
    (tmp_path / "bundle.json").write_text(json.dumps({"format": 1}))
    raise_on_bundle_damage(tmp_path)
    (tmp_path / "examples").mkdir()
    with pytest.raises(WeightsError, match="is of format 1, which has no examples/"):
        raise_on_bundle_damage(tmp_path)
