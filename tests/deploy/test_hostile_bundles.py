"""A damaged or hostile bundle is refused in one sentence, and nothing outside it is opened."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phoropter as ph
from phoropter.core.errors import UserError
from phoropter.core.storage.checksums import describe_files
from phoropter.core.storage.sealed_json import write_sealed_json
from small_pictures import draw_dark_and_light, run_small_study

STUDY = """\
name: shapes
data: {folder: pictures, size: 48}
protocol: {split: hold-out, test_size: 0.5}
recipe: {preset: scratch, epochs: 1}
candidates: [{name: net, backbone: test_resnet, weights: random}]
"""
_opened: list[str] | None = None


def _note_opened_files(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(args[0], (str, bytes)):
        _opened.append(args[0] if isinstance(args[0], str) else args[0].decode(errors="replace"))


@pytest.fixture(scope="module", autouse=True)
def _audit() -> None:
    sys.addaudithook(_note_opened_files)  # which cannot be removed again, and does nothing while `_opened` is None


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Files opened during the test, but for those of Python and its packages."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    draw_dark_and_light(folder / "pictures", 4)
    store = run_small_study(folder, STUDY)
    bundle = next(run.bundle_folder for run in store.runs() if run.bundle_folder)
    assert bundle is not None
    return bundle


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(b"x" * 64)
    return Path(shutil.copytree(sound, tmp_path / "deep" / "deeper" / "bundle"))


def reseal(bundle: Path, change: Callable[[dict[str, Any]], None] = lambda content: None) -> None:
    """As whoever wants to deceive would: with checksums that fit."""
    content = json.loads((bundle / "bundle.json").read_text())
    content.pop("checksum")
    (bundle / "bundle.json").unlink()
    content["files"] = describe_files(bundle)
    change(content)
    write_sealed_json(bundle / "bundle.json", content)


def refused(bundle: Path) -> str:
    """The one sentence with which it is refused."""
    with pytest.raises(UserError) as error:
        ph.load(bundle)
    sentence = str(error.value)
    assert "\n" not in sentence and len(sentence) < 1000 and "Traceback" not in sentence
    return sentence


def assert_nothing_outside(bundle: Path, opened: list[str]) -> None:
    root = bundle.parents[2]
    outside = [o for o in opened if o.startswith(str(root)) and not o.startswith(str(bundle))]
    assert not outside


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors", "trained_on.npz"])
def test_a_changed_byte_and_a_missing_file_are_refused(bundle: Path, name: str) -> None:
    data = (bundle / name).read_bytes()
    for place in (0, len(data) // 2, len(data) - 2):
        (bundle / name).write_bytes(data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :])
        assert refused(bundle)
    (bundle / name).write_bytes(data[: len(data) // 2])
    assert refused(bundle)
    (bundle / name).unlink()
    assert refused(bundle)
    (bundle / name).mkdir()
    assert refused(bundle)


PATHS: dict[str, Callable[[dict[str, Any]], None]] = {
    "file": lambda c: c["files"].update({"../../../secret": [64, "0" * 32]}),
    "absolute file": lambda c: c["files"].update({"/etc/hostname": [1, "0" * 32]}),
    "architecture": lambda c: c["spec"]["backbones"][0].update(name="../../../secret"),
    "data option": lambda c: c["training"]["data"].update(no_such_option="../../../secret"),
    "option": lambda c: c["branches"][0].update(options={"pretrained_cfg": "../../../secret"}),
    "checkpoint": lambda c: c["branches"][0].update(options={"checkpoint_path": "../../../secret"}),
    "candidate": lambda c: c["training"].update(candidate="../../../secret"),
    "refit": lambda c: c["training"].update(refit={"how": "../../../secret"}),
    "training": lambda c: c.update(training="../../../secret"),
    "member candidates": lambda c: c["training"].update(members=["../../../secret"]),
    "format": lambda c: c.update(format="../../../secret"),
    "members": lambda c: c.update(members=["../../../secret"]),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_out_of_the_bundle_is_refused_and_not_opened(bundle: Path, name: str, opened: list[str]) -> None:
    reseal(bundle, PATHS[name])
    assert refused(bundle)
    assert_nothing_outside(bundle, opened)


def test_paths_of_the_study_are_never_opened(bundle: Path, opened: list[str]) -> None:
    """Where its pictures and its pretrained weights lay is recorded, and means nothing to whoever loads the bundle."""

    def name_secrets(content: dict[str, Any]) -> None:
        content["training"]["data"]["folder"] = content["spec"]["backbones"][0]["weights"] = "../../../secret"

    reseal(bundle, name_secrets)
    ph.load(bundle).predict(np.zeros((40, 40, 3), np.uint8), device="cpu")
    assert_nothing_outside(bundle, opened)


def with_header(length: int, header: bytes, rest: bytes = b"") -> bytes:
    return length.to_bytes(8, "little") + header + rest


BOMBS: dict[str, bytes] = {
    "a header of 2^63 bytes": with_header(2**63, b"{}"),
    "a header longer than the file": with_header(1 << 40, b"{}"),
    "a header of no JSON": with_header(8, b"not json"),
    "a nest of brackets": with_header(200_000, b"[" * 200_000),
    "a tensor of 2^60 values": with_header(
        70, b'{"a":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}'.ljust(70), b"\0" * 4
    ),
    "tensors one upon another": with_header(
        140,
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(140),
        b"\0" * 4,
    ),
    "negative places": with_header(70, b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}'.ljust(70)),
    "an unknown kind": with_header(70, b'{"a":{"dtype":"OBJ","shape":[1],"data_offsets":[0,4]}}'.ljust(70), b"\0" * 4),
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00cposix\nsystem\n.",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_for_weights_is_refused(bundle: Path, name: str) -> None:
    (bundle / "model.safetensors").write_bytes(BOMBS[name])
    reseal(bundle)
    assert refused(bundle)


HUGE: dict[str, dict[str, Any]] = {
    "input_size": {"input_size": [3, 1_000_000, 1_000_000]},
    "num_classes": {"num_classes": 10**12},
    "channels": {"options": {"stem_width": 2_000_000}},
}


@pytest.mark.parametrize("name", HUGE)
def test_a_network_far_larger_than_its_weights_is_refused_before_it_is_built(bundle: Path, name: str) -> None:
    reseal(bundle, lambda content: content["branches"][0].update(HUGE[name]))
    assert name in refused(bundle) or "do not belong together" in refused(bundle)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": 1e999}', "null", '"x"', '{"format": 2, "format": 2}', "\0", "{"])
def test_a_description_of_another_kind_is_refused(bundle: Path, text: str) -> None:
    (bundle / "bundle.json").write_text(text)
    assert refused(bundle)


def test_a_file_that_would_be_read_must_be_listed_and_any_other_is_never_opened(bundle: Path, opened: list[str]) -> None:
    (bundle / "notes.pkl").write_bytes(b"\x80\x04cposix\nsystem\n.")
    opened.clear()
    ph.load(bundle)
    assert not [o for o in opened if o.endswith("notes.pkl")]
    (bundle / "examples").mkdir()
    (bundle / "examples" / "1.png").write_bytes(b"x")
    assert "examples/1.png is not among its files" in refused(bundle)
    shutil.rmtree(bundle / "examples")
    (bundle / "trained_on.npz").rename(bundle.parent / "away.npz")
    reseal(bundle)
    ph.load(bundle)
    (bundle.parent / "away.npz").rename(bundle / "trained_on.npz")
    assert "trained_on.npz is not among its files" in refused(bundle)
