"""Sex and age beside the signals: in comments of headers, and in a table of subjects."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoropter.signals.readers.subject_facts import (
    read_age_and_sex,
    read_personal_information,
    read_subject_info,
    select_known_in_labour,
)

HEADER = "100 2 360 650000\n100.dat 212 200 11 1024 995 0 0 MLII\n"
TABLE = "Subject,Age,Gender,Recording year\nSubject00,21,F,2011\nSubject01,,M,2011\n"


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("# 69 M 1085 1629 x1\n# Aldomet, 70 F\n", {"age": 69.0, "sex": "M"}),
        ("# -1 F 1 2 x1\n", {"age": None, "sex": "F"}),
        ("# 12 leads\n", {}),
        ("", {}),
    ],
)
def test_age_and_sex_are_those_of_the_first_comment(tmp_path: Path, comment: str, expected: dict[str, object]) -> None:
    (tmp_path / "100.hea").write_text(HEADER + comment)
    assert read_age_and_sex(tmp_path / "100.hea") == expected


def test_a_subject_is_found_in_the_table(tmp_path: Path) -> None:
    assert read_subject_info(tmp_path, "Subject00") == {}
    (tmp_path / "subject-info.csv").write_text(TABLE)
    assert read_subject_info(tmp_path, "subject00") == {"age": 21.0, "sex": "F"}
    assert read_subject_info(tmp_path, "Subject01") == {"sex": "M"} and read_subject_info(tmp_path, "Subject7") == {}
    (tmp_path / "subject-info.csv").write_text("Subject\nSubject00\n")
    assert read_subject_info(tmp_path, "Subject00") == {}


def test_facts_of_a_birth_are_those_known_before_it_is_over() -> None:
    header = {"pH": 7.1, "Apgar1": 5.0, "Age": 30.0, "Parity": None, "Weight(g)": 3000.0, "II.stage": 10.0, "Deliv. type": 1.0}
    assert select_known_in_labour(header) == {"Age": 30.0, "Parity": None}


def test_personal_information_is_read_as_wesad_writes_it(tmp_path: Path) -> None:
    text = "### Personal information ###\nAge: 25\nHeight (cm): 175\nGender: male\nDominant hand:\n\nDo you feel ill today? NO\n"
    (tmp_path / "S2_readme.txt").write_text(text)
    assert read_personal_information(tmp_path / "S2_readme.txt") == {"age": 25.0, "height_cm": 175.0, "sex": "male"}
    assert read_personal_information(tmp_path / "S3_readme.txt") == {}
