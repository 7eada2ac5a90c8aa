from __future__ import annotations

import numpy as np

from phoropter.data.time_overlap import largest_overlap, overlap_mask


def test_the_count_by_sorting_equals_the_comparison_of_every_pair() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        starts = random.integers(0, 40, 60) / 4
        spans = np.stack([starts, starts + random.integers(0, 12, 60) / 4], axis=1)
        recording = random.integers(0, 4, 60)
        rows = random.permutation(60)
        train, test = rows[:35], rows[35:]
        plain = [
            any(recording[a] == recording[t] and max(spans[a, 0], spans[t, 0]) < min(spans[a, 1], spans[t, 1]) for a in train)
            for t in test
        ]
        assert overlap_mask(spans, recording, train, test).tolist() == plain


def test_windows_that_only_touch_do_not_overlap_whatever_the_rounding() -> None:
    starts = np.arange(40) * 301 / 360.0
    spans = np.stack([starts, starts + 301 / 360.0], axis=1)
    assert (spans[1:, 0] < spans[:-1, 1]).any(), "rounding should make some seem to overlap"
    even, odd = np.arange(0, 40, 2), np.arange(1, 40, 2)
    assert not overlap_mask(spans, np.zeros(40, dtype=np.int64), even, odd).any()


def test_the_largest_overlap_is_in_the_same_recording() -> None:
    spans = np.array([[0.0, 5.0], [3.0, 8.0], [4.0, 9.0], [4.0, 9.0]])
    assert largest_overlap(spans, np.array([0, 0, 0, 1]), np.array([0, 1, 3]), 2) == (1, 4.0)
