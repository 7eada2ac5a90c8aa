"""Weight files and their metadata are found without torch and without internet."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from phoropter.core.errors import WeightsError
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.models.weights import weight_files
from phoropter.models.weights.weight_files import RemoteWeights

HUB = RemoteWeights("timm/test_resnet.r160_in1k", None, None)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float32)}, path)
    return path


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and a host that was never asked."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(weight_files, "_unreachable_hosts", set())
    weight_files._query_remote_etag.cache_clear()
    return cache


def cached_file(cache: Path, contents: bytes, linked: bool) -> str:
    """Puts a file into the cache as the hub's library does, by link or (Windows) by copy; returns its sha256."""
    etag = hashlib.sha256(contents).hexdigest()
    folder = cache / "models--timm--test_resnet.r160_in1k"
    snapshot = folder / "snapshots" / "0123abc"
    for part in (snapshot, folder / "refs", folder / "blobs"):
        part.mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc")
    blob = folder / "blobs" / etag
    blob.write_bytes(contents)
    if linked:
        (snapshot / "model.safetensors").symlink_to(blob)
    else:
        blob.rename(snapshot / "model.safetensors")
    return etag


def test_the_header_gives_the_shapes(weights: Path) -> None:
    assert weight_files.read_tensor_shapes(weights) == {"a": (2, 3), "b": (4,)}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b[:-1],
        lambda b: b + b"x",
        lambda b: b"",
        lambda b: (1 << 60).to_bytes(8, "little") + b[8:],
        lambda b: b[:8] + b"[" + b[9:],
        lambda b: (2).to_bytes(8, "little") + b"[]",
        lambda b: b"\x89PNG\r\n\x1a\n" + b"0" * 100,
        lambda b: b.replace(b'"data_offsets":[0,', b'"data_offsets":[9,'),
    ],
)
def test_a_damaged_file_is_refused(weights: Path, spoil: Any) -> None:
    weights.write_bytes(spoil(weights.read_bytes()))
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        weight_files.read_tensor_shapes(weights)


def test_the_sidecar_of_a_file_sets_its_preprocessing(weights: Path) -> None:
    said = {"timm_architecture": "resnet18", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 96, 96]}
    weights.with_suffix(".json").write_text(json.dumps(said))
    prepared = catalog.resolve_preprocessing(BackboneSpec(name="resnet18", weights=str(weights)))
    assert (prepared.side, prepared.mean, prepared.std) == (96, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_the_spec_overrides_the_normalisation(weights: Path) -> None:
    weights.with_suffix(".json").write_text('{"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}')
    spec = BackboneSpec(name="resnet18", weights=str(weights), mean=(0.7, 0.8, 0.9))
    prepared = catalog.resolve_preprocessing(spec)
    assert (prepared.mean, prepared.std) == ((0.7, 0.8, 0.9), (0.4, 0.5, 0.6))
    with pytest.raises(ValueError, match="a deviation must be above 0"):
        BackboneSpec(name="resnet18", std=(0.1, 0.0, 0.1))


def test_identity_depends_on_the_sidecar_of_a_file(weights: Path) -> None:
    spec = BackboneSpec(name="resnet18", weights=str(weights))
    before = catalog.identify_weights(spec)
    weights.with_suffix(".json").write_text('{"mean": [0.1, 0.2, 0.3]}')
    assert catalog.identify_weights(spec) != before


def test_a_folder_in_the_hubs_layout_sets_its_preprocessing(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "resnet18"
    folder.mkdir()
    weights.rename(folder / "model.safetensors")
    config = {"architecture": "resnet18", "num_classes": 7, "pretrained_cfg": {"mean": [0.5] * 3, "input_size": [3, 64, 64]}}
    (folder / "config.json").write_text(json.dumps(config))
    found = weight_files.find_weight_file("resnet18", tmp_path, "resnet18")
    assert (found.layout, found.metadata["num_classes"]) == ("folder", 7)
    prepared = catalog.resolve_preprocessing(BackboneSpec(name="resnet18", weights="resnet18"), tmp_path)
    assert (prepared.side, prepared.mean, prepared.std) == (64, (0.5,) * 3, (0.229, 0.224, 0.225))


def test_weights_of_another_architecture_are_refused(weights: Path) -> None:
    weights.with_suffix(".json").write_text('{"architecture": "resnet18.a1_in1k"}')
    with pytest.raises(WeightsError, match="are of resnet18, but the backbone is resnet50"):
        catalog.check_weights(BackboneSpec(name="resnet50", weights=str(weights)))


@pytest.mark.parametrize("text", ["[1]", "{", '{"mean": ["x"]}', '{"input_size": 3}', '{"std": [1]}'])
def test_a_malformed_sidecar_is_refused(weights: Path, text: str) -> None:
    weights.with_suffix(".json").write_text(text)
    spec = BackboneSpec(name="resnet18", weights=str(weights))
    with pytest.raises(WeightsError):
        catalog.check_weights(spec)
        catalog.resolve_preprocessing(spec)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "there is no such file or folder"),
        (lambda p: p.mkdir(), "neither model.safetensors nor bundle.json"),
        (lambda p: p.write_bytes(b"x"), "expected a .safetensors file"),
        (lambda p: (p.mkdir(), (p / "bundle.json").write_text("{}")), "does not describe a bundle"),
        (lambda p: (p.mkdir(), (p / "bundle.json").write_text('{"branches": [{"architecture": "vgg19"}]}')), "holds vgg19, not"),
    ],
)
def test_a_path_that_holds_no_weights_is_refused(tmp_path: Path, make: Any, words: str) -> None:
    make(tmp_path / "w")
    with pytest.raises(WeightsError, match=words):
        catalog.check_weights(BackboneSpec(name="resnet18", weights="w"), tmp_path)


