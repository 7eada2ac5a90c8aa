"""Sources of recordings: every known database, a manifest or folder of recordings, and simulated people and births."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from phoropter.core.errors import DataError
from phoropter.core.storage.foreign_files import PARQUET
from phoropter.core.text_table import PARQUET_ENDINGS, peek_table
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.changes import RecordingChanges
from phoropter.data.recordings.database import Database
from phoropter.data.recordings.databases import DATABASES
from phoropter.data.recordings.dataset import render_recordings
from phoropter.data.recordings.lazy import LazyRecordings, memoize_recordings
from phoropter.data.recordings.spec import (
    RecordingFields,
    check_recording_options,
    resolve_database,
    resolve_recording_view,
)
from phoropter.data.source import COLUMNS_OPTION, PathContents, Source, SourceRequest
from phoropter.signals.readers.tables import RECORDING_ENDINGS
from phoropter.signals.recording import LoadedRecordings, OnBadInput
from phoropter.signals.simulate import CtgCohort, EcgCohort

_CHANNEL_OPTIONS = ("window", "channel", "representation", "grey_scale", "require_r_peaks", "resample_hz", "gaps", "missing")
_CTG_OPTIONS = ("outcome", "representation", "clean", "resample_hz", "gaps", "missing")


def open_recordings(
    fields: RecordingFields, source: str, path: Path | None, *, size: int | None, name: str | None, on_bad_input: OnBadInput
) -> Dataset:
    """Recordings of a source → the Dataset of their windows.

    Raises DataError where they are missing or give no window, and where a manifest has labels, which make the classes, in some
    rows only (such recordings are left out and counted with "skip").
    path: of the folder or manifest; None for simulations · size: of the stored images in pixels
    name: of the dataset, by default the file's or folder's
    """
    database = resolve_database(fields, source)
    lazy = load_recordings(fields, source, path, on_bad_input)
    view = resolve_recording_view(fields, source, size, lazy.loaded.recordings)
    if lazy.loaded.missing_labels and view.reads_labels and on_bad_input == "stop":
        way_out = "give every recording a label or spans, or set on_bad_input: skip, which leaves such recordings out"
        raise DataError(f"{lazy.loaded.missing_labels}; {way_out}")
    name = name or (path.stem if path is not None else f"simulated {getattr(fields, 'simulate', 'recordings')}")
    notes = [database.note] if database.note else []
    return render_recordings(
        lazy, view, name=name, on_bad_input=on_bad_input, notes=notes, subjects=database.subjects, multi_label=fields.multi_label
    )


def load_recordings(fields: RecordingFields, source: str, path: Path | None, on_bad_input: OnBadInput) -> LazyRecordings:
    """The recordings of a source, read once a process. Raises DataError where the folder is missing, with where to get it."""
    database, changes = resolve_database(fields, source), RecordingChanges.of(fields)
    if path is None:
        simulated = getattr(fields, "simulate", "ecg")
        cohort = fields.cohort or (EcgCohort() if simulated == "ecg" else CtgCohort())
        return memoize_recordings((source, cohort, changes), None, _load_database, database, cohort, on_bad_input, changes)
    path = path.absolute()
    if not path.exists() and database.download_hint:
        raise DataError(f"there is no folder {path}; {source} is {database.download_hint}")
    key = (database, database.source_digest() if fields.database else "", path, on_bad_input, changes)
    return memoize_recordings(key, path, _load_database, database, path, on_bad_input, changes)


def _load_database(database: Database, place: Any, on_bad_input: OnBadInput, changes: RecordingChanges) -> LoadedRecordings:
    loaded = database.load(place, on_bad_input)
    changes.check_missing(loaded)
    return changes.apply(loaded, on_bad_input)


# --- records for the table of sources ----------------------------------------------------------------------------------------


def _make_source(key: str, help: str, uses: tuple[str, ...], **record: Any) -> Source:
    def open_source(request: SourceRequest) -> Dataset:
        path = None if key == "simulate" else request.path
        fields = cast(RecordingFields, request.spec)
        return open_recordings(
            fields, key, path, size=request.option("size"), name=request.name, on_bad_input=request.on_bad_input
        )

    def check_options(spec: Any) -> None:
        check_recording_options(spec, key)

    return Source(key, open_source, help, uses=uses, holds_recordings=True, check=check_options, **record)


def _make_database_source(key: str, database: Database) -> Source:
    detect = database.detect
    several = ("multi_label",) if database.read_label_sets else ()
    labels = ("task", *several) if database.tasks else () if database.classes or database.windows == "ctg" else ("outcome",)
    clean = ("clean",) if database.windows is None else ()
    rate = f" of {database.rate_hz:g} Hz" if database.rate_hz else ""
    return _make_source(
        key,
        f"the folder of a recording database{rate}: {database.note}",
        _CTG_OPTIONS if database.windows == "ctg" else (*labels, *clean, *_CHANNEL_OPTIONS),
        options=() if database.windows is not None else (COLUMNS_OPTION,),
        detect=None if detect is None else lambda contents: contents.is_folder and detect(contents.path, contents.names),
    )


def _is_manifest_of_recordings(contents: PathContents) -> bool:
    """Whether a manifest has a rate, or lists recordings by their endings. Raises DataError for a folder of other recordings."""
    if contents.is_folder:
        if contents.suffixes.intersection(RECORDING_ENDINGS):
            raise DataError(
                f"{contents.path} holds recordings of no known database; list them in a manifest (docs/recordings.md), "
                f"which phoropter init {contents.path} writes"
            )
        return False
    if not contents.is_file_like(".csv", ".tsv", *PARQUET_ENDINGS):
        return False
    header, first = peek_table(contents.path)
    words = {word.casefold() for word in header}
    listed = any(cell.strip().lower().endswith(RECORDING_ENDINGS) for cell in first)
    return "path" in words and ("rate_hz" in words or listed)


RECORDING_SOURCES: tuple[Source, ...] = (
    *(_make_database_source(key, database) for key, database in DATABASES.items()),
    _make_source(
        "recordings",
        "a manifest of recordings, or the folder that `database` reads",
        ("database", "task", "multi_label", "outcome", "clean", *_CHANNEL_OPTIONS),
        options=(COLUMNS_OPTION,),
        formats=(PARQUET,),
        detect=_is_manifest_of_recordings,
    ),
    _make_source(
        "simulate",
        "`ecg` or `ctg`: simulated people or births",
        ("cohort", "task", "outcome", "clean", *_CHANNEL_OPTIONS),
        value_type=Literal["ecg", "ctg"] | None,
    ),
)
