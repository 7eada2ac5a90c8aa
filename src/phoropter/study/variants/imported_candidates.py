"""Predictions that were imported into a results folder: files under `imports/`, candidates of its study from then on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from phoropter.core.columns import clean_name
from phoropter.core.errors import SpecError, StoreError
from phoropter.core.files import atomic_write, digest_file, make_folder
from phoropter.core.storage.sealed_json import read_sealed_json, write_sealed_json
from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate_entry import parse_candidates

IMPORTS_FOLDER, IMPORTS_FILE = "imports", "imports.json"


class _Imported(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    file: str
    columns: dict[str, str] = {}


class _ImportList(BaseModel):
    candidates: list[_Imported] = []


def add_imported(study: StudySpec, folder: Path) -> StudySpec:
    """The study with the candidates that were imported into its results folder. Raises StoreError for a damaged list."""
    listed = {c.name for c in study.parsed_candidates}
    known = [entry for entry in _read_imports(folder) if entry.name not in listed]
    return _with_candidates(study, folder, known) if known else study


def copy_import(study: StudySpec, folder: Path, file: Path, name: str, columns: Mapping[str, str]) -> StudySpec:
    """Copies a file of predictions into the results folder; returns the study with it and with those imported before.

    The same name again replaces what it stood for. Nothing is noted yet: `note_import` does that when the file was found to fit.
    Raises SpecError for a name that is empty or that the study has, and for a screening, which chooses candidates by probes.
    """
    if not clean_name(name):
        raise SpecError("--name is empty; give the candidate a name, by which the page calls it")
    if study.screening is not None:
        raise SpecError(f"{study.source.name}: a study with screening takes no imported predictions; take screening out")
    if any(c.name == name for c in study.parsed_candidates):
        raise SpecError(f"--name: '{name}' is a candidate of the study already; choose another name")
    stored = name_copy(file)
    target = folder / IMPORTS_FOLDER / stored
    make_folder(target.parent)
    with atomic_write(target) as aside:
        shutil.copyfile(file, aside)
    return _with_candidates(study, folder, _replace_entry(folder, name, stored, columns))


def note_import(folder: Path, file: Path, name: str, columns: Mapping[str, str]) -> None:
    """Adds a copied file to the list that `run`, `plan` and `report` read; a copy that it replaces is removed."""
    before, entries = _read_imports(folder), _replace_entry(folder, name, name_copy(file), columns)
    write_sealed_json(folder / IMPORTS_FOLDER / IMPORTS_FILE, {"candidates": [e.model_dump() for e in entries]})
    for entry in before:
        drop_copy(folder, entry.file)


def name_copy(file: Path) -> str:
    """What the copy of a file is called: by its contents."""
    return f"{digest_file(file)}{file.suffix.lower()}"


def drop_copy(folder: Path, stored: str) -> None:
    """Removes a copy that no candidate on the list is read from."""
    if all(entry.file != stored for entry in _read_imports(folder)):
        (folder / IMPORTS_FOLDER / stored).unlink(missing_ok=True)


def _replace_entry(folder: Path, name: str, stored: str, columns: Mapping[str, str]) -> list[_Imported]:
    return [*(e for e in _read_imports(folder) if e.name != name), _Imported(name=name, file=stored, columns=dict(columns))]


def _with_candidates(study: StudySpec, folder: Path, entries: list[_Imported]) -> StudySpec:
    place = Path(os.path.relpath(folder / IMPORTS_FOLDER, study.base or Path()))
    written: list[dict[str, Any]] = [
        {"name": e.name, "predictions": (place / e.file).as_posix(), **({"columns": e.columns} if e.columns else {})}
        for e in entries
    ]
    candidates = [*study.candidates, *written]
    parse_candidates(candidates, study.parsed_recipe, study.source)
    return study.model_copy(update={"candidates": candidates})


def _read_imports(folder: Path) -> list[_Imported]:
    path = folder / IMPORTS_FOLDER / IMPORTS_FILE
    if not path.exists():
        return []
    try:
        return _ImportList.model_validate(read_sealed_json(path, StoreError)).candidates
    except ValidationError:
        raise StoreError(f"{path} is damaged; delete it and import the files again") from None