@pytest.mark.parametrize("linked", [True, False])
def test_the_hubs_digest_is_read_from_the_local_cache(hub_cache: Path, linked: bool) -> None:
    etag = cached_file(hub_cache, b"tensors", linked)
    spec = BackboneSpec(name="test_resnet.r160_in1k")
    catalog.check_weights(spec)
    assert catalog.identify_weights(spec) == f"test_resnet.r160_in1k@{etag}"


def test_the_identity_is_the_same_before_and_after_a_download(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "_request_hub_etag", lambda remote: hashlib.sha256(b"tensors").hexdigest())
    before = catalog.identify_weights(BackboneSpec(name="test_resnet"))
    cached_file(hub_cache, b"tensors", linked=True)
    assert catalog.identify_weights(BackboneSpec(name="test_resnet")) == before


def test_offline_the_message_says_how_to_get_the_weights(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(weight_files, "_request_hub_etag", lambda remote: pytest.fail("the network was asked"))
    with pytest.raises(WeightsError, match=r"phoropter weights get resnet50\.a1_in1k --to FOLDER") as caught:
        catalog.check_weights(BackboneSpec(name="resnet50"))
    assert "PHOROPTER_WEIGHTS=FOLDER" in str(caught.value) and "\n" not in str(caught.value)


def test_a_silent_hub_is_queried_once(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def silent(remote: RemoteWeights) -> str:
        asked.append(remote)
        raise OSError("no route")

    monkeypatch.setattr(weight_files, "_request_hub_etag", silent)
    for name in ("resnet50", "resnet18", "vgg19"):
        with pytest.raises(WeightsError, match="phoropter weights get"):
            catalog.check_weights(BackboneSpec(name=name))
    assert len(asked) == 1


def test_a_hub_that_does_not_answer_times_out(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "_request_hub_etag", lambda remote: time.sleep(1) or "late")
    monkeypatch.setattr(weight_files, "HUB_TIMEOUT_S", 0.05)
    with pytest.raises(WeightsError, match=r"no answer in 0\.05 s"):
        catalog.check_weights(BackboneSpec(name="resnet50"))


def test_weights_missing_on_the_hub_are_told_apart_from_network_errors(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(remote: RemoteWeights) -> str:
        raise WeightsError("the hub has no weights")

    monkeypatch.setattr(weight_files, "_request_hub_etag", refused)
    with pytest.raises(WeightsError, match="the hub has no weights"):
        catalog.check_weights(BackboneSpec(name="resnet50"))
    assert not weight_files._unreachable_hosts
