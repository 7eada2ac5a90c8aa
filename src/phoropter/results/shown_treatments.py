"""What a study does to its pictures, on a few rows, as it lies in a results folder.

    DIR/treatments/treatments.json    the rows, and what is shown of each at every step; or why there is nothing
    DIR/treatments/pictures.npz       the pictures, as small JPEGs

Written at the end of a run, where the data are at hand; the report only reads it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from phoropter.core.errors import StoreError
from phoropter.core.files import atomic_write_folder
from phoropter.core.storage.sealed_json import CacheShape, read_cache_json, write_cache_json
from phoropter.results.run_folder import read_image_archive, write_image_archive

TREATMENTS_FOLDER = "treatments"
_FILE, _PICTURES = "treatments.json", "pictures.npz"


class ShownRow(CacheShape):
    """A row of the data: its id, its class in words, and of a window the seconds it covers."""

    id: str
    label: str
    span: tuple[float, float] | None = None


class ShownTrace(CacheShape):
    """Samples of a window in columns of equal time: the lowest and the highest value of each, None where none is known."""

    low: list[float | None]
    high: list[float | None]


class ShownStep(CacheShape):
    """One step from the data to what a network sees: its title, a sentence about it, and what it leaves of each row.

    channel, unit: of traces · traces: one for each row; empty where pictures are shown
    pictures: names of JPEGs in the archive, one for each row; empty where traces are shown
    """

    title: str
    about: str
    channel: str = ""
    unit: str = ""
    traces: list[ShownTrace] = []
    pictures: list[str] = []


class ShownTreatments(CacheShape):
    """rows: those shown · steps: in the order in which they act · left_out: titles of further ones · reason: why there is nothing

    source: what it was drawn from, as a digest
    """

    source: str
    rows: list[ShownRow] = []
    steps: list[ShownStep] = []
    left_out: list[str] = []
    reason: str = ""


def write_treatments(folder: Path, shown: ShownTreatments, jpegs: Mapping[str, bytes]) -> None:
    """Replaces those of a results folder. Raises DiskError."""
    shutil.rmtree(folder / TREATMENTS_FOLDER, ignore_errors=True)
    with atomic_write_folder(folder / TREATMENTS_FOLDER) as aside:
        write_image_archive(aside / _PICTURES, jpegs)
        write_cache_json(aside / _FILE, shown)


def read_treatments(folder: Path) -> ShownTreatments | None:
    """Those of a results folder; None where there are none, or they or their pictures are damaged: a run draws them again."""
    shown = read_cache_json(folder / TREATMENTS_FOLDER / _FILE, ShownTreatments)
    if shown is None:
        return None
    try:
        there = read_treated_pictures(folder).keys()
    except StoreError:
        return None
    return shown if there >= {name for step in shown.steps for name in step.pictures} else None


def read_treated_pictures(folder: Path) -> dict[str, bytes]:
    """Name → JPEG. Raises StoreError where the archive is damaged."""
    return read_image_archive(folder / TREATMENTS_FOLDER / _PICTURES)
