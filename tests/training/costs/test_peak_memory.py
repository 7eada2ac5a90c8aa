"""The peak of a block is its own: an earlier, larger one does not show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phoropter.training.costs import peak_memory
from phoropter.training.costs.peak_memory import PeakMemory

CPU = torch.device("cpu")
MIB = 2**20


def touch(mebibytes: int) -> None:
    np.ones(mebibytes * MIB, dtype=np.uint8)


def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "_forget_resident_peak", lambda: False)
    monkeypatch.setattr(peak_memory, "SAMPLE_INTERVAL_S", 0.001)


def hold(mebibytes: int) -> None:
    """As `touch`, and long enough to be sampled."""
    block = np.ones(mebibytes * MIB, dtype=np.uint8)
    for _ in range(20):
        block[::4096] += 1


@pytest.mark.parametrize("how", ["kept by the system", "sampled"])
def test_a_block_reports_its_own_peak_and_not_that_of_an_earlier_one(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "sampled":
        sampled(monkeypatch)
    with PeakMemory(CPU) as nothing:
        pass
    with PeakMemory(CPU) as large:
        hold(300)
    with PeakMemory(CPU) as small:
        hold(20)
    assert 250 * MIB < large.bytes - nothing.bytes < 400 * MIB
    assert large.bytes - small.bytes > 200 * MIB


def test_an_outer_block_remembers_what_an_inner_one_forgot() -> None:
    with PeakMemory(CPU) as outer:
        touch(200)
        with PeakMemory(CPU) as inner:
            touch(10)
        touch(10)
    with PeakMemory(CPU) as around:
        with PeakMemory(CPU) as within:
            touch(200)
        touch(10)
    assert outer.bytes - inner.bytes > 120 * MIB  # reached before the inner block began
    assert around.bytes >= within.bytes  # reached within it


def test_a_block_that_fails_leaves_no_window_open() -> None:
    with pytest.raises(KeyError), PeakMemory(CPU) as peak:
        raise KeyError
    assert peak.bytes > 0 and peak_memory._open_windows == []
