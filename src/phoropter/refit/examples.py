"""Writes examples into a bundle: copies of some of the study's held-out data, with the logits that the bundle's classifier gives.

Pictures are kept as the study stored them, square, without the names and headers of their files; recordings as tables of the
channels they are drawn from. Each is read back from its file and must be predicted as the study's own pixels are.

Refused: DICOM, whose pixels and headers may say whom they are of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError, SpecError
from phoropter.core.seeds import random_permutation
from phoropter.core.storage.csv_cells import format_csv
from phoropter.data.dataset import Dataset
from phoropter.data.dicom_file import may_be_dicom
from phoropter.data.images.pixels import InMemoryPixels, Pixels
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.deploy.examples import BundleExample, write_examples_list
from phoropter.deploy.predict import Bundle, make_square_predictor, predict_paths
from phoropter.signals.recording import Recording

MAX_VALUES = 200_000  # samples of all channels kept of one recording
MAX_DIFFERENCE = 1e-4  # between the logits of a file and of the study's pixels


def write_examples(folder: Path, bundle: Bundle, dataset: Dataset, pixels: Pixels, rows: NDArray[np.int64]) -> None:
    """Writes examples/ of a bundle. folder: the new folder · rows: those to copy, of recordings one window of each

    Raises DataError where a file would be predicted otherwise than the study's own pixels, or cannot be read at all.
    """
    folder.mkdir()
    write_one = _write_picture if bundle.recording_view is None else _write_recording
    examples = []
    for number, row in enumerate(rows.tolist(), 1):
        file, expected = write_one(folder / str(number), bundle, dataset, pixels, row)
        try:
            logits = predict_paths(bundle, [file], device="cpu", on_bad_input="stop").logits
        except DataError as error:
            raise DataError(f"--examples: {str(error).replace(str(folder), 'examples')}; leave --examples out") from None
        if expected is not None and np.abs(logits - expected).max() > MAX_DIFFERENCE:
            raise DataError(
                "--examples: a picture of these data, written to a file, is not predicted as the study's pixels are (channels, "
                "page or window of data read it otherwise); leave --examples out"
            )
        examples.append(BundleExample(file, dataset.describe_label(row) or "", logits))
    write_examples_list(folder, examples)


def choose_example_rows(dataset: Dataset, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(n,) held-out rows → at most `count` of them, classes in turn, of a recording one. Raises SpecError for DICOM."""
    if _holds_dicom(dataset):
        raise SpecError("--examples: the data are DICOM, whose pictures may say whom they are of; leave --examples out")
    order = rows[random_permutation(dataset.hashed_ids[rows], "examples")]
    if dataset.recordings is not None:
        order = order[np.sort(np.unique(dataset.recordings[order], return_index=True)[1])]
    labels = dataset.label_sets[order]
    turn = np.array([int((labels[:at] == label).sum()) for at, label in enumerate(labels.tolist())])
    return np.asarray(order[np.argsort(turn, kind="stable")][:count])


def _holds_dicom(dataset: Dataset) -> bool:
    pictures: Any = dataset.pictures
    pictures = getattr(pictures, "pictures", pictures)  # decoded with options
    return any(map(may_be_dicom, getattr(pictures, "file_names", ()))) or any("DICOM" in note for note in dataset.notes)


def _write_picture(stem: Path, bundle: Bundle, dataset: Dataset, pixels: Pixels, row: int) -> tuple[Path, NDArray[np.float32]]:
    """The file of a picture, and the logits of the study's own pixels."""
    square = pixels.batch(np.array([row]))
    file = stem.with_suffix(".png")
    Image.fromarray(np.ascontiguousarray(square[0].transpose(1, 2, 0))).save(file)
    return file, make_square_predictor(bundle, torch.device("cpu"))(InMemoryPixels(square))


def _write_recording(stem: Path, bundle: Bundle, dataset: Dataset, pixels: Pixels, row: int) -> tuple[Path, None]:
    """The file of a row's recording, of a long one the part that begins at the row's window."""
    assert isinstance(dataset.pictures, RenderedPictures) and dataset.spans is not None
    windows = dataset.pictures.windows
    recording = windows.recordings[int(windows.table.recording[dataset.pictures.index[row]])]
    channels = [recording.channels.index(name) for name in windows.view.measured_channels]
    kept = MAX_VALUES // len(channels)
    start = (
        0
        if recording.length <= kept
        else min(max(0, int(windows.table.start[dataset.pictures.index[row]])), recording.length - kept)
    )
    samples = recording.samples[channels, start : start + kept]
    names = [_name_in_file(bundle, recording, at) for at in channels]
    cells = ([None if np.isnan(v) else str(v) for v in line] for line in samples.T)
    file = stem.with_suffix(".csv")
    file.write_text(format_csv([names, *cells]), encoding="utf-8", newline="")
    return file, None


def _name_in_file(bundle: Bundle, recording: Recording, channel: int) -> str:
    """A channel's name before the study renamed it (`columns`), as files to be predicted have it."""
    name = recording.channels[channel]
    columns: dict[str, str] = getattr(bundle.data, "columns", {})
    return next((theirs for ours, theirs in columns.items() if ours.casefold() == name.casefold()), name)
