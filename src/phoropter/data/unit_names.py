"""What the groups and sites of a study's data are called: as the study says, else as its source knows."""

from __future__ import annotations

import re

from phoropter.core.language.unit_words import GROUP, SITE, UnitWord, UnitWords, parse_unit_word
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.spec import resolve_database
from phoropter.data.spec import DataSpec

# Parts of a column's name that tell what its values are.
_COLUMN_WORDS = {
    **dict.fromkeys(("person", "people", "subject", "participant", "volunteer"), "person"),
    **{word: word for word in ("patient", "birth", "recording", "animal", "mouse", "slide")},
    **{word: word for word in ("hospital", "clinic", "camera", "scanner")},
}


def name_units(spec: DataSpec, dataset: Dataset) -> UnitWords:
    """The words for a group and for a site.

    People, patients or births where recordings are of them, recordings where each is a group of its own; hospitals where patients
    or births have sites. Of pictures, what the study's `columns` call them (`{group: patient_id}`), else groups and sites.
    """
    group = parse_unit_word(spec.group_word) if spec.group_word else _default_group(spec, dataset)
    if spec.site_word:
        return group, parse_unit_word(spec.site_word)
    clinical = group.singular in ("patient", "birth")
    return group, _column_word(spec, "site") or (parse_unit_word("hospital") if clinical else SITE)


def _default_group(spec: DataSpec, dataset: Dataset) -> UnitWord:
    if spec.group_from:
        return GROUP
    if not spec.source_record.holds_recordings:
        return _column_word(spec, "group") or GROUP
    word = resolve_database(spec, spec.source).subjects
    if word != "subjects":  # the default of a Database, which knows nothing
        return parse_unit_word(word)
    if named := _column_word(spec, "subject"):
        return named
    if spec.outcome is not None or getattr(spec.representation, "kind", "") == "ctg":
        return parse_unit_word("birth")
    return parse_unit_word("recording" if _each_recording_is_a_group(dataset) else "person")


def _each_recording_is_a_group(dataset: Dataset) -> bool:
    if dataset.groups is None or dataset.recordings is None:
        return False
    pairs = set(zip(dataset.groups.tolist(), dataset.recordings.tolist(), strict=True))
    return len(pairs) == len({group for group, _ in pairs})


def _column_word(spec: DataSpec, column: str) -> UnitWord | None:
    """From the name that the study's `columns` give for this column."""
    name = getattr(spec, "columns", {}).get(column, "")
    word = next((part for part in re.split(r"[^a-z]+", name.lower()) if part in _COLUMN_WORDS), None)
    return None if word is None else parse_unit_word(_COLUMN_WORDS[word])
