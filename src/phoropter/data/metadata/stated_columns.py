"""The columns that a manifest or recordings state of each row, as text, and why a candidate must not read some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from phoropter.core.columns import clean_cell, find_columns
from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.core.text_table import read_text_table
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.source import resolve_path
from phoropter.data.sources.manifest import MANIFEST_COLUMNS, make_row_id
from phoropter.data.spec import DataSpec
from phoropter.signals.outcomes import BIRTH_OUTCOMES, list_outcome_keys


@dataclass(frozen=True, eq=False)
class StatedColumns:
    """What is stated of all that a source holds, rows that a study leaves out among them.

    place:    of the columns, in messages
    cells:    column → key → text, "" where nothing is stated; keys are the ids of rows, or those of their recordings
    row_keys: of each row of the dataset
    refused:  column that a candidate must not read → why
    """

    place: str
    cells: dict[str, dict[str, str]]
    row_keys: list[str]
    refused: dict[str, str] = field(default_factory=dict)
    decimal_comma: bool = False

    def find_column(self, name: str) -> str:
        """A column as it is spelt here; small letters match large where no other is spelt so.

        Raises DataError for one that is refused, not there, or one of several that differ in case only.
        """
        columns = tuple(dict.fromkeys((*self.refused, *self.cells)))
        alike = [name] if name in columns else [known for known in columns if known.casefold() == name.casefold()]
        if len(alike) > 1:
            raise DataError(f"metadata: '{name}' may be {' or '.join(alike)} of {self.place}; write it as there")
        found = alike[0] if alike else None
        if found in self.refused:
            raise DataError(f"metadata: '{found}' of {self.place} {self.refused[found]}; leave it out")
        if found is None:
            has = f"choose {join_words(self.cells, 40)}" if self.cells else "it has none that a candidate may read"
            raise DataError(f"metadata: {self.place} has no column '{name}'{did_you_mean(name, self.cells)}; {has}")
        return found


def read_stated_columns(data: DataSpec, base: Path | None, dataset: Dataset) -> StatedColumns:
    """The columns of the manifest or recordings that a dataset was opened from. base: where relative paths start

    Raises DataError for data from elsewhere, and for pictures whose ids are hidden.
    """
    if isinstance(dataset.pictures, RenderedPictures) and dataset.recordings is not None:
        return _read_facts(dataset.pictures, dataset.name, dataset.recordings.tolist())
    if data.source_record.key != "manifest":
        raise DataError(
            f"metadata are columns of a manifest or facts of recordings, and {dataset.name} comes from '{data.source_record.key}'"
            "; list its pictures in a manifest, or give the numbers as a file of features"
        )
    return _read_manifest_columns(data, base, dataset)


def _read_facts(pictures: RenderedPictures, name: str, row_keys: list[str]) -> StatedColumns:
    """Facts of the subjects (`about`); outcomes are refused, because they are known with the label or after it."""
    recordings, rule = pictures.windows.recordings, pictures.windows.view.outcome
    after = {name.casefold() for name in BIRTH_OUTCOMES}
    known = dict.fromkeys(fact for recording in recordings for fact in recording.about if fact.casefold() not in after)
    cells = {fact: {r.id: clean_cell(r.about.get(fact)) for r in recordings} for fact in known}
    outcomes = dict.fromkeys(fact for r in recordings for fact in (*r.outcome, *r.about) if fact not in known)
    asked = list_outcome_keys(rule) if rule else ()
    reasons = {
        fact: f"makes the classes ({rule})" if fact in asked else "is an outcome, known with what the study predicts or after it"
        for fact in outcomes
    }
    return StatedColumns(name, cells, row_keys, reasons)


def _read_manifest_columns(data: DataSpec, base: Path | None, dataset: Dataset) -> StatedColumns:
    path = resolve_path(getattr(data, "manifest"), base, data.source_record.table_endings)  # noqa: B009  a field that exists only at run time
    table, renamed = read_text_table(path), getattr(data, "columns", {})
    own = find_columns(table.place, table.header, MANIFEST_COLUMNS, renamed)
    labels = find_columns(table.place, table.header, (data.multi_label.columns if data.multi_label else None) or ())
    places = {name: at for at, name in enumerate(table.header) if at not in {*own.values(), *labels.values()}}
    cells: dict[str, dict[str, str]] = {name: {} for name in places}
    for _, values in table.rows:
        key = make_row_id(*(values[own[ours]] if ours in own else "" for ours in ("id", "path")))
        for name, at in places.items():
            cells[name][key] = clean_cell(values[at])
    _raise_on_hidden_ids(dataset, table.place, next(iter(cells.values()), {}))
    refused = {table.header[at]: f"is read as the {ours} of each row" for ours, at in own.items()}
    refused |= {table.header[at]: "is a label of each row" for at in labels.values()}
    refused |= {name: "is the name of several columns" for name, count in Counter(table.header).items() if count > 1}
    return StatedColumns(table.place, cells, [str(i) for i in dataset.ids], refused, table.decimal_comma)


def _raise_on_hidden_ids(dataset: Dataset, place: str, known: Iterable[str]) -> None:
    unknown = set(map(str, dataset.ids)) - set(known)
    if unknown:
        raise DataError(
            f"metadata: {len(unknown):,} of {len(dataset):,} rows of {dataset.name} have ids that {place} does not name, as "
            "where pictures are DICOM files whose names are hidden; give the numbers as a file of features"
        )
