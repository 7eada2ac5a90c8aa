"""A packed dataset is the dataset: the same pixels, labels, groups, sites, parts and ids, in as many shards as asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoropter.core.errors import DataError, StoreError
from phoropter.data.dataset import Dataset
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.operations.pack import pack_dataset
from small_pictures import draw_dark_and_light


@pytest.fixture
def pictures(tmp_path: Path) -> Dataset:
    """40 pictures: PNG, and JPEG with a rotation in its header; with groups, sites and parts."""
    folder = draw_dark_and_light(tmp_path / "pictures", 20)
    for kind in ("dark", "light"):
        exif = Image.Exif()
        exif[0x0112] = 6  # rotate by 90 degrees
        Image.open(folder / kind / "0.png").save(folder / kind / "0.jpg", exif=exif)
        (folder / kind / "0.png").unlink()
    found = open_dataset(DataSpec(folder=folder))
    rows = np.arange(len(found))
    groups, sites = np.array([f"g{r % 7}" for r in rows]), np.array([f"site {r % 2}" for r in rows])
    return replace(found, groups=groups, sites=sites, parts=np.where(rows % 4 == 0, "test", "train"))


def raise_on_difference(back: Dataset, dataset: Dataset) -> None:
    for name in ("ids", "labels", "groups", "sites", "parts"):
        np.testing.assert_array_equal(getattr(back, name), getattr(dataset, name))
    assert back.classes == dataset.classes
    for row in range(len(dataset)):
        np.testing.assert_array_equal(back.read(row), dataset.read(row))


@pytest.mark.parametrize(("shard_bytes", "shards"), [(1 << 30, 1), (1, 1)])
def test_it_is_read_back_as_it_was(pictures: Dataset, tmp_path: Path, shard_bytes: int, shards: int) -> None:
    packed = pack_dataset(pictures, tmp_path / "out", shard_bytes=shard_bytes)
    assert (packed.rows, packed.shards, packed.problems) == (40, shards, ())
    raise_on_difference(open_dataset(DataSpec(parquet=tmp_path / "out")), pictures)


def test_the_bytes_of_a_picture_file_are_kept(pictures: Dataset, tmp_path: Path) -> None:
    from pyarrow import parquet

    pack_dataset(pictures, tmp_path / "out")
    cells = parquet.read_table(tmp_path / "out")["image"].to_pylist()
    names = [str(i) for i in pictures.ids]
    assert [c["bytes"] for c in cells] == [(tmp_path / "pictures" / name).read_bytes() for name in names]


def test_arrays_become_pngs_in_several_shards_that_the_hub_reads(tmp_path: Path) -> None:
    dataset = open_dataset(DataSpec(digits=True))
    small = dataset.select_rows(np.arange(200))
    small = replace(small, classes=tuple(f"z{9 - int(c)}" for c in small.classes))  # names whose order is not that of numbers
    packed = pack_dataset(small, tmp_path / "out", shard_bytes=1)
    assert packed.shards == 4 and packed.rows == 200  # a shard holds at least one group of 64 rows
    raise_on_difference(open_dataset(DataSpec(parquet=tmp_path / "out")), small)
    datasets = pytest.importorskip("datasets")
    read = datasets.Dataset.from_parquet([str(p) for p in sorted((tmp_path / "out").iterdir())], cache_dir=str(tmp_path / "hf"))
    assert read.features["label"].names == list(small.classes)
    np.testing.assert_array_equal(np.array(read[7]["image"].convert("RGB")), small.read(7))


def test_rows_without_a_label_stay_without(tmp_path: Path) -> None:
    small = open_dataset(DataSpec(digits=True)).select_rows(np.arange(40))
    parts, labels = np.where(np.arange(40) < 30, "train", "test"), small.labels.copy()
    labels[30:] = -1
    unlabelled = replace(small, parts=parts, labels=labels)
    pack_dataset(unlabelled, tmp_path / "out")
    raise_on_difference(open_dataset(DataSpec(parquet=tmp_path / "out")), unlabelled)


def test_a_bad_picture_stops_it_and_leaves_nothing_or_is_left_out(pictures: Dataset, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "dark" / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"5\.png"):
        pack_dataset(pictures, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))
    packed = pack_dataset(pictures, tmp_path / "out", on_bad_input="skip")
    assert packed.rows == 39 and [p.where for p in packed.problems] == ["dark/5.png"]


def test_what_cannot_be_packed_is_refused(pictures: Dataset, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="exists already"):
        pack_dataset(pictures, tmp_path / "pictures")
    windows = replace(pictures, spans=np.zeros((40, 2)))
    with pytest.raises(DataError, match="windows of recordings"):
        pack_dataset(windows, tmp_path / "out")
    several = replace(pictures, labels=np.zeros((40, 2), np.int64))
    with pytest.raises(DataError, match="several labels"):
        pack_dataset(several, tmp_path / "out")
    assert not (tmp_path / "out").exists()
