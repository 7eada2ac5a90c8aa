from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset
from phoropter.data.inspect import detect_data_spec
from phoropter.data.sources.folder import open_folder
from phoropter.data.sources.packed import cells as packed_cells
from phoropter.data.sources.packed.cells import Cell, PackedPictures
from phoropter.data.sources.packed.parquet import open_parquet


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
    with pytest.raises(DataError, match=r"has no column 'labels' \(columns\.label\); did you mean 'label'\?"):
        open_parquet(path, columns={"label": "labels"})
    with pytest.raises(DataError, match="no Parquet file there"):
        open_parquet(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"bad\.parquet is damaged or no Parquet file"):
        open_parquet(tmp_path / "bad.parquet")
    empty = [*cells(zoo, NAMES[:3]), {"bytes": None, "path": None}]
    with pytest.raises(DataError, match=r"y\.parquet, row 3: the picture is missing"):
        open_parquet(saved(zoo, tmp_path / "y.parquet", image=empty)).read(3)


def shard(zoo: Path, path: Path, labels: list[Any], names: list[str] | None = None, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": cells(zoo, NAMES), "label": labels, **columns})
    if names:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    parquet.write_table(table, path)
    return path


def words_of(dataset: Dataset) -> list[str]:
    return [dataset.classes[label] if label >= 0 else "" for label in dataset.labels]


def test_labels_of_shards_are_joined_by_the_names_of_their_classes(zoo: Path, tmp_path: Path) -> None:
    shard(zoo, tmp_path / "test-0.parquet", [0, 1, 0, 1], ["dog", "cat"])
    shard(zoo, tmp_path / "train-0.parquet", [0, 1, 2, None], ["cat", "dog", "cow"])
    with pytest.raises(DataError, match=r"train-0\.parquet, row 3: the label is empty .* \(1 of 4 rows have none\).*skip"):
        open_parquet(tmp_path)
    dataset = open_parquet(tmp_path, on_bad_input="skip")
    assert words_of(dataset) == ["dog", "cat", "dog", "cat", "cat", "dog", "cow", ""] and len(dataset.classes) == 3
    assert dataset.notes[0] == "the files number their 3 classes differently; labels were joined by the names of the classes"
    shard(zoo, tmp_path / "val-0.parquet", [0, 1, 0, 1])
    with pytest.raises(DataError, match=r"val-0\.parquet does not say what its labels are called"):
        open_parquet(tmp_path)


def test_a_group_in_some_rows_or_files_only_is_refused_with_counts(zoo: Path, tmp_path: Path) -> None:
    shard(zoo, tmp_path / "a.parquet", [0, 1, 0, 1], group=["p", "p", "q", None])
    with pytest.raises(
        DataError, match=r"a\.parquet, row 3: the group is empty here and given elsewhere \(1 of 4 rows have none\)"
    ):
        open_parquet(tmp_path)
    shard(zoo, tmp_path / "a.parquet", [0, 1, 0, 1], group=list("ppqq"))
    shard(zoo, tmp_path / "b.parquet", [0, 1, 0, 1])
    with pytest.raises(DataError, match=r"b\.parquet, row 0: the group is empty .* \(4 of 8 rows have none\)"):
        open_parquet(tmp_path)


def test_groups_and_labels_written_as_numbers_are_one_name_in_all_files(zoo: Path, tmp_path: Path) -> None:
    shard(zoo, tmp_path / "a.parquet", [0, 1, 0, 1], group=[1, 1, 2, 2])
    shard(zoo, tmp_path / "b.parquet", [0.0, 1.0, None, 1.0], group=[1.0, 2.0, 3.0, 3.0])
    shard(zoo, tmp_path / "c.parquet", ["0", "1 ", "1.0", ""], group=["1", "2.0", "3", "3"])
    dataset = open_parquet(tmp_path, on_bad_input="skip")
    assert dataset.groups is not None and dataset.groups.tolist() == list("112212331233")
    assert dataset.classes == ("0", "1") and words_of(dataset) == ["0", "1", "0", "1", "0", "1", "", "1", "0", "1", "1", ""]
    assert dataset.notes == ("2 of 12 rows have no label",)


def test_labels_are_stripped_and_names_that_differ_in_case_are_noted(zoo: Path, tmp_path: Path) -> None:
    dataset = open_parquet(shard(zoo, tmp_path / "a.parquet", ["cat", "cat ", "Cat", "dog\u200b"]))
    assert dataset.classes == ("Cat", "cat", "dog")
    assert dataset.notes == ("class names that differ in case only: Cat or cat",)


def test_a_part_without_any_label_and_negative_labels_are_kept(zoo: Path, tmp_path: Path) -> None:
    shard(zoo, tmp_path / "train-0.parquet", [0, 1, 0, -1], ["cat", "dog"])
    shard(zoo, tmp_path / "test-0.parquet", pa.nulls(4, pa.int64()), ["cat", "dog"])
    assert words_of(open_parquet(tmp_path)) == ["", "", "", "", "cat", "dog", "cat", ""]


def test_a_column_says_the_part_of_each_row(zoo: Path, tmp_path: Path) -> None:
    path = shard(zoo, tmp_path / "a.parquet", [0, 1, 0, 1], split=["training", "train", "validation", "test"])
    parts = open_parquet(path).parts
    assert parts is not None and parts.tolist() == ["train", "train", "val", "test"]
    with pytest.raises(DataError, match="parts holds 'third'; expected train, val or test"):
        open_parquet(shard(zoo, tmp_path / "b.parquet", [0, 1, 0, 1], split=["train", "third", "test", "test"]))


@pytest.mark.parametrize("path", ["/etc/hostname.png", "../cat/a.png", "a/../../b.png", "..\\b.png"])
def test_a_path_out_of_the_folder_of_its_file_is_not_opened(zoo: Path, path: str) -> None:
    rows = [{"bytes": None, "path": path}] * 4
    (zoo / "shards").mkdir()
    parquet.write_table(pa.table({"image": rows, "label": [0, 1, 0, 1]}), zoo / "shards" / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet, row 1: the picture's path leads out of the folder of its file"):
        open_parquet(zoo / "shards" / "x.parquet").read(1)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train-00000-of-00004", "train"),
        ("beans-train", "train"),
        ("beans_test_0", "test"),
        ("validation", "val"),
        ("default/train/0000", "train"),
        ("test/part-0", "test"),
        ("train_test_split-test-00000-of-00001", "test"),
        ("data/contest", ""),
    ],
)
def test_the_official_part_is_a_word_of_the_file_or_its_folders(zoo: Path, tmp_path: Path, name: str, part: str) -> None:
    shard(zoo, tmp_path / f"{name}.parquet", [0, 1, 0, 1])
    dataset = open_parquet(tmp_path)
    assert (dataset.parts is None and not part) or (dataset.parts is not None and set(dataset.parts.tolist()) == {part})


