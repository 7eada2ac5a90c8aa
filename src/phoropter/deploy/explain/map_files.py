"""Explanations as files: a figure or numbers of each, and a table of all; the folder is there whole or not at all.

The table `explanations.csv` has a row for each: file, id, of recordings the recording and its seconds, the likeliest class and
its probability, the class explained and its probability, method, the highest value of the map, the share of each branch, and of
recordings the second of most evidence. `problems.csv` lists inputs that could not be read. The CSV of one explanation is the map
along time, of recordings alone: second, evidence (0 to 1) and each channel in its unit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from phoropter.core.errors import DataError, InputProblem, SpecError
from phoropter.core.files import atomic_write_folder, write_text
from phoropter.core.storage.csv_cells import format_csv
from phoropter.data.dataset import Dataset
from phoropter.deploy.explain.explain import ExplainOptions, explain_dataset
from phoropter.deploy.explain.explanation import Explanation
from phoropter.deploy.inputs import describe_unreadable
from phoropter.deploy.predict import Bundle
from phoropter.signals.recording import OnBadInput

MapFormat = Literal["png", "svg", "npz", "csv"]
TABLE = "explanations.csv"


@dataclass(frozen=True)
class WrittenMaps:
    """count: explanations written · problems: inputs that could not be read"""

    count: int
    problems: tuple[InputProblem, ...]


def check_map_folder(folder: Path, formats: Sequence[MapFormat], records: bool) -> None:
    """Raises SpecError for a folder that is there, and for CSV files of pictures, before anything is computed.

    records: whether the inputs are recordings
    """
    if folder.exists():
        raise SpecError(f"{folder} exists already; give a new folder for the maps")
    if "csv" in formats and not records:
        raise SpecError("--write csv: the map of a picture is no table; choose npz, png or svg")


def write_explanations(
    bundle: Bundle,
    dataset: Dataset,
    folder: Path,
    formats: Sequence[MapFormat] = ("png", "npz"),
    options: ExplainOptions | None = None,
    on_bad_input: OnBadInput = "skip",
    progress: Callable[[int, int], None] | None = None,
) -> WrittenMaps:
    """Explains each row of a dataset into files of these formats in a new folder.

    progress: called with (rows done, rows in all)
    Raises what `explain_dataset` raises, DataError where no row can be read, DiskError.
    """
    check_map_folder(folder, formats, bundle.recording_view is not None)
    rows: list[dict[str, Any]] = []
    problems: list[InputProblem] = []
    with atomic_write_folder(folder) as aside:
        for found in explain_dataset(bundle, dataset, options or ExplainOptions(), on_bad_input):
            if isinstance(found, InputProblem):
                problems.append(found)
                continue
            stem = f"{len(rows) + 1:04d}-{_plain_name(found.name)}"
            for kind in formats:
                write_map(found, aside / f"{stem}.{kind}", kind)
            rows.append({"file": stem} | describe_row(found))
            if progress:
                progress(len(rows), len(dataset))
        if not rows:
            raise DataError(describe_unreadable(dataset.name, len(dataset), problems))
        write_text(aside / TABLE, _format_table(rows))
        if problems:
            write_text(aside / "problems.csv", format_csv([("input", "problem"), *((p.where, p.what) for p in problems)]))
    return WrittenMaps(len(rows), tuple(problems))


def write_map(explanation: Explanation, file: Path, kind: MapFormat) -> None:
    """Writes one explanation as a figure, or as numbers."""
    if kind == "csv":
        write_text(file, format_time_map(explanation))
    else:
        {"png": explanation.to_png, "svg": explanation.to_svg, "npz": explanation.to_npz}[kind](file)


def format_time_map(explanation: Explanation) -> str:
    """The map along time of a window as CSV. Raises SpecError for a picture."""
    window, seconds, along = explanation.window, explanation.time_s, explanation.time_map
    if window is None or seconds is None or along is None:
        raise SpecError(f"{explanation.name} is a picture and has no map along time; write it as npz")
    names = [f"{n} ({u})" if u else n for n, u in zip(window.signals, window.units, strict=True)]
    columns = [seconds.round(6).tolist(), along.round(5).tolist(), *(s.tolist() for s in window.signals.values())]
    cells = ([None if value != value else value for value in row] for row in zip(*columns, strict=True))  # NaN is not itself
    return format_csv([("second", "evidence", *names), *cells])


def describe_row(explanation: Explanation) -> dict[str, Any]:
    """Column → value of the table."""
    target, predicted = explanation.target, explanation.predicted
    row: dict[str, Any] = {"id": explanation.name}
    if explanation.window is not None:
        row |= {"recording": explanation.window.recording, "start_s": explanation.window.start_s}
        row |= {"stop_s": explanation.window.stop_s}
    row |= {"class": explanation.classes[predicted], "probability": round(float(explanation.probabilities[predicted]), 6)}
    row |= {"explained": explanation.classes[target], "its_probability": round(float(explanation.probabilities[target]), 6)}
    row |= {"method": explanation.method, "highest": explanation.raw_max}
    if len(explanation.branches) > 1:
        row |= {f"share of {name}": round(branch.weight, 6) for name, branch in explanation.branches.items()}
    if explanation.time_s is not None and explanation.time_map is not None:
        row["most_evidence_s"] = float(explanation.time_s[int(np.argmax(explanation.time_map))])
    return row


def _format_table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    return format_csv([names, *([row[name] for name in names] for row in rows)])


def _plain_name(name: str) -> str:
    """The end of an id as part of a file's name: letters, digits, points, hyphens."""
    stem = re.sub(r"\.(png|jpe?g|tiff?|bmp|webp|gif|dcm)$", "", name.replace("\\", "/").rsplit("/", 1)[-1], flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9.@_-]+", "_", stem)[-60:].strip("._") or "input"
