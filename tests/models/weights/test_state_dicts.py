"""State dicts: only tensors are unpickled, and a mismatch is reported in one sentence."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from phoropter.core.errors import WeightsError
from phoropter.models import backbones
from phoropter.models.spec import BackboneSpec
from phoropter.models.weights.state_dicts import load_state_dict_strictly, read_state_dict


class Evil:
    """Unpickled, it would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("legacy", [True, False])
def test_a_malicious_pickle_is_refused_and_nothing_is_executed(tmp_path: Path, legacy: bool) -> None:
    mark, path = tmp_path / "executed", tmp_path / "evil.pth"
    torch.save({"fc.weight": torch.zeros(1), "x": Evil(mark)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="hold more than tensors") as caught:
        backbones.build_backbone(BackboneSpec(name="test_resnet", weights=str(path)), seed=0)
    assert not mark.exists() and "\n" not in str(caught.value)


def test_a_bare_pickle_is_refused_and_nothing_is_executed(tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "evil.bin"
    path.write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(WeightsError):
        read_state_dict(path)
    assert not mark.exists()


def test_an_archive_that_unpacks_to_many_times_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1_000_000))
    with pytest.raises(WeightsError, match="many times their size"):
        read_state_dict(path)


@pytest.mark.parametrize("contents", [b"", b"x", b"PK\x03\x04 not a zip", bytes(100)])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(contents)
    with pytest.raises(WeightsError, match=r"net\.pth"):
        read_state_dict(path)


@pytest.mark.parametrize("value", [torch.zeros(1), {}, {"a": 1}, {"model": {"a": "word"}}, [torch.zeros(1)]])
def test_a_checkpoint_without_a_dictionary_of_tensors_is_refused(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="no dictionary of tensors"):
        read_state_dict(tmp_path / "net.pth")


@pytest.mark.parametrize("key", [None, "state_dict", "model", "state_dict_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_wrappers_of_training_scripts_are_removed(tmp_path: Path, key: str | None, prefix: str) -> None:
    state = {f"{prefix}a": torch.arange(3), f"{prefix}b": torch.zeros(1)}
    torch.save({key: state, "epoch": 3} if key else state, tmp_path / "net.pth")
    read = read_state_dict(tmp_path / "net.pth")
    assert list(read) == ["a", "b"] and torch.equal(read["a"], torch.arange(3))


def test_a_mismatch_names_missing_unexpected_and_misshapen_tensors() -> None:
    state = {"0.weight": torch.zeros(2, 2), "extra": torch.zeros(1), "1.weight": torch.zeros(3, 2), "1.bias": torch.zeros(3)}
    with pytest.raises(WeightsError) as caught:
        load_state_dict_strictly(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 5)), state, Path("f.pth"), "net")
    assert str(caught.value) == (
        "weights f.pth do not fit net: 1 tensor is missing (0.bias); 1 tensor is unexpected (extra); "
        "1.weight has the shape [3, 2] and [5, 2] was expected, and 1 more"
    )
