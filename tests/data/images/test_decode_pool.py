from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.images import decode_pool
from phoropter.data.images.decode import SquareResize
from phoropter.data.images.decode_pool import decode_shards, picture_reader
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.sources.folder import open_folder

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 9, 9, 3), dtype=np.uint8)


class ManyAtOnce:
    """A storage that reads several rows at once, and cannot read row 13."""

    def read(self, row: int) -> Any:
        if row == 13:
            raise DataError("row 13: damaged")
        return IMAGES[row]

    def images(self, rows: Any) -> Any:
        return np.stack([self.read(int(row)) for row in rows])


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("many", [True, False])
def test_shards_are_in_order_and_name_bad_rows(monkeypatch: pytest.MonkeyPatch, workers: int, many: bool) -> None:
    monkeypatch.setattr(decode_pool, "SHARD_BYTES", 7 * 3 * 81)
    monkeypatch.setattr(decode_pool, "PICTURES_PER_CALL", 4)
    dataset = from_arrays(IMAGES, [row % 2 for row in range(50)])
    if many:
        dataset = replace(dataset, pictures=ManyAtOnce())  # type: ignore[arg-type]
    shards = list(decode_shards(dataset, SquareResize(9), 3, workers))
    assert len(shards) > 3 and [s.stop for s in shards] == sorted(s.stop for s in shards) and shards[-1].stop == 50
    bad = [13] if many else []
    assert [row for shard in shards for row, _ in shard.bad_rows] == bad
    expected = np.delete(IMAGES[3:], [row - 3 for row in bad], axis=0).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(np.concatenate([s.squares for s in shards]), expected)


def test_a_picture_is_read_as_a_pillow_image_where_the_storage_can(zoo: Path) -> None:
    assert picture_reader(open_folder(zoo))(0).size == (30, 20)
    assert picture_reader(replace(from_arrays(IMAGES, [0, 1] * 25), pictures=ManyAtOnce()))(0).shape == (9, 9, 3)  # type: ignore[arg-type]
