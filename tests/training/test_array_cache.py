"""An array that is complete or absent, and whose computation resumes after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.training import array_cache
from phoropter.training.array_cache import CHECKPOINT_BLOCKS, CachedArray


@pytest.mark.parametrize("slow", [False, True])
def test_a_killed_computation_resumes_at_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    monkeypatch.setattr(array_cache, "CHECKPOINT_INTERVAL_S", 0.0 if slow else 1e9)  # as if every block took long, or none
    array = CachedArray(tmp_path / "entry", "array.npy", (2 * CHECKPOINT_BLOCKS + 3,), "uint16", "an array")
    computed: list[int] = []

    def compute(block: int, dies_at: int) -> Any:
        if block == dies_at:
            raise KeyboardInterrupt
        computed.append(block)
        return np.array([block * block], dtype=np.uint16)

    blocks = [1] * (2 * CHECKPOINT_BLOCKS + 3)
    with pytest.raises(KeyboardInterrupt):
        array.load_or_compute(blocks, lambda i: compute(i, CHECKPOINT_BLOCKS + 5))
    assert not array.is_complete
    computed.clear()
    np.testing.assert_array_equal(
        array.load_or_compute(blocks, lambda i: compute(i, -1)), np.arange(2 * CHECKPOINT_BLOCKS + 3) ** 2
    )
    assert computed[0] == (CHECKPOINT_BLOCKS + 5 if slow else CHECKPOINT_BLOCKS)


def test_a_partial_file_of_another_shape_is_computed_anew(tmp_path: Path) -> None:
    def die(block: int) -> Any:
        if block == CHECKPOINT_BLOCKS:
            raise KeyboardInterrupt
        return np.ones((1, 2), np.float32)

    blocks = [1] * (CHECKPOINT_BLOCKS + 1)
    with pytest.raises(KeyboardInterrupt):
        CachedArray(tmp_path / "entry", "array.npy", (len(blocks), 2), "float32", "an array").load_or_compute(blocks, die)
    wider = CachedArray(tmp_path / "entry", "array.npy", (len(blocks), 3), "float32", "an array")
    computed = wider.load_or_compute(blocks, lambda i: np.full((1, 3), i, np.float32))
    np.testing.assert_array_equal(computed[:, 0], np.arange(len(blocks)))
    assert wider.is_complete and wider.nbytes == computed.nbytes and not list(tmp_path.glob("*.part"))


def test_a_complete_array_is_not_computed_again(tmp_path: Path) -> None:
    array = CachedArray(tmp_path / "entry", "array.npy", (3,), "int64", "an array")
    done: list[tuple[int, int]] = []
    array.load_or_compute([2, 1], lambda i: np.arange(2 - i), lambda *at: done.append(at))
    assert done == [(2, 3), (3, 3)]
    assert array.load_or_compute([2, 1], lambda i: 1 / 0).tolist() == [0, 1, 0]  # type: ignore[arg-type, return-value]
