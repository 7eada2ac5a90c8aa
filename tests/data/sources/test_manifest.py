from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.sources.manifest import from_dataframe, open_manifest

FULL = """path,label,group,site,split,note
cat/a.png,01,p1,Brno,train,x
cat/b.png,NA,p1,Brno,Validation,"a, b"
dog/a.png,01,p2,Tokyo,test,
dog/b.png,NA,p3,Tokyo,test,
"""


def manifest(zoo: Path, text: str, name: str = "rows.csv") -> Path:
    (zoo / name).write_text(text, encoding="utf-8")
    return zoo / name


def test_every_column_is_read_as_text(zoo: Path) -> None:
    dataset = open_manifest(manifest(zoo, FULL))
    assert dataset.ids.tolist() == ["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"]
    assert dataset.classes == ("01", "NA") and dataset.labels.tolist() == [0, 1, 0, 1]
    assert dataset.groups is not None and dataset.groups.tolist() == ["p1", "p1", "p2", "p3"]
    assert dataset.sites is not None and dataset.sites.tolist() == ["Brno", "Brno", "Tokyo", "Tokyo"]
    assert dataset.parts is not None and dataset.parts.tolist() == ["train", "val", "test", "test"]
    assert dataset.read(0).shape == (20, 30, 3)


def test_semicolons_a_byte_order_mark_and_capitals_are_understood(zoo: Path) -> None:
    dataset = open_manifest(manifest(zoo, "\ufeffPath;Label\ncat/a.png;x\ncat\\b.png;y\n"))
    assert dataset.ids.tolist() == ["cat/a.png", "cat/b.png"] and dataset.groups is None


def test_columns_can_be_renamed(zoo: Path) -> None:
    path = manifest(zoo, "file,diagnosis\ncat/a.png,x\ncat/b.png,y\n")
    assert open_manifest(path, columns={"path": "file", "label": "diagnosis"}).classes == ("x", "y")


def test_an_id_column_allows_a_file_twice(zoo: Path) -> None:
    dataset = open_manifest(manifest(zoo, "path,label,id\ncat/a.png,x,1\ncat/a.png,y,2\n"))
    assert dataset.ids.tolist() == ["1", "2"]


def test_an_empty_label_is_an_unlabelled_row(zoo: Path) -> None:
    assert open_manifest(manifest(zoo, "path,label\ncat/a.png,\ncat/b.png,y\n")).labels.tolist() == [-1, 0]


def test_paths_may_be_absolute(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    path = manifest(tmp_path / "lists", f"path,label\n{zoo}/cat/a.png,x\n../zoo/dog/a.png,y\n")
    assert open_manifest(path).read(1).shape == (20, 30, 3)


def test_a_parquet_manifest_gives_the_same_dataset(zoo: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"path": ["cat/a.png", "dog/a.png"], "label": [1, 0], "group": ["p", None], "extra": [b"x", b"y"]})
    parquet.write_table(table.drop_columns("group"), zoo / "rows.parquet")
    dataset = open_manifest(zoo / "rows.parquet")
    assert dataset.classes == ("0", "1") and dataset.labels.tolist() == [1, 0] and len(dataset.read(1)) == 20
    parquet.write_table(table, zoo / "rows.parquet")
    with pytest.raises(DataError, match="line 2: the group is empty here and given elsewhere"):
        open_manifest(zoo / "rows.parquet")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,lable\ncat/a.png,x\n", r"rows\.csv has no column 'label'; did you mean 'lable'\?"),
        ("", r"rows\.csv has no column 'path'"),
        ("path,label\ncat/a.png,x\ncat/z.png,y\ncat/y.png,y\n", r"line 3: cat/z\.png does not exist.*\(and 1 more\).*skip"),
        ("path,label\n,x\ncat/a.png,y\n", "line 2: an empty path does not exist"),
        ("path,label\ncat/a.png,x\n./cat//a.png,y\n", r"line 3: 'cat/a\.png' came already on line 2"),
        (
            "path,label,split\ncat/a.png,x,train\ncat/b.png,y,thirds\n",
            "line 3: the split is 'thirds'; expected train, val or test",
        ),
        ("path,label,group\ncat/a.png,x,p\ncat/b.png,y,\n", "line 3: the group is empty here and given elsewhere"),
        ("path,label\ncat/a.png,x,extra\n", "line 2: 3 values came, expected one for each of the 2 columns"),
        ('path,label\n"cat/a.png,x\n', "line 2: 1 values came"),
        ("path,label\n", "has no pictures"),
    ],
)
def test_errors_are_named_with_their_line(zoo: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_manifest(manifest(zoo, text))


def test_missing_pictures_are_listed_with_skip(zoo: Path) -> None:
    path = manifest(zoo, "path,label\ncat/a.png,x\ncat/z.png,y\ndog/a.png,y\n")
    dataset = open_manifest(path, on_bad_input="skip")
    assert len(dataset) == 2 and [str(p) for p in dataset.problems] == ["rows.csv, line 3: cat/z.png does not exist"]


def test_a_missing_renamed_column_is_named(zoo: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'diagnossis' \(columns.label\); did you mean 'diagnosis'\?"):
        open_manifest(manifest(zoo, "path,diagnosis\ncat/a.png,x\n"), columns={"label": "diagnossis"})


def test_other_encodings_and_no_file_are_refused(zoo: Path) -> None:
    (zoo / "latin.csv").write_bytes("path,label\ncat/ä.png,x\n".encode("latin1"))
    with pytest.raises(DataError, match=r"latin\.csv is not UTF-8 text"):
        open_manifest(zoo / "latin.csv")
    with pytest.raises(DataError, match="there is no such manifest"):
        open_manifest(zoo / "none.csv")
    (zoo / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"bad\.parquet is not readable as Parquet"):
        open_manifest(zoo / "bad.parquet")


def test_a_dataframe_is_read_as_the_same_table_in_a_file(zoo: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "Path": ["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"],
            "diagnosis": pd.array([1, 2, None, 1], dtype="Int64"),
            "group": [1.0, 1.0, 2.0, 2.0],
            "split": ["train", "train", "test", None],
        }
    )
    dataset = from_dataframe(frame, zoo, columns={"label": "diagnosis"})
    frame.to_csv(zoo / "rows.csv", index=False)
    from_file = open_manifest(zoo / "rows.csv", columns={"label": "diagnosis"})
    assert dataset.classes == ("1", "2") and dataset.labels.tolist() == [0, 1, -1, 0]
    assert dataset.groups is not None and dataset.groups.tolist() == ["1", "1", "2", "2"]
    assert dataset.parts is not None and dataset.parts.tolist() == ["train", "train", "test", ""]
    assert dataset.content_digest == from_file.content_digest and dataset.name == "dataframe"
    np.testing.assert_array_equal(dataset.read(2), from_file.read(2))


def test_errors_in_a_dataframe_are_named_by_their_row(zoo: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"path": ["cat/a.png", "cat/x.png"], "label": ["cat", "cat"]})
    with pytest.raises(DataError, match=r"dataframe, row 1: cat/x\.png does not exist in .*zoo"):
        from_dataframe(frame, zoo)
    assert len(from_dataframe(frame, zoo, on_bad_input="skip").problems) == 1
    with pytest.raises(
        DataError, match=r"dataframe has no column 'label'; did you mean 'labl'.* name the right one with columns"
    ):
        from_dataframe(frame.rename(columns={"label": "labl"}), zoo)