def test_files_of_one_name_in_several_folders_have_unique_ids(zoo: Path, tmp_path: Path) -> None:
    for place in ("default/test", "default/train", ".cache/train"):
        shard(zoo, tmp_path / place / "0000.parquet", [0, 1, 0, 1])
    dataset = open_parquet(tmp_path)
    assert dataset.ids.tolist() == [f"default/{part}/0000/{row}" for part in ("test", "train") for row in range(4)]
    shard(zoo, tmp_path / "small/train/0000.parquet", [0, 1, 0, 1])
    assert open_parquet(tmp_path).notes == (
        "default or small hold files of the same official part and were joined; name one of them if they are variants",
    )


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["00000-of-00003", "00002-of-00003"], r"1 of the 3 files data/train-\*-of-00003 are not there \(the first: 00001\)"),
        (["00001-of-00003", "00003-of-00003"], r"1 of the 3 files .* are not there \(the first: 00002\)"),
        (["00001-of-00003"], r"2 of the 3 files .* are not there \(the first: 00000 or 00002\)"),
        (["00000-of-99999"], r"99,998 of the 99,999 files .* are not there \(the first: 00001\)"),
        (
            ["00000-of-00001", "00000-of-00001-1a2b3c"],
            r"train-00000-of-00001-1a2b3c\.parquet .* in data are the same one of 1 files",
        ),
        (["00000-of-00001", "00000-of-00001 (1)"], "are the same one of 1 files, and all were read"),
    ],
)
def test_a_set_of_files_with_a_gap_or_a_twin_is_noted(zoo: Path, tmp_path: Path, names: list[str], words: str) -> None:
    for name in names:
        shard(zoo, tmp_path / "data" / f"train-{name}.parquet", [0, 1, 0, 1])
    (note,) = open_parquet(tmp_path).notes
    assert note.startswith("WARNING: ") and re.search(words, note)
    assert open_parquet(tmp_path / "data" / f"train-{names[0]}.parquet").notes == ()


@pytest.mark.parametrize("names", [["00000-of-00002-ab", "00001-of-00002-cd"], ["00001-of-00002", "00002-of-00002"], ["of-9"]])
def test_a_complete_set_of_files_is_told_by_its_numbers(zoo: Path, tmp_path: Path, names: list[str]) -> None:
    for folder in ("a", "b"):
        for name in names:
            shard(zoo, tmp_path / folder / f"train-{name}.parquet", [0, 1, 0, 1])
    assert not [note for note in open_parquet(tmp_path).notes if note.startswith("WARNING")]


