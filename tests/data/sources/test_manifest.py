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


def test_an_empty_label_is_refused_with_counts_or_kept_without_one(zoo: Path) -> None:
    path = manifest(zoo, "path,label\ncat/a.png,\ncat/b.png,y\n")
    with pytest.raises(
        DataError, match=r"rows\.csv, line 2: the label is empty .* \(1 of 2 rows have none\).*on_bad_input: skip"
    ):
        open_manifest(path)
    assert open_manifest(path, on_bad_input="skip").labels.tolist() == [-1, 0]


def test_a_part_without_any_label_is_kept(zoo: Path) -> None:
    text = "path,label,split\ncat/a.png,cat,train\ndog/a.png,dog,train\ncat/b.png,,test\ndog/b.png,,test\n"
    assert open_manifest(manifest(zoo, text)).labels.tolist() == [0, 1, -1, -1]


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
    with pytest.raises(DataError, match=r"bad\.parquet is damaged or no Parquet file"):
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


@pytest.mark.parametrize(
    "content",
    [
        "path,label,group\ncat/a.png,x,1\ncat/b.png,y,2\n",
        "sep=;\nPath ;LABEL;Group\ncat\\a.png;x;1\n.\\cat\\b.png;y;2\n",
        "\ufeffpath\tlabel\tgroup\ncat/a.png\tx \t1.0\ncat/b.png\t\u00a0y\t2.0\n",
        ",path,label,group\n0,cat/a.png,x\u200b,1\n1,cat/b.png,y,2.0\n",
        "path;label;group;age\ncat/a.png;x;1;0,5\ncat/b.png;y;2;1,5\n",
        "path,label,group\r\ncat/a.png,x,1,,\r\n,,\r\ncat/b.png,y,2\r\n",
    ],
)
def test_a_manifest_in_any_dialect_gives_the_same_dataset(zoo: Path, content: str) -> None:
    (zoo / "rows.csv").write_text(content, encoding="utf-8", newline="")
    dataset = open_manifest(zoo / "rows.csv")
    assert dataset.ids.tolist() == ["cat/a.png", "cat/b.png"] and dataset.classes == ("x", "y")
    assert dataset.groups is not None and dataset.groups.tolist() == ["1", "2"] and dataset.problems == ()


def test_a_file_is_found_by_how_its_name_reads(zoo: Path) -> None:
    (zoo / "cat" / "a.png").rename(zoo / "cat" / "cafe\u0301.png")
    (zoo / "cat" / "b.png").rename(zoo / "cat" / "a\u00a0b.png")
    dataset = open_manifest(manifest(zoo, "path,label\ncat/caf\u00e9.png,x\ncat/a b.png,y\n"))
    assert dataset.ids.tolist() == ["cat/caf\u00e9.png", "cat/a b.png"] and dataset.read(0).shape == dataset.read(1).shape
    with pytest.raises(DataError, match=r"line 2: cat/C\.PNG does not exist \(there is 'cat/c\.png'\) in "):
        open_manifest(manifest(zoo, "path,label\ncat/C.PNG,x\n"))


@pytest.mark.parametrize("header", ["path,label,Label", "path,label,label", "path,label,\u200bLABEL"])
def test_two_columns_of_one_name_are_refused(zoo: Path, header: str) -> None:
    with pytest.raises(DataError, match=r"rows\.csv has 2 columns called 'label' and '.*', and one label is expected"):
        open_manifest(manifest(zoo, f"{header}\ncat/a.png,x,y\ndog/a.png,z,z\n"))


def test_half_filled_columns_are_refused_with_counts_also_where_pictures_are_missing(zoo: Path) -> None:
    path = manifest(zoo, "path,label,site\ncat/a.png,x,s\nnone.png,x,\ncat/b.png,y,\ncat/c.png,y,t\n")
    with pytest.raises(DataError, match=r"line 3: the site is empty here and given elsewhere \(2 of 4 rows have none\)"):
        open_manifest(path, on_bad_input="skip")


def test_rows_without_a_label_or_part_and_names_that_differ_in_case_are_noted(zoo: Path) -> None:
    text = "path,label,group,split\ncat/a.png,cat,P1,train\ncat/b.png,Cat,p1,\ndog/a.png,dog,p2,test\ndog/b.png,,p2,test\n"
    assert open_manifest(manifest(zoo, text), on_bad_input="skip").notes == (
        "1 of 4 rows have no label",
        "1 of 4 rows belong to no official part",
        "class names that differ in case only: Cat or cat",
        "groups that differ in case only: P1 or p1",
    )


def test_where_every_picture_is_missing_the_first_is_told_also_with_skip(zoo: Path) -> None:
    path = manifest(zoo, "path,label\nCAT/A.PNG,x\ncat/A.png,y\n")
    with pytest.raises(DataError, match=r"line 2: CAT/A\.PNG does not exist in .* \(and 1 more\); correct it$"):
        open_manifest(path, on_bad_input="skip")


def test_an_unread_column_called_as_groups_are_is_noted_unless_there_are_groups(zoo: Path) -> None:
    text = "path,label,PatientID{}\ncat/a.png,x,p1{}\ncat/b.png,y,p1{}\n"
    assert any("'PatientID' was not read" in note for note in open_manifest(manifest(zoo, text.format("", "", ""))).notes)
    path = manifest(zoo, text.format(",group", ",1", ",1"))
    assert not any("not read" in note for note in open_manifest(path).notes)
    named = open_manifest(manifest(zoo, text.format("", "", "")), columns={"group": "PatientID"})
    assert named.groups is not None and named.groups.tolist() == ["p1", "p1"] and named.notes == ()


def test_an_unread_column_called_as_parts_are_is_noted_unless_there_are_parts(zoo: Path) -> None:
    text = "path,label,Usage{}\ncat/a.png,x,Training{}\ncat/b.png,y,PublicTest{}\n"
    assert "'Usage' was not read" in open_manifest(manifest(zoo, text.format("", "", ""))).notes[0]
    assert open_manifest(manifest(zoo, text.format(",split", ",train", ",test"))).notes == ()


def test_names_written_without_their_ending_are_told_which_one_is_there(zoo: Path) -> None:
    words = r"line 2: the picture does not exist \(a file of this name with the ending \.png does: write the names with"
    with pytest.raises(DataError, match=words):
        open_manifest(manifest(zoo, "path,label\ncat/a,x\ncat/b,y\n"))
