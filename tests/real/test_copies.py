"""Near-identical pictures in real data sets, as they were looked at by eye: docs/leakage.md shows what was counted."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from phoropter.data.images.cache import prepare_pixels
from phoropter.data.leakage.audit import audit_splits, find_duplicates_in_pixels
from phoropter.data.spec import cifar10, folder, open_dataset
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import HoldOut, Predefined

pytestmark = [pytest.mark.real, pytest.mark.slow]


def unpacked(archive: Path, target: Path) -> Path:
    with tarfile.open(archive) as file:
        file.extractall(target, filter="data")
    return target


def test_intel_scenes_hold_two_pairs(real_data: Path, tmp_path: Path) -> None:
    """A lighthouse in colour and in grey, and one view of a plain saved twice; 2.2 million other pairs are not accused."""
    dataset, pixels = prepare_pixels(
        open_dataset(folder(unpacked(real_data / "intel.tar", tmp_path) / "intel")), 112, cache=tmp_path / "cache"
    )
    assert len(find_duplicates_in_pixels(pixels).pairs) == 2
    (split,) = make_splits(dataset, Predefined())
    assert all(f.kind == "near_duplicates" and f.count <= 2 for f in audit_splits(dataset, [split], pixels))


def test_caltech_holds_a_few_and_none_between_classes(real_data: Path, tmp_path: Path) -> None:
    opened = open_dataset(folder(unpacked(real_data / "caltech101.tar", tmp_path) / "101_ObjectCategories"))
    dataset, pixels = prepare_pixels(opened, 112, cache=tmp_path / "cache")
    found = find_duplicates_in_pixels(pixels)
    assert 4 <= len(found.pairs) <= 8
    assert (dataset.labels[found.pairs[:, 0]] == dataset.labels[found.pairs[:, 1]]).all()
    assert audit_splits(dataset, make_splits(dataset, HoldOut()), found) is not None


def test_cifar10_tests_pictures_that_it_trains(real_data: Path, tmp_path: Path) -> None:
    """Known since Barz & Denzler 2020, who count about 3.3 % of the tested pictures, by a more lenient eye."""
    place = unpacked(real_data / "cifar10.tar.gz", tmp_path) / "cifar10"
    opened = open_dataset(cifar10(place, max_samples=20_000))  # a third of the set, so a ninth of its pairs
    dataset, pixels = prepare_pixels(opened, 32, cache=tmp_path / "cache")
    likeness = find_duplicates_in_pixels(pixels)
    found = {f.kind: f for f in audit_splits(dataset, make_splits(dataset, Predefined()), likeness)}
    near = found["near_duplicates"]
    assert 9 <= near.count <= 37 and 3_200 <= near.of <= 3_500  # of the whole set: 168 of 10,000
    first, second = likeness.pairs.T
    assert np.mean(dataset.labels[first] == dataset.labels[second]) > 0.97
