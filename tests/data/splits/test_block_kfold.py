"""Folds of blocks of time, against the rule written out window by window."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.data.splits.block_kfold import NO_FOLD, assign_block_folds


def folds_written_out(spans: np.ndarray, stretch: np.ndarray, folds: int) -> list[int]:
    """Each window's fold: the block of its rank in time, or none where it reaches beyond the start of the next block."""
    found = []
    for (start, stop), own in zip(spans, stretch, strict=True):
        starts = sorted(s for (s, _), other in zip(spans, stretch, strict=True) if other == own)
        borders = [starts[part * len(starts) // folds] for part in range(1, folds)]
        block = sum(start >= border for border in borders)
        crosses = block < len(borders) and stop > borders[block]
        found.append(NO_FOLD if crosses else block)
    return found


@pytest.mark.parametrize("folds", [2, 3, 5])
@pytest.mark.parametrize("step", [1.0, 2.0, 5.0])
def test_folds_are_those_of_the_rule(step: float, folds: int) -> None:
    rng = np.random.default_rng(folds)
    starts = np.concatenate([step * np.arange(23), 3 + step * np.arange(17)])
    stretch = np.repeat([0, 1], [23, 17])
    order = rng.permutation(len(starts))
    spans = np.stack([starts, starts + 5.0], axis=1)[order]
    found = assign_block_folds(spans, stretch[order], folds)
    assert found.tolist() == folds_written_out(spans, stretch[order], folds)
    assert (NO_FOLD in found) == (step < 5)
