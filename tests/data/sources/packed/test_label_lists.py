"""Rows with several labels in Parquet, in a folder of save_to_disk and in tars: one dataset, however each file writes it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import SourceMap, validate_as
from phoropter.data.sources.arrays import NamedLabels
from phoropter.data.sources.packed.label_lists import find_first_list, join_label_lists
from phoropter.data.spec import DataSpec, open_dataset

LABELS = ["edema", "mass", "nodule"]
ROWS: list[list[str]] = [["mass"], [], ["nodule", "edema"], ["mass", "edema", "mass"], ["nodule"], []]
TABLE = [[0, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]]


def make_png(row: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40 * row, np.uint8)).save(stream, "png")
    return stream.getvalue()


def write_parquet_of_words(folder: Path) -> dict[str, Any]:
    parquet.write_table(pa.table({"image": [make_png(i) for i in range(6)], "label": ROWS}), folder / "x.parquet")
    return {"parquet": folder / "x.parquet"}


def write_parquet_of_numbers(folder: Path) -> dict[str, Any]:
    """Two files whose labels have other numbers."""
    for name, names, rows in (("a", LABELS, range(3)), ("b", LABELS[::-1], range(3, 6))):
        label = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}
        table = pa.table({"image": [make_png(i) for i in rows], "label": [[names.index(n) for n in ROWS[i]] for i in rows]})
        metadata = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
        parquet.write_table(table.replace_schema_metadata(metadata), folder / f"{name}.parquet")
    return {"parquet": folder}


def write_saved_dataset(folder: Path) -> dict[str, Any]:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Sequence(datasets.ClassLabel(names=LABELS))},
    )
    pictures = [{"bytes": make_png(i), "path": None} for i in range(6)]
    datasets.Dataset.from_dict({"image": pictures, "label": ROWS}, features=features).save_to_disk(str(folder / "saved"))
    return {"saved_dataset": folder / "saved"}


def write_tar(folder: Path) -> dict[str, Any]:
    with tarfile.open(folder / "x.tar", "w") as tar:
        for row, labels in enumerate(ROWS):
            for ending, content in (("png", make_png(row)), ("json", json.dumps({"label": labels}).encode())):
                member = tarfile.TarInfo(f"{row}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return {"shards": folder / "x.tar"}


WRITERS = [write_parquet_of_words, write_parquet_of_numbers, write_saved_dataset, write_tar]


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same_labels(write: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    source = write(tmp_path)
    dataset = open_dataset(DataSpec(**source, multi_label=True))
    assert dataset.is_multi_label and sorted(dataset.classes) == LABELS
    order = [dataset.classes.index(name) for name in LABELS]
    assert dataset.labels[:, order].tolist() == TABLE
    assert [int(dataset.read(row)[0, 0, 0]) for row in range(6)] == [0, 40, 80, 120, 160, 200]
    with pytest.raises(DataError, match="is a list; where a picture has several of these labels, say multi_label: true"):
        open_dataset(DataSpec(**source))


def test_files_that_name_their_labels_keep_their_order_and_labels_that_no_row_has() -> None:
    parts = [NamedLabels("a", [[1], None, []], ["z", "a", "never"]), NamedLabels("b", [["b", "z"]], None)]
    labels, classes = join_label_lists(parts)
    assert classes == ("z", "a", "never", "b")
    assert labels.tolist() == [[0, 1, 0, 0], [-1] * 4, [0, 0, 0, 0], [1, 0, 0, 1]]


def test_two_labels_of_one_name_stay_two() -> None:
    labels, classes = join_label_lists([NamedLabels("a", [[0], [1, 2]], ["crane", "mass", "crane"])])
    assert classes == ("crane #0", "mass", "crane #2") and labels.tolist() == [[1, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["mass", ["mass"]], r"x: a label is 'mass' \(str\), and multi_label: true expects a list"),
        ([["mass", None]], "x: a label in a list is None; leave it out"),
        ([[0, -1]], "x: a label in a list is -1"),
        ([[0, 3]], "the label 3 came, but 'classes' names 2"),
    ],
)
def test_what_is_no_list_of_labels_is_named(values: list[Any], words: str) -> None:
    names = ["mass", "edema"] if isinstance(values[0][0], int) else None
    with pytest.raises(DataError, match=words):
        join_label_lists([NamedLabels("x", values, names)])


def test_the_first_list_is_found() -> None:
    assert find_first_list([1, None, [2], np.array([3])]) == 2 and find_first_list([None, np.array([3])]) == 1
    assert find_first_list(["a", None, np.float64(1)]) is None


def test_keys_for_labels_in_one_cell_are_refused() -> None:
    with pytest.raises(SpecError, match="say multi_label: true"):
        validate_as(DataSpec, {"parquet": "x", "multi_label": {"separator": ";"}}, SourceMap("a test"))
    with pytest.raises(SpecError, match="columns: unknown name 'labels'"):
        validate_as(DataSpec, {"shards": "x.tar", "columns": {"labels": "y"}}, SourceMap("a test"))


def test_rows_whose_labels_are_not_known_are_refused_or_kept_without(tmp_path: Path) -> None:
    table = pa.table({"image": [make_png(i) for i in range(6)], "label": [*ROWS[:5], None]})
    parquet.write_table(table, tmp_path / "x.parquet")
    spec = DataSpec(parquet=tmp_path / "x.parquet", multi_label=True)
    with pytest.raises(DataError, match=r"x\.parquet, row 5: the label is empty here .* \(1 of 6 rows have none\)"):
        open_dataset(spec)
    kept = open_dataset(spec.model_copy(update={"on_bad_input": "skip"}))
    assert kept.labelled.tolist() == [True] * 5 + [False]


@pytest.mark.parametrize(
    "rows", [[[1, 0, 1], [0, 0, 0], [1, 1, 1]], [[True, True], [False, True], [False, False]], [[0.0, 0.0], [1.0, 0.0]]]
)
def test_lists_of_0_and_1_for_each_label_are_not_taken_for_numbers_of_labels(rows: list[list[Any]]) -> None:
    with pytest.raises(DataError, match=r"they tell which of [23] labels a row has, and expected are the names or numbers"):
        join_label_lists([NamedLabels("x", [None, *rows], None)])


def test_numbers_0_and_1_of_labels_stay_numbers() -> None:
    labels, names = join_label_lists([NamedLabels("x", [[0, 1], [1, 1], [0], None], None)])
    assert names == ("0", "1") and labels[:3].tolist() == [[1, 1], [0, 1], [1, 0]]
