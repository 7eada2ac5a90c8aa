"""PTB-XL: 21,799 clinical 12-lead ECGs of 10 s from 18,869 patients, with statements by up to two cardiologists.

Wagner et al., Scientific Data 7:154, 2020; PhysioNet, Creative Commons Attribution 4.0; not shipped. `ptbxl_database.csv` has a
row a record: patient, hospital, statements with their likelihood (`scp_codes`), one of ten folds that keep patients together
(`strat_fold`; the authors advise 1–8 to train, 9 to validate, 10 to test), and the names of the record at 100 Hz and at 500 Hz.

The superclass task gives each record one class: the superclass of its most likely diagnostic statement. Records whose most
likely statements belong to several superclasses, or that have no diagnostic statement, are left out and counted. The multi-label
task gives it the superclasses of all its diagnostic statements, whatever their likelihood, as the authors' benchmark does
(Strodthoff et al., IEEE J Biomed Health Inform 25:1519, 2021); only records without a diagnostic statement are left out.
"""

from __future__ import annotations

import ast
import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from phoropter.core.columns import parse_number
from phoropter.core.errors import DataError
from phoropter.core.files import format_bytes
from phoropter.signals.readers.physionet import read_wfdb
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording, read_recordings

METADATA_FILE = "ptbxl_database.csv"
MAX_METADATA_BYTES = 256 * 1024**2
# Diagnostic statements of scp_statements.csv by superclass: normal, infarction, ST/T change, conduction disturbance, hypertrophy.
_STATEMENTS = {
    "NORM": "NORM",
    "MI": "IMI ASMI ILMI AMI ALMI INJAS LMI INJAL IPLMI IPMI INJIN INJLA PMI INJIL",
    "STTC": "NDT NST_ DIG LNGQT ISC_ ISCAL ISCIN ISCIL ISCAS ISCLA ANEUR EL ISCAN",
    "CD": "LAFB IRBBB 1AVB IVCD CRBBB CLBBB LPFB WPW ILBBB 3AVB 2AVB",
    "HYP": "LVH LAO/LAE RVH RAO/RAE SEHYP",
}
SUPERCLASSES = tuple(_STATEMENTS)
_SUPERCLASS_OF = {code: name for name, codes in _STATEMENTS.items() for code in codes.split()}
_COLUMNS = ("ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr", "filename_hr")
_PARTS = {**dict.fromkeys(range(1, 9), "train"), 9: "val", 10: "test"}


class PtbxlRow(NamedTuple):
    """A line of ptbxl_database.csv that is to be read."""

    file: Path
    id: str
    patient: str
    site: str
    part: str
    label: str
    about: dict[str, float | str | None]

    def __str__(self) -> str:
        return str(self.file)


def read_ptbxl_folder(
    root: Path, on_bad_input: OnBadInput = "stop", *, column: str = "filename_lr", all_superclasses: bool = False
) -> LoadedRecordings:
    """The records with one superclass, each with its patient, hospital and official part; the notes count those left out.

    column: "filename_lr" for 100 Hz or "filename_hr" for 500 Hz
    all_superclasses: the label of a record is all its superclasses, joined by |
    Raises DataError where the table is missing or damaged.
    """
    rows, left_out = [], Counter[str]()
    table = _read_metadata(root / METADATA_FILE)
    for line, cells in enumerate(table, start=2):
        where = f"{root / METADATA_FILE} line {line}"
        codes = _parse_statements(cells["scp_codes"], where)
        names = find_superclasses(codes) if all_superclasses else most_likely_superclasses(codes)
        if not names or (len(names) > 1 and not all_superclasses):
            left_out["several superclasses are equally likely" if names else "no diagnostic statement"] += 1
            continue
        part = _PARTS.get(int(_parse_number(cells["strat_fold"], where)), "")
        if not part:
            raise DataError(f"{where}: strat_fold should be 1 to 10, came {cells['strat_fold']}")
        patient = f"{int(_parse_number(cells['patient_id'], where))}"
        file = root / f"{cells[column]}.hea"
        about: dict[str, float | str | None] = {key: parse_number(text) for key in ("age", "sex") if (text := cells.get(key))}
        ident = f"{int(_parse_number(cells['ecg_id'], where)):05d}"
        rows.append(PtbxlRow(file, ident, patient, cells.get("site") or "", part, "|".join(names), about))
    loaded = read_recordings(rows, _read_row, on_bad_input)
    notes = tuple(f"left out: {count} of {len(table)} records ({why})" for why, count in sorted(left_out.items()))
    return replace(loaded, notes=notes, left_out=left_out)


def find_superclasses(codes: Mapping[str, float]) -> list[str]:
    """The superclasses of all diagnostic statements, in the order of SUPERCLASSES. codes: statement → likelihood in percent

    >>> find_superclasses({"SR": 0.0, "IMI": 15.0, "NDT": 100.0})
    ['MI', 'STTC']
    """
    found = {_SUPERCLASS_OF[code] for code in codes if code in _SUPERCLASS_OF}
    return [name for name in SUPERCLASSES if name in found]


def most_likely_superclasses(codes: Mapping[str, float]) -> list[str]:
    """The superclasses of the diagnostic statements with the highest likelihood; several where they are equally likely.

    codes: statement → likelihood in percent; 0 where the cardiologist gave none

    >>> most_likely_superclasses({"NORM": 80.0, "IMI": 15.0, "SR": 0.0})
    ['NORM']
    """
    likelihood: dict[str, float] = {}
    for code, value in codes.items():
        if code in _SUPERCLASS_OF:
            name = _SUPERCLASS_OF[code]
            likelihood[name] = max(value, likelihood.get(name, 0.0))
    return [name for name, value in likelihood.items() if value == max(likelihood.values())]


def _read_row(row: PtbxlRow) -> Recording:
    recording = read_wfdb(row.file)
    return replace(recording, id=row.id, subject=row.patient, site=row.site, part=row.part, label=row.label, about=row.about)


def _read_metadata(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        raise DataError(f"{file}: this file is missing; PTB-XL has it beside records100 and records500")
    if (size := file.stat().st_size) > MAX_METADATA_BYTES:
        raise DataError(
            f"{file}: {format_bytes(size)} are more than PTB-XL's table has (at most {format_bytes(MAX_METADATA_BYTES)})"
        )
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file}: it cannot be read as CSV ({error}): copy it again") from error
    missing = [name for name in _COLUMNS if not rows or rows[0].get(name) is None]
    if missing:
        raise DataError(f"{file}: expected lines with the columns {', '.join(_COLUMNS)}; {missing[0]} is missing")
    return rows


def _parse_statements(text: str, where: str) -> dict[str, float]:
    """`{'NORM': 100.0, 'SR': 0.0}` as literal values; no expression is evaluated."""
    try:
        codes = ast.literal_eval(text)
        return {str(code): float(value) for code, value in codes.items()}
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError):
        raise DataError(f"{where}: scp_codes should be like {{'NORM': 100.0}}, came {text[:40]!r}") from None


def _parse_number(text: str, where: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise DataError(f"{where}: expected a number, came {text!r}") from None
