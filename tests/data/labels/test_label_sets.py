"""Several labels a row: how cells, columns and arrays of them are read, what is refused, and what a dataset does with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made_label_sets import make_marks
from phoropter.core.errors import DataError, SpecError
from phoropter.data.labels.label_sets import LabelSets, convert_label_table
from phoropter.data.leakage.audit import audit_splits
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.sources.manifest import from_dataframe
from phoropter.data.spec import manifest as manifest_spec
from phoropter.data.spec import npz as npz_spec
from phoropter.data.spec import open_dataset
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold

CELLS = "path,label\ncat/a.png,edema| mass\ncat/b.png,none\ncat/c.png,mass\ndog/a.png,edema\ndog/b.png,edema|mass\n"
COLUMNS = "path,mass,edema\ncat/a.png,1,1\ncat/b.png,0,0\ncat/c.png,1.0,0\ndog/a.png,0,1\ndog/b.png,1,1\n"
EXPECTED = [[1, 1], [0, 0], [0, 1], [1, 0], [1, 1]]  # edema, mass


def write(zoo: Path, text: str) -> Path:
    (zoo / "rows.csv").write_text(text, encoding="utf-8")
    return zoo / "rows.csv"


def test_cells_and_columns_are_two_ways_to_write_the_same_labels(zoo: Path) -> None:
    cells = open_dataset(manifest_spec(write(zoo, CELLS), multi_label=True))
    assert cells.classes == ("edema", "mass") and cells.labels.tolist() == EXPECTED
    columns = open_dataset(manifest_spec(write(zoo, COLUMNS), multi_label={"columns": ["edema", "mass"]}))
    assert columns.fingerprint == cells.fingerprint
    assert cells.class_counts.tolist() == [3, 3]
    assert [cells.describe_label(row) for row in range(3)] == ["edema|mass", "none", "mass"]


def test_without_the_key_the_cell_is_one_class_as_before(zoo: Path) -> None:
    assert open_dataset(manifest_spec(write(zoo, CELLS))).classes == ("edema", "edema| mass", "edema|mass", "mass", "none")


def test_a_word_for_none_and_another_separator(zoo: Path) -> None:
    text = CELLS.replace("|", ";").replace("none", "No Finding")
    spec = manifest_spec(write(zoo, text), multi_label={"separator": ";", "none": "No Finding"})
    assert open_dataset(spec).labels.tolist() == EXPECTED


def test_labels_are_chosen_ordered_and_left_out_and_rows_stay(zoo: Path) -> None:
    text = CELLS.replace("dog/a.png,edema", "dog/a.png,edema|rare")
    ordered = open_dataset(manifest_spec(write(zoo, text), multi_label=True, classes=["mass", "edema"], exclude=["rare"]))
    assert ordered.classes == ("mass", "edema") and ordered.labels.tolist() == [row[::-1] for row in EXPECTED]
    assert "left out the labels rare" in ordered.notes
    with pytest.raises(DataError, match="the label 'rare' is not in classes"):
        open_dataset(manifest_spec(write(zoo, text), multi_label=True, classes=["mass", "edema"]))


@pytest.mark.parametrize(
    ("text", "keys", "message"),
    [
        (CELLS.replace("none", ""), True, r"line 3: the label is empty here .*on_bad_input: skip"),
        (CELLS.replace("none", "none|mass"), True, r"line 3: the labels are 'none\|mass', and 'none' stands for none of them"),
        (
            CELLS.replace("none", "None"),
            True,
            r"line 3: the label is 'None', and 'none' stands for .* say multi_label: {none: None}",
        ),
        (CELLS.replace("none", "all well").replace("cat/c.png,mass", "cat/c.png,none"), {"none": "all well"}, "is called 'none'"),
        (CELLS.replace("edema|", "edema;").replace("mass", "a|b"), {"separator": ";"}, r"a label is called 'a\|b', and answers"),
        (CELLS.replace("edema|", "edema; "), True, r"line 2: the label 'edema; mass' is made of labels .*{separator: ';'}"),
        (CELLS.replace("none", "mass|edema").replace("mass,", "x,"), True, None),
        (COLUMNS.replace("0,0", "0,-1"), {"columns": ["edema", "mass"]}, r"line 3: '-1' stands in the column 'edema', expected"),
        (COLUMNS.replace("0,0", "0,"), {"columns": ["edema", "mass"]}, r"line 3: an empty cell stands in the column 'edema'"),
        (COLUMNS, {"columns": ["edema", "masses"]}, r"has no column 'masses'; did you mean 'mass'"),
        (
            COLUMNS.replace("edema", "site"),
            {"columns": ["site", "mass"]},
            "the label 'site' has the name of a column",
        ),
        (CELLS.replace("mass", "edema"), True, "at least two"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_place(zoo: Path, text: str, keys: Any, message: str | None) -> None:
    spec = manifest_spec(write(zoo, text), multi_label=keys)
    if message is None:
        assert open_dataset(spec).labels.sum() == 8
        return
    with pytest.raises(DataError, match=message):
        open_dataset(spec)


def test_rows_whose_labels_are_not_known_are_kept_and_never_split(zoo: Path) -> None:
    text = CELLS.replace("none", "") + "dog/b.png,none,9\n".replace(",9", "")
    text = text.replace("path,label", "path,label,id").replace("\n", ",\n").replace("id,", "id", 1)
    dataset = open_dataset(
        manifest_spec(write(zoo, text.replace("dog/b.png,none,", "dog/b.png,none,twice")), multi_label=True, on_bad_input="skip")
    )
    assert dataset.labels[1].tolist() == [-1, -1] and dataset.labelled.tolist() == [True, False, True, True, True, True]
    assert "1 of 6 rows have no label" in dataset.notes
    assert all(1 not in np.concatenate([s.train, s.test]) for s in make_splits(dataset, KFold(folds=2)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"columns": ["a"]}, "at least 2"),
        ({"columns": ["a", "a"]}, "names a label twice"),
        ({"columns": ["a", "b"], "separator": ";"}, "need no 'separator'"),
        ({"separator": "\t"}, "at least 1 character"),
    ],
)
def test_contradictory_keys_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        manifest_spec("rows.csv", multi_label=keys)


def test_a_positive_class_has_no_meaning_where_rows_have_several(zoo: Path) -> None:
    with pytest.raises(DataError, match="positive: rows of rows have several labels"):
        open_dataset(manifest_spec(write(zoo, CELLS), multi_label=True, positive="mass"))


def test_arrays_of_0_and_1_are_labels_by_column() -> None:
    images = np.zeros((4, 2, 2), dtype=np.uint8)
    given = np.array([[1, 0], [0, 0], [-1, -1], [1, 1]])
    dataset = from_arrays(images, given, classes=["edema", "mass"])
    assert dataset.is_multi_label and dataset.labels.tolist() == given.tolist() and dataset.class_counts.tolist() == [2, 1]
    assert from_arrays(images, given == 1).classes == ("label 1", "label 2")
    with pytest.raises(DataError, match=r"row 1: the labels are \[2, 0\]"):
        from_arrays(images, np.array([[1, 0], [2, 0], [1, 0], [0, 1]]))
    with pytest.raises(DataError, match="3 names came for 2 columns"):
        convert_label_table(given, ["a", "b", "c"], "here")


def test_npz_files_read_a_table_of_labels_where_the_key_says_so(tmp_path: Path) -> None:
    made = make_marks(12)
    images = np.stack([made.read(row) for row in range(12)])
    np.savez(tmp_path / "chest.npz", images=images, labels=made.labels.astype(np.uint8), classes=np.array(made.classes))
    assert open_dataset(npz_spec(tmp_path / "chest.npz", multi_label=True)).labels.tolist() == made.labels.tolist()
    with pytest.raises(DataError, match="say multi_label: true"):
        open_dataset(npz_spec(tmp_path / "chest.npz"))
    with pytest.raises(SpecError, match="has keys for labels in one cell"):
        npz_spec(tmp_path / "chest.npz", multi_label={"none": "nothing"})
    np.savez(tmp_path / "single.npz", images=images, labels=np.arange(12) % 2)
    with pytest.raises(DataError, match=r"labels have the shape \(12,\), and multi_label: true expects \(N, L\)"):
        open_dataset(npz_spec(tmp_path / "single.npz", multi_label=True))


def test_a_data_frame_takes_the_same_key(zoo: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"path": ["cat/a.png", "dog/a.png"], "label": ["edema|mass", "mass"]})
    assert from_dataframe(frame, zoo, multi_label=LabelSets()).labels.tolist() == [[1, 1], [0, 1]]


def test_samples_keep_both_answers_of_every_label() -> None:
    for dataset in (make_marks(200), make_marks(200, groups=50)):
        part = dataset.sample(40)
        assert len(part) <= 40 and (part.class_counts >= 2).all() and (part.class_counts < len(part)).all()


def test_copies_of_a_picture_with_other_labels_are_found() -> None:
    made = make_marks(40)
    images = np.stack([made.read(row) for row in range(40)])
    images[1], labels = images[0], made.labels.copy()
    labels[:2] = [[1, 0, 0], [1, 1, 0]]
    dataset = from_arrays(images, labels, classes=made.classes)
    findings = audit_splits(dataset, make_splits(dataset, KFold(folds=2)))
    assert any("bar and bar|dot" in str(finding) for finding in findings)
