"""What a database states of its subjects beside the signals, such as sex and age; what is not stated is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from phoropter.core.columns import clean_cell, find_columns, parse_number
from phoropter.core.text_table import read_text_table

Facts = dict[str, float | str | None]
SUBJECT_INFO_FILE = "subject-info.csv"  # of eegmat
# Of CTU-UHB: not the lengths of the stages, the kind of delivery, its reasons, and the weight, which are known after the birth
_KNOWN_IN_LABOUR = (
    *("Gest. weeks", "Sex", "Age", "Gravidity", "Parity", "Diabetes", "Hypertension", "Preeclampsia", "Liq. praecox", "Pyrexia"),
    *("Meconium", "Presentation", "Induced", "Rec. type"),
)
_PERSONAL = {  # of WESAD: as its files write it → our name
    "age": "age",
    "height (cm)": "height_cm",
    "weight (kg)": "weight_kg",
    "gender": "sex",
    "dominant hand": "dominant_hand",
}
_AGE_AND_SEX = re.compile(r"^#\s*(-1|\d+) ([MF])\b", re.MULTILINE)


def read_age_and_sex(header: Path) -> Facts:
    """`age` in years (None: unknown) and `sex` of the first comment of a WFDB header as MIT-BIH writes it: `# 69 M ...`."""
    found = _AGE_AND_SEX.search(header.read_text(encoding="latin-1"))
    return {} if found is None else {"age": None if found[1] == "-1" else float(found[1]), "sex": found[2]}


def read_subject_info(folder: Path, subject: str) -> Facts:
    """`age` and `sex` of a subject of eegmat, by the table beside its files; empty without the table or the subject.

    The headers of the files have the same ages, and M for nearly everybody, whatever the table says; so the table counts alone.
    """
    if not (folder / SUBJECT_INFO_FILE).is_file():
        return {}
    table = read_text_table(folder / SUBJECT_INFO_FILE)
    places = find_columns(str(table.place), table.header, ("Subject", "Age", "Gender"), required=("Subject",))
    for _, cells in table.rows:
        if clean_cell(cells[places["Subject"]]).casefold() == subject.casefold():
            stated = {name: clean_cell(cells[places[key]]) for name, key in (("age", "Age"), ("sex", "Gender")) if key in places}
            return {
                name: parse_number(text, table.decimal_comma) if name == "age" else text for name, text in stated.items() if text
            }
    return {}


def select_known_in_labour(header: Mapping[str, float | str | None]) -> Facts:
    """Of what a header of CTU-UHB states, what is known while the recording is made."""
    return {name: header[name] for name in _KNOWN_IN_LABOUR if name in header}


def read_personal_information(file: Path) -> Facts:
    """`age`, `height_cm`, `weight_kg`, `sex` and `dominant_hand` of a subject of WESAD, by lines such as `Age: 27`; empty without
    the file. Its answers about the day of the recording are left out."""
    if not file.is_file():
        return {}
    pairs = (line.partition(":") for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    found = {
        _PERSONAL[key]: text
        for name, _, value in pairs
        if (key := clean_cell(name).casefold()) in _PERSONAL
        if (text := clean_cell(value))
    }
    return {name: parse_number(text) for name, text in found.items()}
