"""Samples that are lost: how many, where, and what stands in their place."""

from __future__ import annotations

import numpy as np

from phoropter.core.seeds import named_generator
from phoropter.signals.corruptions.lost_samples import choose_lost_samples, hold_last_value


def test_one_gap_is_lost_in_every_window_and_longer_gaps_hold_the_shorter() -> None:
    lost = {s: choose_lost_samples(1000, 10, s, 20, named_generator("d")) for s in (0.0, 2.0, 5.0)}
    assert not lost[0.0].any()
    for seconds in (2.0, 5.0):
        blocks = lost[seconds].reshape(5, 200)
        assert (blocks.sum(axis=1) == seconds * 10).all()
        assert all(np.abs(np.diff(block.astype(int))).sum() <= 2 for block in blocks)  # each is one stretch
    assert (lost[5.0] | ~lost[2.0]).all()


def test_a_lost_stretch_holds_the_value_before_it() -> None:
    samples = np.array([1, 2, np.nan, 4, 5, 6], np.float32)
    lost = np.array([1, 0, 0, 1, 1, 0], bool)
    assert np.array_equal(hold_last_value(samples, lost), np.array([2, 2, np.nan, 2, 2, 6], np.float32), equal_nan=True)
    nothing = np.full(3, np.nan, np.float32)
    assert np.isnan(hold_last_value(nothing, np.ones(3, bool))).all()
