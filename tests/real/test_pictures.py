"""Real pictures, as the README beside them counts them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from phoropter.data.images.cache import prepare_pixels
from phoropter.data.inspect import detect_data_spec, summarize_dataset
from phoropter.data.sources.imagenet import synset_ids
from phoropter.data.spec import cifar10, folder, imagenet, open_dataset
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import HoldOut, KFold, Predefined

pytestmark = pytest.mark.real
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def unpacked(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("real")
    for name in ("cifar10.tar.gz", "caltech101.tar", "intel.tar", "imagenet-sample-images.tar"):
        with tarfile.open(real_data / name) as archive:
            archive.extractall(target, filter="data")
    return target


def test_cifar10_mini(real_data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(folder(real_data / "cifar10-mini"))
    assert dataset.parts is not None and dataset.classes == CIFAR10
    assert dataset.class_counts.tolist() == [140] * 10
    assert np.bincount(dataset.labels[dataset.parts == "train"]).tolist() == [100] * 10
    kept, pixels = prepare_pixels(dataset, 32, cache=tmp_path)
    assert kept is dataset and pixels.shape == (1400, 3, 32, 32)
    row = 777
    np.testing.assert_array_equal(pixels.array[row], dataset.read(row).transpose(2, 0, 1))


def test_cifar10_whole(unpacked: Path) -> None:
    dataset = open_dataset(cifar10(unpacked / "cifar10"))
    assert dataset.parts is not None and dataset.classes == CIFAR10 and dataset.problems == ()
    assert np.bincount(dataset.labels[dataset.parts == "train"]).tolist() == [5000] * 10
    assert np.bincount(dataset.labels[dataset.parts == "test"]).tolist() == [1000] * 10
    (split,) = make_splits(dataset, Predefined())
    assert (len(split.train), len(split.test)) == (50_000, 10_000)


def test_caltech101(unpacked: Path, tmp_path: Path) -> None:
    dataset = open_dataset(folder(unpacked / "101_ObjectCategories", exclude=["BACKGROUND_Google"]))
    assert len(dataset.classes) == 101 and dataset.class_counts.tolist() == [12] * 101
    kept, pixels = prepare_pixels(dataset, 64, cache=tmp_path)
    assert kept.problems == () and pixels.shape == (1212, 3, 64, 64)
    grey = [row for row in range(400) if (np.ptp(dataset.read(row).astype(int), axis=2) == 0).all()]
    assert grey and all((pixels.array[row][0] == pixels.array[row][2]).all() for row in grey[:20])
    (split,) = make_splits(dataset, HoldOut(train_per_class=5))
    assert (len(split.train), len(split.test)) == (505, 707)
    assert all(np.bincount(dataset.labels[s.test]).min() >= 2 for s in make_splits(dataset, KFold(5)))


def test_intel_scenes(unpacked: Path) -> None:
    dataset = open_dataset(folder(unpacked / "intel"))
    assert dataset.parts is not None and dataset.classes == ("buildings", "forest", "glacier", "mountain", "sea", "street")
    assert np.bincount(dataset.labels[dataset.parts == "train"]).tolist() == [280] * 6
    assert np.bincount(dataset.labels[dataset.parts == "test"]).tolist() == [70] * 6
    assert "seg_train/seg_train = train (1680 pictures)" in dataset.notes[0]
    found = summarize_dataset(dataset)
    assert found.sizes == {(100, 100): 500} and found.duplicates == () and found.unreadable == 0


def test_imagenet_sample(unpacked: Path, tmp_path: Path) -> None:
    dataset = open_dataset(imagenet(unpacked / "imagenet-sample-images"))
    assert sorted(dataset.labels) == list(range(1000))
    assert [str(name)[:9] for name in dataset.ids] == [synset_ids()[label] for label in dataset.labels]
    assert dataset.classes[207] == "n02099601 golden retriever"
    assert detect_data_spec(unpacked / "imagenet-sample-images").source == "imagenet"
    few = dataset.sample(40)
    assert len(few) == 40 and len(few.classes) == 1000
    kept, pixels = prepare_pixels(few, 224, cache=tmp_path)
    assert kept.problems == () and pixels.shape == (40, 3, 224, 224)
