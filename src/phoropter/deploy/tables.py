"""Predictions as files: CSV, Parquet or JSON lines, one row per image or window, and beside them the means that belong together.

Every format has the same columns: id; of recordings the recording, subject, site and seconds; the label where a file has one of
the bundle's classes; `class`, the likeliest one, or of several labels those above a half (`edema|mass`); `p_CLASS` for each;
and `decision`, where the bundle has a threshold for such answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from phoropter.core.errors import SpecError, join_words
from phoropter.core.files import atomic_write, require_writable_place
from phoropter.core.storage.csv_cells import format_csv
from phoropter.deploy.decision import MeanProbabilities, name_answer
from phoropter.deploy.predictions import BundlePredictions

Row = dict[str, Any]
FORMATS = (".csv", ".parquet", ".jsonl")


def check_output_format(file: Path, inputs: Sequence[Path] = ()) -> None:
    """Raises SpecError for a file whose name ends in no known format and for one of the inputs, which it would replace, and
    DiskError, before anything is computed."""
    if file.suffix.lower() not in FORMATS:
        raise SpecError(f"{file}: predictions are written as {join_words(FORMATS)}; give a file with one of these endings, or -")
    if file.is_dir():
        raise SpecError(f"{file} is a folder; give the name of a file for the predictions")
    if file.exists() and any(path.exists() and path.samefile(file) for path in inputs):
        raise SpecError(f"{file} is one of the inputs, which the predictions would replace; give another file for them")
    require_writable_place(file)


def write_predictions(predictions: BundlePredictions, file: Path) -> list[Path]:
    """Writes one row per image or window; of recordings also their means to FILE-recordings, and those of subjects with several
    recordings to FILE-subjects, in the same format. Returns the files written. Raises SpecError, DiskError.
    """
    check_output_format(file)
    written = [_write_rows(file, list(make_rows(predictions)))]
    means = {"recording": predictions.average_by_recording(), "subject": predictions.average_by_subject()}
    for owner, values in means.items():
        if values is not None:
            beside = file.with_name(f"{file.stem}-{owner}s{file.suffix}")
            decided = predictions.decide_recordings() if owner == "recording" else predictions.decide_subjects()
            rows = _add_decisions(_mean_rows(owner, values, predictions), decided)
            written.append(_write_rows(beside, list(rows)))
    return written


def format_predictions_csv(predictions: BundlePredictions) -> str:
    """The rows of images or windows as the text of a CSV file."""
    return _format_rows(list(make_rows(predictions)))


def make_rows(predictions: BundlePredictions) -> Iterator[Row]:
    """Column → value of each image or window."""
    return _add_decisions(_image_rows(predictions), predictions.decide_rows())


def _add_decisions(rows: Iterator[Row], decided: list[str] | None) -> Iterator[Row]:
    """With the column `decision`, where the bundle has a threshold for these answers."""
    return rows if decided is None else (row | {"decision": name} for row, name in zip(rows, decided, strict=True))


def _image_rows(predictions: BundlePredictions) -> Iterator[Row]:
    dataset = predictions.dataset
    labelled = bool(dataset.labelled.any())
    for row, p in enumerate(predictions.probabilities):
        cells: Row = {"id": str(dataset.ids[row])}
        if dataset.recordings is not None and dataset.groups is not None and dataset.spans is not None:
            start, stop = dataset.spans[row].tolist()
            cells |= {"recording": str(dataset.recordings[row]), "subject": str(dataset.groups[row])}
            cells |= {"site": "" if dataset.sites is None else str(dataset.sites[row]), "start_s": start, "stop_s": stop}
        if labelled:
            cells["label"] = dataset.describe_label(row) or ""
        yield cells | name_probabilities(p, predictions.classes, predictions.multi_label)


def _mean_rows(owner: str, means: MeanProbabilities, predictions: BundlePredictions) -> Iterator[Row]:
    for name, count, p in zip(*means, strict=True):
        named = name_probabilities(p, predictions.classes, predictions.multi_label)
        yield {owner: name, "windows": int(count)} | named


def name_probabilities(p: Any, classes: tuple[str, ...], multi_label: bool = False) -> Row:
    """(C,) probabilities → the columns class and p_CLASS of one row."""
    return {
        "class": name_answer(p, classes, multi_label),
        **{f"p_{name}": float(value) for name, value in zip(classes, p, strict=True)},
    }


def _write_rows(file: Path, rows: list[Row]) -> Path:
    with atomic_write(file) as aside:
        if file.suffix.lower() == ".parquet":
            import pandas as pd

            pd.DataFrame(rows).to_parquet(aside, index=False)
        elif file.suffix.lower() == ".jsonl":
            aside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        else:
            aside.write_text(_format_rows(rows), encoding="utf-8", newline="")
    return file


def _format_rows(rows: list[Row]) -> str:
    cells = ([f"{v:.9g}" if isinstance(v, float) else v for v in row.values()] for row in rows)
    return format_csv([list(rows[0]), *cells])
