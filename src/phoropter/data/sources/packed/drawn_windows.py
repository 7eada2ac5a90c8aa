"""Windows of recordings that were drawn before they were packed: what a file of such pictures says of them, written and read.

    columns    recording: its name · start_s, stop_s: which seconds of it a picture shows
    metadata   `phoropter`: {"notes": …, "view": how windows were cut and drawn, "pools_grey_scale": …}, as JSON

So windows that overlap are found, split and audited as they are in the recordings; the samples themselves are gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import check_filled, clean_cell, clean_name
from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset

WINDOW_COLUMNS = ("recording", "start_s", "stop_s")
METADATA_KEY = b"phoropter"
_MAX_NOTES, _MAX_LETTERS = 100, 1000


@dataclass(frozen=True)
class DrawnWindows:
    """Of the pictures of one file.

    spans: (N, 2) seconds in the recording, or None · recordings: N names, or None · notes: on the recordings
    pools_grey_scale: whether a picture depends on the other windows of its subject
    """

    spans: NDArray[np.float64] | None
    recordings: list[str] | None
    notes: tuple[str, ...]
    pools_grey_scale: bool


def list_window_columns(dataset: Dataset) -> dict[str, NDArray[Any]]:
    """Column → N values, of those that the dataset has."""
    columns: dict[str, NDArray[Any]] = {} if dataset.recordings is None else {"recording": dataset.recordings}
    spans = dataset.spans
    return columns if spans is None else columns | {"start_s": spans[:, 0], "stop_s": spans[:, 1]}


def describe_drawing(dataset: Dataset, view: Mapping[str, Any] | None) -> dict[bytes, bytes]:
    """The metadata; none for pictures that are no windows of recordings. view: how they were cut and drawn, if known"""
    if not list_window_columns(dataset):
        return {}
    said = {"notes": dataset.notes, "view": view, "pools_grey_scale": getattr(dataset.pictures, "pools_grey_scale", False)}
    return {METADATA_KEY: json.dumps(said).encode()}


def read_drawn_windows(place: str, metadata: Mapping[bytes, bytes], columns: Mapping[str, Sequence[Any]]) -> DrawnWindows | None:
    """From a file's metadata and its WINDOW_COLUMNS; None for a file of other pictures. Raises DataError for missing values."""
    if METADATA_KEY not in metadata:
        return None
    try:
        said = json.loads(metadata[METADATA_KEY])
        notes = [clean_name(note)[:_MAX_LETTERS] for note in said["notes"][:_MAX_NOTES]]
        pooled = said.get("pools_grey_scale") is True
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise DataError(f"{place}: what it says of its windows cannot be read; pack the recordings again") from None
    names = [clean_cell(name) for name in columns["recording"]] if "recording" in columns else None
    if names is not None:
        check_filled(names, "recording", place)
    spans = _read_spans(place, columns) if {"start_s", "stop_s"} <= columns.keys() else None
    return DrawnWindows(spans, names, tuple(notes), pooled)


def _read_spans(place: str, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
    try:
        spans = np.array([columns["start_s"], columns["stop_s"]], dtype=np.float64).T
    except (TypeError, ValueError):
        spans = np.full((len(columns["start_s"]), 2), np.nan)
    wrong = np.flatnonzero(~(np.isfinite(spans).all(axis=1) & (spans[:, 0] < spans[:, 1])))
    if wrong.size:
        raise DataError(f"{place}, row {wrong[0]}: start_s and stop_s are no seconds of a window; pack the recordings again")
    return spans
