"""Names of columns and values of cells, however they are written."""

from __future__ import annotations

import unicodedata
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from phoropter.core.columns import (
    check_filled,
    clean_cell,
    clean_name,
    clean_path,
    describe_case_collisions,
    describe_missing_words,
    describe_unread_groups,
    describe_unread_parts,
    find_columns,
    is_missing_word,
    parse_number,
)
from phoropter.core.errors import DataError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\ufeffLabel", "Label"),
        ("  cat\u00a0", "cat"),
        ("cat\u200b", "cat"),
        ("cat\0\0", "cat"),  # padded by a program in C
        ("c\x1b[31mat\x07\x9f", "c[31mat"),  # no name commands a terminal
        ("c\u00adat\u200e", "cat"),
        ("Kaposi  sarcoma\t", "Kaposi sarcoma"),
        (unicodedata.normalize("NFD", "café"), "café"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # the joiner inside a word is a letter's shape
    ],
)
def test_a_name_is_compared_as_it_is_read(text: str, name: str) -> None:
    assert clean_name(text) == name == clean_name(name)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *(
            (v, "1")
            for v in (1, 1.0, "1", "1.0", " 1 ", np.int64(1), np.float32(1), np.str_("1.0"), Decimal("1.0"), b"1", "1.00")
        ),
        *((v, "") for v in (None, float("nan"), np.float64("nan"), "", "  ", "\u200b", b"")),
        *((v, v) for v in ("01", "1.5", "1.", "v1.0", "1.0.0", "NA", "None", "nan", "007.0", "-1")),
        (0.5, "0.5"),
        (-0.0, "0"),
        ("0.0", "0"),
        (-3.0, "-3"),
        ("-3.0", "-3"),
        (True, "True"),
    ],
)
def test_a_whole_number_is_one_name_and_the_missing_is_none(value: Any, name: str) -> None:
    assert clean_cell(value) == name


def test_what_pandas_calls_missing_is_missing() -> None:
    import pandas as pd

    assert clean_cell(pd.NA) == clean_cell(pd.NaT) == ""


@pytest.mark.parametrize(("text", "path"), [(r"img\a.png", "img/a.png"), ("\ufeff img/a b.png ", "img/a b.png")])
def test_paths_of_windows_are_read(text: str, path: str) -> None:
    assert clean_path(text) == path


def test_a_decimal_comma_counts_only_where_the_table_uses_it() -> None:
    assert parse_number("0,5", decimal_comma=True) == 0.5 and parse_number("0.5", decimal_comma=True) == 0.5
    assert parse_number("0,5") == "0,5" and parse_number("7.1") == 7.1 and parse_number("cold", decimal_comma=True) == "cold"


@pytest.mark.parametrize("header", [["path", "label"], ["PATH", "Label"], ["\ufeffPath", " label\u200b"]])
def test_columns_are_found_whatever_their_case(header: list[str]) -> None:
    assert find_columns("t.csv", header, ("path", "label", "group"), required=("path",)) == {"path": 0, "label": 1}


def test_columns_may_have_other_names() -> None:
    assert find_columns("t.csv", ["File", "label"], ("path", "label"), {"path": "file"}) == {"label": 1, "path": 0}
    with pytest.raises(
        DataError, match=r"t\.csv has no column 'fil' \(columns\.path\); did you mean 'File'\?; it has File or label"
    ):
        find_columns("t.csv", ["File", "label"], ("path",), {"path": "fil"})
    with pytest.raises(DataError, match=r"has no column 'path'.*columns: \{path: NAME\}"):
        find_columns("t.csv", ["File", "label"], ("path",), required=("path",))


@pytest.mark.parametrize("header", [["label", "Label"], ["label", "label"], ["label", "LABEL "]])
def test_two_columns_of_one_name_are_refused(header: list[str]) -> None:
    with pytest.raises(DataError, match=r"t\.csv has 2 columns called 'label' and '.*', and one label is expected: rename"):
        find_columns("t.csv", header, ("label",))


def test_a_column_named_letter_for_letter_settles_which_of_two_is_meant() -> None:
    assert find_columns("t.csv", ["Diagnosis", "diagnosis"], ("label",), {"label": "diagnosis"}) == {"label": 1}
    assert find_columns("t.csv", ["Label", "label"], ("label",), {"label": "label"}) == {"label": 1}
    assert find_columns("t.csv", ["note", "Note", "label"], ("label",)) == {"label": 2}  # columns that are not read may be two


def test_a_half_filled_column_is_refused_with_counts() -> None:
    assert check_filled(["a", "b"], "group", "t.csv") and not check_filled(["", ""], "group", "t.csv")
    with pytest.raises(DataError, match=r"row 1: the group is empty here and given elsewhere \(2 of 3 rows have none\)"):
        check_filled(["a", "", ""], "group", "row {}".format)


def test_names_that_differ_in_case_only_are_noted() -> None:
    assert describe_case_collisions(["cat", "Cat", "cat", "dog"], "groups") == ("groups that differ in case only: cat or Cat",)
    assert describe_case_collisions(["cat", "dog"], "groups") == ()


def test_names_that_stand_for_a_missing_value_are_noted() -> None:
    assert describe_missing_words(["p1", "nan", "None", "nan", "Nancy"], "groups") == (
        "3 rows have 'None' or 'nan' among the groups, which other programs write for a missing value: it was read as a name",
    )
    assert describe_missing_words(["p1", "nan"], "groups")[0].startswith("1 row has 'nan' among the groups")
    assert describe_missing_words(["p1", "Nancy", ""], "groups") == ()


def test_words_for_a_missing_value() -> None:
    assert all(map(is_missing_word, ["NA", "nan", "None", "<NA>", "#N/A"]))
    assert not any(map(is_missing_word, ["", "Nancy", "0", "unknown"]))


@pytest.mark.parametrize("name", ["patient_id", "PatientID", "Subject", "subjects", "lesion_id", "meta.participant", "donor no."])
def test_an_unread_column_called_as_groups_are_is_noted(name: str) -> None:
    (note,) = describe_unread_groups(["width", name])
    assert f"'{name}' was not read" in note and f"columns: {{group: {name}}}" in note


@pytest.mark.parametrize("name", ["Usage", "subset", "set", "data_split", "Partition", "phase", "part"])
def test_an_unread_column_called_as_parts_are_is_noted(name: str) -> None:
    (note,) = describe_unread_parts(["width", name])
    assert f"'{name}' was not read" in note and f"columns: {{split: {name}}}" in note
    assert "write a folds file of it" in describe_unread_parts(["cv_fold"])[0]
    assert describe_unread_parts(["phase", "fold", "set"]) == (
        "the columns 'phase', 'fold' or 'set' were not read; if one of them says which rows are for training, name it with "
        "columns: {split: phase} or write a folds file of it (protocol: {split: file, folds_file: FILE})",
    )
    assert describe_unread_parts(["data_set", "dataset", "manifold", "offset", "uset", "caused", "body_part", ""]) == ()


def test_other_unread_columns_are_not_noted() -> None:
    assert describe_unread_groups(["width", "inpatient", "patience", "personal", "subjective", ""]) == ()
