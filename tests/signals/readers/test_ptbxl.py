"""PTB-XL's table: one class per record, the official folds, and counts of records left out, on synthetic records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from phoropter.core.errors import DataError
from phoropter.signals.readers.ptbxl import METADATA_FILE, SUPERCLASSES, most_likely_superclasses, read_ptbxl_folder

ROWS = {  # ecg_id: patient, site, statements, fold
    1: ("15709.0", "0.0", "{'NORM': 100.0, 'LVOL': 0.0, 'SR': 0.0}", 3),
    2: ("13243.0", "0.0", "{'IMI': 80.0, 'NDT': 50.0}", 9),
    3: ("13243.0", "2.0", "{'LVH': 100.0, 'IMI': 100.0}", 9),
    4: ("9456.0", "", "{'SR': 0.0, 'AFIB': 0.0}", 1),
    5: ("17014.0", "1.0", "{'CRBBB': 0.0}", 10),
}


@pytest.fixture
def folder(tmp_path: Path, write_ptbxl: Callable[..., Path]) -> Path:
    return write_ptbxl(tmp_path, ROWS)


def test_records_get_their_class_patient_site_and_official_part(folder: Path) -> None:
    loaded = read_ptbxl_folder(folder)
    found = [(r.id, r.subject, r.site, r.part, r.label, r.rate_hz) for r in loaded.recordings]
    assert found == [
        ("00001", "15709", "0.0", "train", "NORM", 100.0),
        ("00002", "13243", "0.0", "val", "MI", 100.0),
        ("00005", "17014", "1.0", "test", "CD", 100.0),
    ]
    assert loaded.notes == (
        "left out: 1 of 5 records (no diagnostic statement)",
        "left out: 1 of 5 records (several superclasses are equally likely)",
    )
    assert loaded.recordings[1].channel("II").mean() == pytest.approx(0.2, abs=1e-3)


def test_age_and_sex_are_those_of_the_table(folder: Path) -> None:
    lines = (folder / METADATA_FILE).read_text().splitlines()
    facts = ["age,sex", "56.0,1", "300.0,0", ",1", "19.0,0", ",", ""]
    (folder / METADATA_FILE).write_text("\n".join(f"{line},{more}" for line, more in zip(lines, facts, strict=False)) + "\n")
    found = [dict(r.about) for r in read_ptbxl_folder(folder).recordings]
    assert found == [{"age": 56.0, "sex": 1.0}, {"age": 300.0, "sex": 0.0}, {}]


def test_the_other_column_names_the_records_at_500_hz(folder: Path) -> None:
    loaded = read_ptbxl_folder(folder, column="filename_hr")
    assert [r.rate_hz for r in loaded.recordings] == [500.0] * 3
    assert loaded.recordings[0].channel("II").mean() == pytest.approx(1.1, abs=1e-3)


def test_a_record_gets_all_its_superclasses_where_they_are_asked_for(folder: Path) -> None:
    loaded = read_ptbxl_folder(folder, all_superclasses=True)
    assert [(r.id, r.label) for r in loaded.recordings] == [
        ("00001", "NORM"),
        ("00002", "MI|STTC"),
        ("00003", "MI|HYP"),
        ("00005", "CD"),
    ]
    assert loaded.notes == ("left out: 1 of 5 records (no diagnostic statement)",)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({"NORM": 80.0, "IMI": 15.0, "SR": 100.0}, ["NORM"]),
        ({"IMI": 50.0, "ASMI": 100.0, "LVH": 80.0}, ["MI"]),
        ({"IMI": 100.0, "LVH": 100.0}, ["MI", "HYP"]),
        ({"IMI": 0.0, "ASMI": 0.0}, ["MI"]),
        ({"SR": 100.0}, []),
        ({}, []),
    ],
)
def test_the_class_is_the_superclass_of_the_most_likely_statement(codes: dict[str, float], expected: list[str]) -> None:
    assert most_likely_superclasses(codes) == expected
    assert set(expected) <= set(SUPERCLASSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{'CRBBB': 0.0}", "__import__('os').getcwd()"), "line 6: scp_codes should be like"),
        ((",10,records100", ",11,records100"), "line 6: strat_fold should be 1 to 10, came 11"),
        (("17014.0", "someone"), "line 6: expected a number, came 'someone'"),
        (("scp_codes", "codes"), "expected lines with the columns .*; scp_codes is missing"),
    ],
)
def test_a_damaged_table_is_refused(folder: Path, change: tuple[str, str], message: str) -> None:
    file = folder / METADATA_FILE
    text = file.read_text()
    assert change[0] in text
    file.write_text(text.replace(*change))
    with pytest.raises(DataError, match=message):
        read_ptbxl_folder(folder)


def test_a_missing_record_stops_or_is_listed(folder: Path) -> None:
    (folder / "records100" / "00000" / "00002_lr.dat").unlink()
    with pytest.raises(DataError, match=r"00002_lr\.dat"):
        read_ptbxl_folder(folder)
    loaded = read_ptbxl_folder(folder, "skip")
    assert [r.id for r in loaded.recordings] == ["00001", "00005"] and "00002_lr" in loaded.problems[0].where


def test_a_folder_without_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ptbxl_database\.csv: this file is missing"):
        read_ptbxl_folder(tmp_path)