def test_checksums_of_pages_are_compared(zoo: Path, tmp_path: Path) -> None:
    table = pa.table({"image": cells(zoo, NAMES), "label": [0, 1, 0, 1]})
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}  # the picture's bytes, once
    parquet.write_table(table, tmp_path / "a.parquet", write_page_checksum=True, **plain)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[content.index((zoo / NAMES[1]).read_bytes()) + 60] ^= 1
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet is damaged"):
        open_parquet(tmp_path / "a.parquet").read(0)


def test_columns_are_found_whatever_their_case_and_two_of_one_name_are_refused(zoo: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"Image": cells(zoo, NAMES), "Label ": list("abab")}), path)
    assert open_parquet(path).classes == ("a", "b") and open_parquet(path).read(3).shape == (20, 30, 3)
    parquet.write_table(pa.table({"image": cells(zoo, NAMES), "label": list("abab"), "Label": list("cdcd")}), path)
    with pytest.raises(DataError, match=r"x\.parquet has 2 columns called 'label' and 'Label'"):
        open_parquet(path)
    assert open_parquet(path, columns={"label": "Label"}).classes == ("c", "d")


def test_a_snapshot_of_the_hub_is_recognised(zoo: Path, tmp_path: Path) -> None:
    shard(zoo, tmp_path / "snapshot" / "data" / "train-00000-of-00001.parquet", [0, 1, 0, 1])
    (tmp_path / "snapshot" / "README.md").touch()
    assert detect_data_spec(tmp_path / "snapshot").source == "parquet"
    assert detect_data_spec(zoo).source == "folder"


def test_an_unread_column_called_as_groups_are_is_noted_unless_there_are_groups(zoo: Path, tmp_path: Path) -> None:
    path = saved(zoo, tmp_path / "x.parquet", patient_id=[1, 1, 2, 2])
    assert any("'patient_id' was not read" in note for note in open_parquet(path).notes)
    assert not any("not read" in note for note in open_parquet(path, columns={"group": "patient_id"}).notes)


def test_dicom_in_a_table_is_refused(tmp_path: Path, write_dicom: Callable[..., Path]) -> None:
    file = write_dicom(tmp_path / "x.dcm", np.zeros((8, 8), np.uint8), PatientID="MILLER-7")
    for cell in ({"bytes": file.read_bytes(), "path": "MILLER-7.png"}, {"bytes": None, "path": "x.dcm"}):
        parquet.write_table(pa.table({"image": [cell, cell], "label": ["a", "b"]}), tmp_path / "t.parquet")
        with pytest.raises(DataError, match=r"t\.parquet: it holds DICOM files.*unpack them into a folder") as caught:
            open_parquet(tmp_path / "t.parquet").read(0)
        assert "MILLER" not in str(caught.value)


class CountedCells:
    """A file of 100 rows in blocks of 10, each cell of one byte; it notes which blocks are read."""

    file, column = Path("x"), "image"

    def __init__(self, size: int = 1) -> None:
        self.size, self.read = size, list[int]()

    def name_row(self, row: int) -> str:
        return f"row {row}"

    def iterate_cells(self) -> Iterator[Cell]:
        yield from (self.make_cell(row) for row in range(100))

    def make_cell(self, row: int) -> bytes:
        return bytes([row]) * self.size

    def read_block(self, row: int) -> tuple[int, int, list[Cell]]:
        first = row // 10 * 10
        self.read.append(first)
        return first, first + 10, [self.make_cell(at) for at in range(first, first + 10)]


def read_in_turns(cells: CountedCells, parts: int) -> None:
    """As threads do that read in as many parts of the rows at once."""
    pictures = PackedPictures([cells], np.stack([np.zeros(100, np.int64), np.arange(100)], axis=1))
    share = 100 // parts
    for row in (part * share + step for step in range(share) for part in range(parts)):
        assert pictures._read_cell(0, row) == cells.make_cell(row)


def test_parts_that_are_read_in_turns_read_each_block_once() -> None:
    cells = CountedCells()
    read_in_turns(cells, 5)
    assert sorted(cells.read) == list(range(0, 100, 10))


def test_no_more_bytes_are_kept_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_cells, "KEPT_BYTES", 50)
    cells = CountedCells(size=4)  # a block of 40 bytes, so that only one may stay
    read_in_turns(cells, 2)
    assert len(cells.read) == 100
    monkeypatch.setattr(packed_cells, "KEPT_BYTES", 100)
    read_in_turns(cells := CountedCells(size=4), 2)
    assert len(cells.read) == 10


def test_a_file_that_was_written_again_is_read_anew(zoo: Path, tmp_path: Path) -> None:
    dataset = open_parquet(saved(zoo, tmp_path / "x.parquet"))
    assert len(np.unique([dataset.read(row).tobytes() for row in range(4)])) > 1
    one = parquet.read_table(tmp_path / "x.parquet").slice(0, 1)
    parquet.write_table(one, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="has become shorter since it was opened: row 3 is gone"):
        dataset.select_rows(np.arange(4)).read(3)
