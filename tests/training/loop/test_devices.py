"""Names of devices: what is there, what is not, and what is no device."""

from __future__ import annotations

import pytest
import torch

from phoropter.core.errors import SpecError
from phoropter.training.loop.devices import resolve_device, use_threads


def test_the_cpu_is_always_there_and_auto_finds_something() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "cpu:7", "", "xla", "cuda:-1"])
def test_another_name_is_refused_with_the_names_that_are_known(name: str) -> None:
    with pytest.raises(SpecError, match=f"device is '{name}', expected cpu, cuda, cuda:N, mps or auto"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("name", "built", "gpus", "words"),
    [
        ("cuda", False, 0, "is built without CUDA"),
        ("cuda:0", True, 0, "no CUDA GPU is found"),
        ("cuda:1", True, 1, "there is 1 CUDA GPU, counted from cuda:0"),
        ("cuda:5", True, 4, "there are 4 CUDA GPUs"),
        ("mps", True, 0, "no Apple GPU"),
    ],
)
def test_a_device_that_is_absent_is_refused_with_the_reason(
    name: str, built: bool, gpus: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SpecError, match=words) as caught:
        resolve_device(name)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("cuda:1") == torch.device("cuda:1") and resolve_device("auto") == torch.device("cuda")


def test_as_many_threads_as_before_compute_behind_a_block_whatever_ends_it() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="stop"), use_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ValueError("stop")
    assert torch.get_num_threads() == before
