"""What may be read of a manifest or of recordings, and the reasons why the rest may not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoropter.core.errors import DataError
from phoropter.data.metadata.stated_columns import read_stated_columns
from phoropter.data.spec import DataSpec, open_dataset


def write_manifest(folder: Path) -> DataSpec:
    lines = ["path,label,patient,age,sex,path report"]
    for number in range(8):
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]},p{number},{30 + number},{'fm'[number // 4]},text {number}")
    (folder / "list.csv").write_text("\n".join(lines))
    return DataSpec.model_validate({"manifest": folder / "list.csv", "columns": {"group": "patient"}})


def write_recordings(folder: Path) -> DataSpec:
    lines = ["path,rate_hz,about.age,outcome.pH,outcome.NICU,about.apgar5"]
    for number in range(6):
        (folder / f"{number}.csv").write_text("ECG\n" + "\n".join(str(np.sin(i + number)) for i in range(60)))
        lines.append(f"{number}.csv,1,{30 + number},{7.0 + 0.3 * (number % 2)},0,9")
    (folder / "list.csv").write_text("\n".join(lines))
    window = {"length_s": 10, "gap_s": 0}
    return DataSpec.model_validate(
        {"recordings": folder / "list.csv", "outcome": "pH<=7.15", "window": window, "channel": "ECG", "size": 16}
    )


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("label", "'label' of list.csv is read as the label of each row; leave it out"),
        ("Patient", "'patient' of list.csv is read as the group of each row"),
        ("agee", r"list.csv has no column 'agee'; did you mean 'age'\?; choose age, sex or path report"),
    ],
)
def test_a_manifest_has_its_further_columns(tmp_path: Path, column: str, words: str) -> None:
    data = write_manifest(tmp_path)
    stated = read_stated_columns(data, None, open_dataset(data))
    assert stated.find_column("AGE") == "age" and stated.cells["sex"]["7.png"] == "m"
    with pytest.raises(DataError, match=words):
        stated.find_column(column)


def test_a_column_of_a_label_is_refused_however_it_is_spelt(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    lines = (tmp_path / "list.csv").read_text().splitlines()
    marks = ["Edema,MASS", *(f"{n % 2},{n // 2 % 2}" for n in range(8))]
    (tmp_path / "list.csv").write_text("\n".join(f"{line},{mark}" for line, mark in zip(lines, marks, strict=True)))
    data = DataSpec.model_validate({"manifest": tmp_path / "list.csv", "multi_label": {"columns": ["edema", "mass"]}})
    stated = read_stated_columns(data, None, open_dataset(data))
    for name in ("Edema", "mass"):
        with pytest.raises(DataError, match=r"of list\.csv is a label of each row; leave it out"):
            stated.find_column(name)
    assert list(stated.cells) == ["patient", "age", "sex", "path report"]


def test_columns_that_differ_in_case_only_are_told_apart_as_they_are_spelt(tmp_path: Path) -> None:
    data = write_manifest(tmp_path)
    written = (tmp_path / "list.csv").read_text().replace("path report", "AGE")
    (tmp_path / "list.csv").write_text(written)
    stated = read_stated_columns(data, None, open_dataset(data))
    assert [stated.find_column(name) for name in ("age", "AGE")] == ["age", "AGE"]
    with pytest.raises(DataError, match=r"'Age' may be age or AGE of list\.csv; write it as there"):
        stated.find_column("Age")
    (tmp_path / "list.csv").write_text(written.replace("AGE", "age"))
    with pytest.raises(DataError, match=r"'age' of list\.csv is the name of several columns"):
        read_stated_columns(data, None, open_dataset(data)).find_column("age")


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("pH", r"'pH' of list makes the classes \(pH<=7.15\); leave it out"),
        ("nicu", "'NICU' of list is an outcome, known with what the study predicts or after it"),
        ("Apgar5", "'apgar5' of list is an outcome"),
        ("weeks", "list has no column 'weeks'; choose age"),
    ],
)
def test_recordings_have_what_is_known_beforehand(tmp_path: Path, column: str, words: str) -> None:
    data = write_recordings(tmp_path)
    dataset = open_dataset(data)
    stated = read_stated_columns(data, None, dataset)
    assert list(stated.cells) == ["age"] and len(stated.row_keys) == len(dataset) == 36
    assert stated.cells["age"][stated.row_keys[35]] == "35", "a window has the facts of its recording"
    with pytest.raises(DataError, match=words):
        stated.find_column(column)


def test_other_sources_are_refused_with_the_way_out() -> None:
    data = DataSpec.model_validate({"digits": True, "max_samples": 20})
    with pytest.raises(DataError, match="comes from 'digits'; list its pictures in a manifest"):
        read_stated_columns(data, None, open_dataset(data))
