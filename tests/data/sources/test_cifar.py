from __future__ import annotations

import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.sources.cifar import CIFAR10, CIFAR100, CifarLayout, open_cifar

Draw = Callable[..., Path]

WORDS = [f"class{i}" for i in range(10)]


def batch(kind: CifarLayout, seed: int, count: int = 4) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    data = random.integers(0, 256, (count, 3072), dtype=np.uint8)
    return {
        "batch_label": f"batch {seed}",
        kind.labels_key: random.integers(0, 10, count).tolist(),
        "data": data,
        "filenames": ["x.png"] * count,
    }


def written(folder: Path, kind: CifarLayout) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(kind.batch_files):
        (folder / name).write_bytes(pickle.dumps(batch(kind, seed), protocol=2))
    (folder / kind.meta_file).write_bytes(pickle.dumps({kind.class_names_key: WORDS, "num_vis": 3072}, protocol=2))
    return folder


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100], ids=lambda kind: kind.title)
def test_labels_parts_and_pixels(tmp_path: Path, kind: CifarLayout) -> None:
    written(tmp_path / kind.folder, kind)
    dataset = open_cifar(tmp_path, kind)
    assert dataset.parts is not None
    expected = [label for seed in range(len(kind.batch_files)) for label in batch(kind, seed)[kind.labels_key]]
    assert dataset.labels.tolist() == expected and dataset.classes == tuple(WORDS)
    assert dataset.parts.tolist() == ["train"] * (len(expected) - 4) + ["test"] * 4
    assert dataset.ids[[0, -1]].tolist() == ["train/00000", "test/00003"]
    raw = batch(kind, len(kind.batch_files) - 1)["data"][2]
    picture = dataset.read(len(dataset) - 2)
    for channel, row, column in ((0, 0, 0), (1, 5, 31), (2, 31, 7)):
        assert picture[row, column, channel] == raw[channel * 1024 + row * 32 + column]


def test_the_archive_is_read_without_unpacking_and_is_the_same_set(tmp_path: Path) -> None:
    folder = written(tmp_path / "unpacked" / CIFAR10.folder, CIFAR10)
    archive = tmp_path / "packed" / CIFAR10.archive
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, CIFAR10.folder)
    one, other = open_cifar(archive.parent, CIFAR10), open_cifar(folder, CIFAR10)
    assert one.fingerprint == other.fingerprint == open_cifar(archive, CIFAR10).fingerprint
    assert sorted(p.name for p in archive.parent.iterdir()) == [CIFAR10.archive]


def test_another_process_reads_the_pixels_again(tmp_path: Path) -> None:
    dataset = open_cifar(written(tmp_path, CIFAR10), CIFAR10)
    sent = pickle.dumps(dataset)
    assert len(sent) < 10_000
    np.testing.assert_array_equal(pickle.loads(sent).read(9), dataset.read(9))  # noqa: S301


class Malice:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("place", ["data_batch_3", "batches.meta"])
def test_a_malicious_pickle_is_refused_and_nothing_is_run(tmp_path: Path, place: str) -> None:
    folder = written(tmp_path / "cifar", CIFAR10)
    (folder / place).write_bytes(pickle.dumps({"data": Malice(tmp_path / "was-here"), "labels": []}, protocol=2))
    with pytest.raises(DataError, match=f"cifar/{place}: refused, because it is not the plain pickle"):
        open_cifar(folder, CIFAR10)
    assert not (tmp_path / "was-here").exists()


def test_a_malicious_pickle_in_the_archive_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / CIFAR10.folder, CIFAR10)
    (folder / "test_batch").write_bytes(b"cos\nsystem\n(S'touch " + bytes(tmp_path / "was-here") + b"'\ntR.")
    with tarfile.open(tmp_path / CIFAR10.archive, "w:gz") as file:
        file.add(folder, CIFAR10.folder)
    with pytest.raises(DataError, match="refused"):
        open_cifar(tmp_path / CIFAR10.archive, CIFAR10)
    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"data": np.zeros((2, 3072), dtype=np.uint8), "labels": [1]},
            "'labels' should be one whole number for each of 2 pictures",
        ),
        ({"data": np.zeros((2, 3071), dtype=np.uint8), "labels": [1, 2]}, "'data' should be rows of 3072 bytes"),
        ({"data": np.zeros((2, 3072), dtype=np.float32), "labels": [1, 2]}, "'data' should be rows of 3072 bytes"),
        (["data"], "'data' should be rows of 3072 bytes"),
        ({"data": np.zeros((2, 3072), dtype=np.uint8), "labels": [1, 10]}, r"labels run 0\.\.10, expected 0\.\.9"),
    ],
)
def test_a_file_that_is_no_batch_is_named(tmp_path: Path, content: Any, words: str) -> None:
    folder = written(tmp_path, CIFAR10)
    (folder / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=words):
        open_cifar(folder, CIFAR10)


def test_a_truncated_batch_and_archive_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path / CIFAR10.folder, CIFAR10)
    with tarfile.open(tmp_path / CIFAR10.archive, "w:gz") as file:
        file.add(folder, CIFAR10.folder)
    whole = (tmp_path / CIFAR10.archive).read_bytes()
    (tmp_path / CIFAR10.archive).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is damaged or no tar archive"):
        open_cifar(tmp_path / CIFAR10.archive, CIFAR10)
    (folder / "data_batch_1").write_bytes((folder / "data_batch_1").read_bytes()[:500])
    with pytest.raises(DataError, match="data_batch_1"):
        open_cifar(folder, CIFAR10)
    (folder / "data_batch_1").unlink()
    with pytest.raises(DataError, match=r"get cifar-10-python\.tar\.gz from https://"):
        open_cifar(folder, CIFAR10)


def test_picture_files_are_read_and_noted(tmp_path: Path, draw: Draw) -> None:
    for i, name in enumerate(("train/cat/0.png", "train/dog/0.png", "test/cat/0.png")):
        draw(tmp_path / name, i, (32, 32))
    dataset = open_cifar(tmp_path, CIFAR10)
    assert dataset.name == "cifar10" and "as picture files" in dataset.notes[-1]
