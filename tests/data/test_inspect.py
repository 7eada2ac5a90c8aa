from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.core.language.unit_words import parse_unit_word
from phoropter.data.inspect import detect_data_spec, summarize_dataset
from phoropter.data.sources.folder import open_folder
from phoropter.data.spec import folder, open_dataset

Draw = Callable[..., Path]


def test_the_summary_counts_rows_classes_sizes_and_duplicates(zoo: Path, draw: Draw) -> None:
    draw(zoo / "dog" / "large.png", 9, (60, 40))
    shutil.copy(zoo / "cat" / "a.png", zoo / "dog" / "copy.png")
    (zoo / "cat" / "broken.png").write_bytes(b"hello")
    (zoo / "bird").mkdir()
    found = summarize_dataset(open_dataset(folder(zoo, group_from="/([a-z])")))
    assert (found.rows, found.unlabelled, found.classes) == (8, 0, {"cat": 4, "dog": 4})
    assert found.sizes == {(30, 20): 6, (40, 60): 1} and (found.sampled, found.unreadable) == (7, 1)
    assert found.byte_count == sum(path.stat().st_size for path in zoo.rglob("*.png"))
    assert found.duplicates == (("cat/a.png", "dog/copy.png"),)
    assert found.groups == (4, 1, 2.0, 3)
    assert [str(p).split(":")[0] for p in found.problems] == ["bird", "cat/broken.png"]


def test_the_summary_is_printed(zoo: Path) -> None:
    text = str(summarize_dataset(open_folder(zoo)))
    assert text.splitlines()[0].startswith("zoo: 5 pictures in 2 classes, ")
    assert "  cat  3" in text and "from 30×20 to 30×20" in text and "duplicates" not in text


def test_groups_and_sites_have_their_own_names(zoo: Path) -> None:
    dataset = replace(open_folder(zoo), groups=np.array(list("xxyyz")), sites=np.array(list("aabbb")))
    text = str(summarize_dataset(dataset, words=(parse_unit_word("people"), parse_unit_word("clinic"))))
    assert "people: 3, of 1 to 2 pictures" in text and "clinic" in text and "group" not in text
    assert "groups: 3, of 1 to 2" in str(summarize_dataset(dataset))


def test_arrays_and_official_parts() -> None:
    from phoropter.data.sources.arrays import from_arrays

    images = np.arange(6 * 48, dtype=np.uint32).astype(np.uint8).reshape(6, 4, 4, 3)
    found = summarize_dataset(from_arrays(images, list("ababab"), parts=["train"] * 4 + ["test"] * 2, sites=list("xxyyzz")))
    assert found.parts == {"test": 2, "train": 4} and found.sites == {"x": 2, "y": 2, "z": 2}
    assert found.byte_count is None and found.sizes == {(4, 4): 6} and "part:" in str(found)


def test_only_some_headers_are_read(zoo: Path) -> None:
    assert summarize_dataset(open_folder(zoo), sampled=2).sampled == 2


@pytest.mark.parametrize(
    ("files", "source"),
    [
        (["cat/a.png"], "folder"),
        (["train/n01440764/a.JPEG", "val/n01440764/b.JPEG"], "folder"),
        (["n01440764_tench.JPEG", "n01443537_goldfish.JPEG"], "imagenet"),
        (["LOC_val_solution.csv", "ILSVRC2012_val_00000001.JPEG"], "imagenet"),
        (["data_batch_1", "batches.meta"], "cifar10"),
        (["cifar-100-python/train", "cifar-100-python/meta"], "cifar100"),
        (["cifar-10-python.tar.gz"], "cifar10"),
        (["train-00000.parquet"], "parquet"),
    ],
)
def test_the_source_of_a_folder_is_detected(tmp_path: Path, files: list[str], source: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    spec = detect_data_spec(tmp_path)
    assert spec.source == source and getattr(spec, source) == tmp_path and spec.on_bad_input == "skip"


def test_the_source_of_a_file_is_detected(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"path": ["a"], "label": ["b"]}), tmp_path / "rows.parquet")
    parquet.write_table(pa.table({"image": [b"a"], "label": ["b"]}), tmp_path / "pictures.parquet")
    for name in ("rows.csv", "x.npz", "cifar-100-python.tar.gz", "holiday.zip", "thesis.pdf"):
        (tmp_path / name).touch()
    sources = {
        name: detect_data_spec(tmp_path / name).source for name in ("rows.csv", "rows.parquet", "pictures.parquet", "x.npz")
    }
    assert sources == {"rows.csv": "manifest", "rows.parquet": "manifest", "pictures.parquet": "parquet", "x.npz": "npz"}
    assert detect_data_spec(tmp_path / "cifar-100-python.tar.gz").source == "cifar100" and detect_data_spec(Path("digits")).digits
    for name, words in (
        ("holiday.zip", "is an archive; unpack it"),
        ("thesis.pdf", "expected a folder"),
        ("none", "there is nothing at"),
    ):
        with pytest.raises(DataError, match=words):
            detect_data_spec(tmp_path / name)


def test_a_manifest_of_recordings_is_told_from_one_of_pictures_whatever_its_format(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"Path": ["a.csv"], "Rate_Hz": [50], "Label": ["x"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv", index=False, sep=";")
    frame.to_parquet(tmp_path / "c.parquet")
    (tmp_path / "d.csv").write_text("sep=;\npath;label\nx/r1.HEA;x\n")
    frame.drop(columns="Rate_Hz").to_csv(tmp_path / "e.csv", index=False, sep="\t")
    sources = {name: detect_data_spec(tmp_path / name).source for name in ("a.csv", "b.csv", "c.parquet", "d.csv", "e.csv")}
    assert sources == {**dict.fromkeys(("a.csv", "b.csv", "c.parquet", "d.csv"), "recordings"), "e.csv": "manifest"}


def test_a_damaged_picture_with_a_sound_header_is_listed(zoo: Path) -> None:
    file = zoo / "cat" / "b.png"
    file.write_bytes(file.read_bytes()[:-200])
    (problem,) = summarize_dataset(open_folder(zoo)).problems
    assert problem.where == "cat/b.png" and problem.what.startswith("the picture is damaged or cut off")
