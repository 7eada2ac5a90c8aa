"""One finished run: predictions, record, history and thumbnails in its folder, written and read back. No torch, no pickle.

Sound means that every file has the checksum it was written with, and that the record has its shape and the run's key. A run of
format 1, before the checksums, is held against the digest of its predictions that its record names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import StoreError, join_words
from phoropter.core.files import digest_file
from phoropter.core.storage.checksums import CHECKSUM_FILE, find_damage
from phoropter.core.storage.csv_cells import format_csv, read_csv_rows
from phoropter.core.storage.npz_files import read_own_npz
from phoropter.results.metrics.probabilities import to_probabilities
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities
from phoropter.results.record_shapes import UNSEALED_FORMAT, RunShape, read_record_file, write_record_file

WAY_OUT = "run the study again, which makes this run again"
_OPTIONAL_COLUMNS = {"groups": "group", "sites": "site", "spans": "span", "features": "features", "recordings": "recording"}


def explain_no_study(folder: Path) -> str:
    """Why a folder without study.json is no results folder: those of a study's parts lie in it, or none that is known."""
    inside = sorted(path.parent.name for path in folder.glob("*/study.json"))
    if not inside:
        return f"{folder} is not a results folder (no study.json in it): name the folder given to `run -o`"
    of_parts = f"name that of {join_words(inside)}, as {folder / inside[0]}"
    return f"{folder} is not a results folder (no study.json in it) but holds some: {of_parts}"


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of one run on rows it was not trained on.

    ids (n,) str · labels (n,) int64, or (n, C) of 0 and 1 where a row may have several
    logits (n, C) float32 · groups, sites (n,) str or None ·
    spans (n, 2) seconds in the recording or None · features (n, D) float16, penultimate, or None · recordings (n,) str, where a
    group has several, else None
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    groups: NDArray[np.str_] | None = None
    sites: NDArray[np.str_] | None = None
    spans: NDArray[np.float64] | None = None
    features: NDArray[np.float16] | None = None
    recordings: NDArray[np.str_] | None = None

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have several labels."""
        return self.labels.ndim == 2

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(n, C) softmax of the logits, or the sigmoid of each of several labels, in float64."""
        return to_probabilities(self.logits, self.is_multi_label)

    @cached_property
    def labelled(self) -> LabelledProbabilities:
        """Labels and probabilities as the metrics take them. Raises DataError where they do not fit."""
        return LabelledProbabilities.from_arrays(self.labels, self.probabilities)

    def save(self, path: Path) -> None:
        """Writes an npz file whose bytes depend only on the arrays."""
        optional: dict[str, Any] = {column: getattr(self, name) for name, column in _OPTIONAL_COLUMNS.items()}
        with path.open("wb") as file:
            arrays = {k: v for k, v in optional.items() if v is not None}
            np.savez(file, id=self.ids, label=self.labels, logits=self.logits, **arrays)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Reads a file written by `save`. Raises StoreError for any other."""
        columns = _read_columns(path)
        if "id" not in columns:
            raise StoreError(f"{path} is not a predictions file ('id'): {WAY_OUT}")
        return cls(
            columns["id"], columns["label"], columns["logits"], **{f: columns.get(n) for f, n in _OPTIONAL_COLUMNS.items()}
        )


def _read_columns(path: Path, only: tuple[str, ...] | None = None) -> dict[str, NDArray[Any]]:
    """The columns of a predictions file, or some of them. Raises StoreError."""
    try:
        columns = read_own_npz(path, only)
        _check_columns(columns)
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path} is not a predictions file ({error}): {WAY_OUT}") from None
    return columns


def _check_columns(columns: Mapping[str, NDArray[Any]]) -> None:
    """Raises ValueError or KeyError where the arrays are not those of one table."""
    labels, logits = columns["label"], columns["logits"]
    kinds = {"id": "U", "label": "i", "logits": "f", "group": "U", "site": "U", "recording": "U"}
    kinds |= {"span": "f", "features": "f"}
    for name, kind in kinds.items():
        if name in columns and (columns[name].dtype.kind != kind or columns[name].shape[:1] != labels.shape[:1]):
            raise ValueError(
                f"'{name}' has the shape {columns[name].shape} and kind {columns[name].dtype}, expected a row for each of the "
                f"{len(labels)} labels"
            )
    if labels.ndim == 2 and labels.shape == logits.shape and np.isin(labels, (0, 1)).all():
        return
    if labels.ndim != 1 or logits.ndim != 2 or (labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[1]):
        raise ValueError("labels are not (n,) numbers of the columns of (n, C) logits")


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run; its folder is read lazily.

    planned_name: of the candidate in the study as it is now, where a candidate was renamed after the run
    """

    folder: Path
    planned_name: str = ""

    @property
    def key(self) -> str:
        return self.folder.name

    @cached_property
    def record(self) -> dict[str, Any]:
        """record.json: candidate, split, seed, recipe, cost, versions, digests. Raises StoreError."""
        return read_record_file(self.folder / "record.json", RunShape, WAY_OUT)

    @property
    def candidate_name(self) -> str:
        return self.planned_name or str(self.record["candidate"]["name"])

    @cached_property
    def history(self) -> list[dict[str, float | str]]:
        """One row per epoch; numbers as float. Raises StoreError for a file that is no such table."""
        path = self.folder / "history.csv"
        if not path.exists():
            return []
        try:
            return [{k: _parse_number(v) for k, v in row.items()} for row in read_csv_rows(path)]
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is damaged ({error}): {WAY_OUT}") from None

    def load_predictions(self, part: str = "predictions") -> Predictions | None:
        """The predictions of one part (`predictions`, `validation`, `external`); None where there is none. Not cached."""
        path = self.folder / f"{part}.npz"
        return Predictions.load(path) if path.exists() else None

    def load_answers(self) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Labels and logits of the held-out rows, without their names, which are most of the file; None where there is none.

        Raises StoreError. For who knows the rows of another run with the same ones.
        """
        path = self.folder / "predictions.npz"
        if not path.exists():
            return None
        columns = _read_columns(path, ("label", "logits"))
        return columns["label"], columns["logits"]

    def load_pictures(self) -> dict[str, bytes]:
        """Sample id → JPEG bytes of the most confident mistakes."""
        return read_image_archive(self.folder / "pictures.npz")

    @property
    def bundle_folder(self) -> Path | None:
        """The folder of the trained classifier; None where it was not kept."""
        return self.folder / "bundle" if (self.folder / "bundle").is_dir() else None

    def find_damage(self) -> str | None:
        """What is wrong with the folder, in words; None where it is sound. The bundle has checksums of its own."""
        if not (self.folder / "record.json").is_file():
            return "record.json is missing"
        sealed = (self.folder / CHECKSUM_FILE).exists()
        if sealed and (damage := find_damage(self.folder)):
            return damage
        try:
            record = self.record
            if (own := record.get("key", self.key)) != self.key:
                return f"record.json is that of another run, {own}"
            if sealed:
                return None
            if record["format"] != UNSEALED_FORMAT:
                return f"{CHECKSUM_FILE} is missing"
            expected = record["digests"].get("predictions")
            if expected is not None and digest_file(self.folder / "predictions.npz") != expected:
                return "predictions.npz is not the file whose digest record.json names"
        except (StoreError, OSError) as error:
            return str(error).removeprefix(f"{self.folder}/").removesuffix(f"; {WAY_OUT}")
        return None


class RunWriter:
    """Writes the files of a run; the run exists once the `with` of `Store.create_run` is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write_record(self, record: Mapping[str, Any]) -> None:
        write_record_file(self.folder / "record.json", record)

    def write_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        rows = list(rows)
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = format_csv([names, *([row.get(name, "") for name in names] for row in rows)])
        (self.folder / "history.csv").write_text(text, encoding="utf-8", newline="")

    def write_predictions(self, predictions: Predictions, part: str = "predictions") -> None:
        predictions.save(self.folder / f"{part}.npz")

    def write_pictures(self, jpegs: Mapping[str, bytes]) -> None:
        """Sample id → JPEG bytes."""
        write_image_archive(self.folder / "pictures.npz", jpegs)


def write_image_archive(path: Path, jpegs: Mapping[str, bytes]) -> None:
    """Sample id → JPEG bytes, as one npz that `read_image_archive` reads."""
    with path.open("wb") as file:
        np.savez(
            file,
            id=np.array(list(jpegs), dtype=np.str_),
            length=np.array([len(j) for j in jpegs.values()], dtype=np.int64),
            jpeg=np.frombuffer(b"".join(jpegs.values()), dtype=np.uint8),
        )


def read_image_archive(path: Path) -> dict[str, bytes]:
    """Sample id → JPEG bytes; none where there is no file. Raises StoreError."""
    if not path.exists():
        return {}
    try:
        columns = read_own_npz(path)
        names, lengths, data = columns["id"], columns["length"], columns["jpeg"].tobytes()
        if lengths.shape != names.shape or (lengths < 0).any() or lengths.sum() != len(data):
            raise ValueError("the lengths do not add up")
        ends = np.cumsum(lengths).tolist()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read ({error}): {WAY_OUT}") from None
    return {str(i): data[end - n : end] for i, n, end in zip(names, lengths.tolist(), ends, strict=True)}


def _parse_number(text: str) -> float | str:
    try:
        return float(text or "nan")
    except ValueError:
        return text
