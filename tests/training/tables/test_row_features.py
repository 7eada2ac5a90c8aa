"""Features of rows are measured once, kept in the cache, and measured again where the cache is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import SpecError
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.tables import row_features
from phoropter.training.tables.picture_features import measure_mean_image
from phoropter.training.tables.row_features import check_baseline, compute_row_features

MEAN = TableSpec(baseline="mean-image")


def test_blocks_are_joined_in_order(few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, pixels = few_digits
    monkeypatch.setattr(row_features, "BLOCK_ROWS", 64)
    told: list[tuple[int, int]] = []
    found = compute_row_features(MEAN, dataset, pixels, tmp_path, None, lambda done, total: told.append((done, total)))
    np.testing.assert_allclose(found.values, measure_mean_image(pixels.batch(np.arange(len(dataset)))), rtol=1e-6)
    assert told == [(64, 150), (128, 150), (150, 150)] and found.seconds > 0


def test_a_second_call_reads_the_cache_and_a_damaged_one_is_measured_again(few_digits: Any, tmp_path: Path) -> None:
    dataset, pixels = few_digits
    first = compute_row_features(MEAN, dataset, pixels, tmp_path, None)
    told: list[int] = []
    again = compute_row_features(MEAN, dataset, pixels, tmp_path, None, lambda done, total: told.append(done))
    assert np.array_equal(first.values, again.values) and again.seconds == first.seconds and not told
    (file,) = (tmp_path / "row-features").glob("*.npz")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    assert np.array_equal(compute_row_features(MEAN, dataset, pixels, tmp_path, None).values, first.values)
    compute_row_features(TableSpec(baseline="colour-texture"), dataset, pixels, tmp_path, None)
    assert len(list((tmp_path / "row-features").glob("*.npz"))) == 2


def test_baselines_of_recordings_are_refused_for_pictures(few_digits: Any) -> None:
    with pytest.raises(SpecError, match="'mine': baseline hrv needs windows of an ECG"):
        check_baseline(TableSpec(baseline="hrv"), few_digits[0], "candidate 'mine'")
    check_baseline(MEAN, few_digits[0], "candidate 'mine'")
