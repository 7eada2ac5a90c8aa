from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from phoropter.core.errors import DataError
from phoropter.data.sources.folder import open_folder
from phoropter.data.sources.parquet import open_parquet


def cells(zoo: Path, names: list[str]) -> list[dict[str, Any]]:
    return [{"bytes": (zoo / name).read_bytes(), "path": name} for name in names]


NAMES = ["cat/a.png", "dog/a.png", "cat/b.png", "dog/b.png"]


def saved(zoo: Path, path: Path, **columns: Any) -> Path:
    table = pa.table({"image": cells(zoo, NAMES), "label": [0, 1, 0, 1], **columns})
    info = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), path, row_group_size=2)
    return path


def test_pictures_labels_and_class_names_in_the_layout_of_the_hub(zoo: Path, tmp_path: Path) -> None:
    dataset = open_parquet(saved(zoo, tmp_path / "animals.parquet"))
    assert dataset.classes == ("cat", "dog") and dataset.labels.tolist() == [0, 1, 0, 1]
    assert dataset.ids.tolist() == [f"animals/{row}" for row in range(4)] and dataset.parts is None
    files = open_folder(zoo)
    for row, name in enumerate(NAMES):
        np.testing.assert_array_equal(dataset.read(row), files.read(files.ids.tolist().index(name)))
    np.testing.assert_array_equal(dataset.select_rows(np.array([3, 0])).read(0), dataset.read(3))


def test_file_names_of_shards_give_the_official_part(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        saved(zoo, tmp_path / "data" / f"{name}.parquet")
    dataset = open_parquet(tmp_path)
    assert dataset.parts is not None and dataset.parts.tolist() == ["test"] * 4 + ["train"] * 8
    assert dataset.ids[5] == "train-00000-of-00002/1"


def test_a_binary_column_and_text_labels(zoo: Path, tmp_path: Path) -> None:
    content = [(zoo / name).read_bytes() for name in NAMES]
    parquet.write_table(pa.table({"png": content, "kind": list("abab"), "group": list("gghh")}), tmp_path / "x.parquet")
    dataset = open_parquet(tmp_path / "x.parquet", columns={"image": "png", "label": "kind"})
    assert dataset.classes == ("a", "b") and dataset.groups is not None and dataset.read(3).shape == (20, 30, 3)


def test_paths_without_bytes_are_read_beside_the_file(zoo: Path) -> None:
    rows = [{"bytes": None, "path": name} for name in NAMES]
    parquet.write_table(pa.table({"image": rows, "label": [0, 1, 0, 1]}), zoo / "x.parquet")
    np.testing.assert_array_equal(open_parquet(zoo / "x.parquet").read(1), open_folder(zoo).read(3))


def test_the_identity_depends_on_contents_and_pickling_keeps_it(zoo: Path, tmp_path: Path) -> None:
    dataset = open_parquet(saved(zoo, tmp_path / "x.parquet"))
    again = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert again.content_digest == dataset.content_digest
    one, two, *_ = dataset.digests()
    assert one != two and dataset.select_rows(np.array([1])).digests() == [two]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": ["a", "b", "c", "d"]}, "the column 'image' is string, expected encoded pictures"),
        ({"label": [0, 1, 2, 1]}, "the label 2 came, but 'classes' names 2: expected 0..1"),
        ({"label": [0.5, 1.0, 2.0, 1.0]}, r"a label is 0.5 \(float\), expected whole numbers or words"),
    ],
)
def test_errors_are_named(zoo: Path, tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_parquet(saved(zoo, tmp_path / "x.parquet", **columns))


def test_missing_columns_rows_and_files_are_named(zoo: Path, tmp_path: Path) -> None:
    path = saved(zoo, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"has no column 'labels'; did you mean 'label'\?"):
        open_parquet(path, columns={"label": "labels"})
    with pytest.raises(DataError, match="no Parquet file there"):
        open_parquet(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"bad\.parquet is damaged or no Parquet file"):
        open_parquet(tmp_path / "bad.parquet")
    empty = [*cells(zoo, NAMES[:3]), {"bytes": None, "path": None}]
    with pytest.raises(DataError, match=r"y\.parquet, row 3: the picture is missing"):
        open_parquet(saved(zoo, tmp_path / "y.parquet", image=empty)).read(3)
